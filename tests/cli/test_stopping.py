"""A run that a scheduler ends says that its work is kept, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fake_runs import LABELS, task_at
from jettison.candidate import write_candidate


def test_sigterm_ends_a_run_as_an_interruption_does(tmp_path):
    task_at(tmp_path, n_test=400)
    (tmp_path / "large").mkdir()
    write_candidate(tmp_path / "large", name="large", backend="fake", labels=LABELS)
    (tmp_path / "jettison.toml").write_text(
        'format = 1\ntask = "task.toml"\nincumbent = "large"\noutput = "run"\ncost_s = 60.0\n'
        '[[recipes]]\nname = "x"\nsteps = [{step = "settings"}]\n'
    )
    command = [sys.executable, "-m", "jettison", "run", str(tmp_path / "jettison.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "cost of" in line:
                break
        deadline = time.monotonic() + 30
        while not _children(run.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        said = run.stderr.read()
        assert run.wait(timeout=60) == 143, said
    assert "stopped by SIGTERM; finished work is kept, run the same command to go on." in said
    assert "Traceback" not in said
    with pytest.raises(ProcessLookupError):  # the group of the run is empty: its worker has gone, too
        os.killpg(run.pid, 0)


def _children(pid: int) -> str:
    return subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
