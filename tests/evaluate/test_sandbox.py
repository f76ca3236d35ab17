"""Programs that mean harm: none of them passes, none of them does it, and each is told apart."""

import json
import os
import re
import time
from pathlib import Path

import msgspec
import pytest

from jettison.candidate import write_candidate
from jettison.errors import InvalidInput
from jettison.evaluate import evaluate
from jettison.evaluate.sandbox import SandboxLimits, run_program
from jettison.evaluate.score_code import CodeScorer, code_in
from jettison.model import Output
from jettison.record import read_records_meta
from jettison.task import Example

SHARED = Path(os.environ.get("JETTISON_SHARED", Path(__file__).resolve().parents[3] / "shared"))
SHORT = SandboxLimits(
    cpu_s=1, wall_s=1.2, memory_bytes=256 << 20, disk_bytes=1 << 20, output_bytes=32 << 10
)
UNHURRIED = msgspec.structs.replace(SHORT, wall_s=60)
"""For what ends by itself, on a busy machine too."""
KERNEL = {"landlock", "seccomp"} <= set(run_program("").doors)
needs_kernel = pytest.mark.skipif(not KERNEL, reason="this kernel gives no Landlock or no seccomp")


def test_what_reaches_its_end_passes():
    program = "import json, re, typing\nopen('mine', 'w').write('x')\nassert open('mine').read() == 'x'"
    run = run_program(program)
    assert (run.passed, run.reason) == (True, "")
    assert run.doors[-1] == "audit hook"


HOSTILE = {
    "endless loop": ("while True: pass", "processor time|longer than"),
    "sleep": ("import time; time.sleep(60)", "ran longer than 1.2 s"),
    "fork bomb": ("import os\nwhile True: os.fork()", "not in the sandbox: os.fork"),
    "memory at once": ("x = bytearray(10**10)", "MemoryError"),
    "memory bit by bit": ("x = []\nwhile True: x.append(bytearray(10**7))", "MemoryError"),
    "flood of output": ("while True: print('x' * 1000)", "File too large|bytes of output"),
    "flood of files": (
        "i = 0\nwhile True:\n    i += 1\n    open(f'f{i}', 'w').write('x' * 50000)",
        "bytes of files|longer than|processor time",
    ),
    "network": ("import socket\nsocket.create_connection(('127.0.0.1', 80))", "not in the sandbox: socket"),
    "leaves early": ("import sys\nsys.exit(0)", "SystemExit: 0"),
    "leaves without a word": ("import os\nos._exit(0)", "left before its end, with exit status 0"),
    "kills its parent": ("import os\nos.kill(os.getppid(), 9)", "not in the sandbox: os.kill"),
    "kills its group": ("import os\nos.killpg(0, 9)", "not in the sandbox: os.kill"),
    "starts a shell": ("import os\nos.system('true')", "not in the sandbox: os.system"),
    "starts a process": ("import subprocess\nsubprocess.run(['true'])", "not in the sandbox"),
    "raises its limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (9, 9))",
        "not in the sandbox: resource.setrlimit",
    ),
    "reads accounts": ("open('/etc/passwd').read()", "not in the sandbox: open"),
    "reads the parent's secrets": (
        "import os\nopen(f'/proc/{os.getppid()}/environ').read()",
        "not in the sandbox: open",
    ),
    "has a secret in its environment": (
        "import os\nassert 'JETTISON_SECRET' in os.environ",
        "AssertionError",
    ),
    "waits for input": ("input()", "EOFError"),
    "dives": ("def f(): f()\nf()", "RecursionError"),
    "ignores the signal": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "longer than|SIGKILL",
    ),
    "forges the verdict": (
        'import os\nfor fd in range(3, 20):\n    try: os.write(fd, b\'{"secret": "passed"}\\n\')\n'
        "    except OSError: pass\nos._exit(0)",
        "left before its end",
    ),
    "is no Python": ("def f(:", "SyntaxError"),
    "holds a null": ("x = '\0'", "no source that Python reads"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_fails_for_the_reason_it_should(name, monkeypatch):
    monkeypatch.setenv("JETTISON_SECRET", "hunter2")
    program, reason = HOSTILE[name]
    started = time.monotonic()
    run = run_program(program, SHORT if "longer than" in reason else UNHURRIED)
    assert not run.passed
    assert re.search(reason, run.reason), run.reason
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "program",
    [
        "open({path!r}, 'w').write('x')",
        "import os\nos.mkdir({path!r})",
        "import os\nos.symlink(os.path.dirname({path!r}), 'way')\nopen('way/escaped', 'w')",
        "import os\nos.rename('/etc/hostname', {path!r})",
    ],
)
def test_nothing_is_written_outside(program, tmp_path):
    path = tmp_path / "escaped"
    run = run_program(program.format(path=str(path)), SHORT)
    assert not run.passed
    assert "not in the sandbox" in run.reason
    assert list(tmp_path.iterdir()) == []


@needs_kernel
def test_the_kernel_holds_where_no_audit_hook_is_asked(tmp_path):
    # setsid and mkfifo raise no audit event; ctypes goes around every hook.
    assert "Operation not permitted" in run_program("import os\nos.setsid()", SHORT).reason
    path = str(tmp_path / "fifo")
    assert "Permission denied" in run_program(f"import os\nos.mkfifo({path!r})", SHORT).reason
    calls = (
        "import ctypes, os\nc = ctypes.CDLL(None)\n"
        "assert c.kill(os.getppid(), 0) == c.fork() == c.socket(2, 1, 0) == -1\n"
        f"assert c.open(b'/etc/passwd', 0) == c.open({path.encode()!r}, 0o101) == -1"
    )
    assert run_program(calls, SHORT).reason == ""
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_removed_whatever_rights_it_was_left_with(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_program(
        "import os\nos.mkdir('d')\nopen('d/x', 'w').close()\nos.chmod('d', 0)\nos.chmod('.', 0)", SHORT
    )
    assert list(tmp_path.iterdir()) == []


def test_a_limit_must_be_above_zero():
    with pytest.raises(InvalidInput, match="cpu_s of a sandbox must be above zero, got 0"):
        run_program("", SandboxLimits(cpu_s=0))


TESTS = "def check(f):\n    assert f(2, 3) == 5\n    assert f(-1, 1) == 0\n\ncheck(add)"
ADD = Example(id="1", input="def add(a, b):\n", tests=(TESTS,))


def test_code_is_run_only_where_it_was_asked_for():
    for setting in (False, 1, "yes"):
        with pytest.raises(InvalidInput, match="run_code of scorer 'code' must be true"):
            CodeScorer(run_code=setting)


def test_code_passes_its_unit_tests_or_says_why_not():
    scorer = CodeScorer(run_code=True)

    def score(answer: str, example: Example = ADD, **fields: object) -> tuple[float | None, str | None]:
        found = scorer.score(example, Output(label=answer, confidence=0.5, **fields))  # type: ignore[arg-type]
        return found.value, found.reason

    assert scorer.facts() == {"sandbox": None}
    assert score("Here:\n```python\ndef add(a, b):\n    return a + b\n```\nGood luck!") == (1.0, None)
    assert score("def add(a, b): return a - b") == (0.0, "AssertionError")
    assert score("def add(a, b: return")[0] == 0.0
    assert score("", error="no") == (0.0, "no answer")
    assert score("x", Example(id="2", input="?"))[0] is None
    assert "audit hook" in str(scorer.facts())
    goes_on = CodeScorer(run_code=True, continues=True)
    assert goes_on.score(ADD, Output(label="    return a + b", confidence=0.5)).value == 1.0


def test_code_is_the_first_fence_or_everything():
    assert code_in("Sure\n```py\nx = 1\n```\n```\ny\n```") == "x = 1\n"
    assert code_in("```\nx = 1") == "x = 1"
    assert code_in("x = 1") == "x = 1"


def test_the_evidence_says_what_kept_the_code_in(tmp_path):
    candidate = write_candidate(tmp_path, name="fake", backend="fake", labels=("a", "b"))
    folder = tmp_path / "records"
    scorers = {"code": {"run_code": True}}
    (record,) = evaluate(candidate, [ADD], split="dev", scorers=scorers, folder=folder)
    assert record.scores == {"code": 0.0}
    (path,) = folder.glob("*.parquet")
    assert "audit hook" in read_records_meta(path)["scorer_facts"]["code"]["sandbox"]


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not beside the checkout")
def test_reference_solutions_of_humaneval_pass_and_empty_ones_fail():
    scorer = CodeScorer(run_code=True, continues=True)
    rows = [json.loads(x) for x in (SHARED / "data/humaneval/humaneval.jsonl").read_text().splitlines()]
    for row in rows[::40]:
        tests = f"{row['test']}\ncheck({row['entry_point']})"
        example = Example(id=row["task_id"], input=row["prompt"], tests=(tests,))
        right = scorer.score(example, Output(label=row["canonical_solution"], confidence=0.5))
        assert right.value == 1, (row["task_id"], right.reason)
        wrong = scorer.score(example, Output(label="    return None\n", confidence=0.5))
        assert wrong.value == 0, row["task_id"]
