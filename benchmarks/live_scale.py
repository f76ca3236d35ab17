"""How long do experiment status, drift and cost tables take over tens of millions of logged records?

Makes a log (or takes one that is there), then runs the commands as a user would, each in a process of its
own: `jettison experiment status` with nothing kept, the same again, and `jettison traffic`. Beside it, on a
log that fits in memory, the tables of `jettison traffic` by pandas, interleaved. Prints one JSON object a
figure.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from jettison.monitor.plan import EXPERIMENTS, ExperimentPlan, Metric, write_plan
from made_traffic import make_log

PLAN = ExperimentPlan(
    name="lean-7",
    kind="split",
    metrics=(
        Metric(name="label", margin=0.02),
        Metric(name="errors", role="guardrail", margin=0.005),
        Metric(name="latency_s", role="guardrail", margin=0.2),
    ),
    started=1.0,
)
PANDAS = "pandas==3.0.2"


class Ran(NamedTuple):
    """One process."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: str


def ran(command: list[str]) -> Ran:
    with tempfile.TemporaryFile("w+") as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, cwd=Path(__file__).parent)
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read()
    if process.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    # Largest resident set of the process; none of these has children.
    return Ran(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, text)


def ours(*arguments: str) -> Ran:
    return ran([sys.executable, "-m", "jettison.cli", *arguments, "--json"])


def figure(name: str, values: list[float], unit: str, against: str) -> None:
    """The median of the rounds, with their least and most."""
    middle = statistics.median(values)
    print(
        json.dumps(
            {
                "name": name,
                "value": middle,
                "low": min(values),
                "high": max(values),
                "unit": unit,
                "against": against,
            }
        ),
        flush=True,
    )


def whole(state: Path, n: int, rounds: int) -> None:
    """All commands over the whole log."""
    cold, again, tables = [], [], []
    for _ in range(rounds):
        shutil.rmtree(state / EXPERIMENTS, ignore_errors=True)
        write_plan(state, PLAN)
        cold.append(ours("experiment", "status", PLAN.name, "--state", str(state)))
        again.append(ours("experiment", "status", PLAN.name, "--state", str(state)))
        tables.append(ours("traffic", str(state)))
        check(cold[-1], again[-1], tables[-1], n)
    asked = " (asked: under 60 s)" if n == 50_000_000 else ""
    size = f"{n / 1e6:g} million records in {len(os.sched_getaffinity(0))} cores"
    figure(
        "seconds_50m" if n == 50_000_000 else f"seconds_{n}",
        [a.wall_s + b.wall_s for a, b in zip(cold, tables, strict=True)],
        "s",
        f"status with nothing kept, drift and cost tables; {size}{asked}",
    )
    every = [*cold, *again, *tables]
    peaks = [max(r.peak_bytes for r in every[k::rounds]) / 2**30 for k in range(rounds)]
    figure("peak_gib", peaks, "GiB", "largest resident set of any command (asked: under 4 GB)")
    figure("status_s", [r.wall_s for r in cold], "s", "experiment status, nothing kept")
    figure("status_again_s", [r.wall_s for r in again], "s", "experiment status, what was read is kept")
    figure("tables_s", [r.wall_s for r in tables], "s", "drift and cost tables")
    figure("status_cpu_s", [r.cpu_s for r in cold], "CPU-s", "experiment status, nothing kept")
    figure("tables_cpu_s", [r.cpu_s for r in tables], "CPU-s", "drift and cost tables")
    figure("status_peak_gib", [r.peak_bytes / 2**30 for r in cold], "GiB", "experiment status")
    figure("tables_peak_gib", [r.peak_bytes / 2**30 for r in tables], "GiB", "drift and cost tables")


def check(cold: Ran, again: Ran, tables: Ran, n: int) -> None:
    """The same status twice, and every record in the tables once."""
    assert cold.output == again.output
    rows = json.loads(tables.output)["costs"]
    assert sum(row["n_calls"] for row in rows if row["day"] == "all") == n


def beside(part: Path, rounds: int, python: Path) -> None:
    """The tables by us and by pandas, one after the other, on a log that fits in memory."""
    mine, other = [], []
    for _ in range(rounds):
        mine.append(ours("traffic", str(part)))
        other.append(ran([str(python), "peer_pandas_tables.py", str(part)]))
    for name, ratios in (
        ("pandas_cpu_ratio", [b.cpu_s / a.cpu_s for a, b in zip(mine, other, strict=True)]),
        ("pandas_peak_ratio", [b.peak_bytes / a.peak_bytes for a, b in zip(mine, other, strict=True)]),
    ):
        logs = np.log(ratios)
        half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
        middle = float(logs.mean())
        print(
            json.dumps(
                {
                    "name": name,
                    "value": float(np.exp(middle)),
                    "low": float(np.exp(middle - half)),
                    "high": float(np.exp(middle + half)),
                    "unit": "ratio",
                    "against": f"pandas over ours, {rounds} rounds, 95 % interval",
                }
            ),
            flush=True,
        )


def pandas_python(folder: Path) -> Path:
    """An interpreter with pandas, in a virtual environment of its own."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", PANDAS, "pyarrow"], check=True)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=50_000_000)
    parser.add_argument(
        "--beside", type=int, default=2_000_000, help="records that pandas reads too; 0: none"
    )
    parser.add_argument(
        "--segment-rows", type=int, default=10_000, help="as the gateway's roll writes them"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--log", type=Path, help="a log made before; kept")
    parser.add_argument("--peer", type=Path, default=Path(tempfile.gettempdir()) / "jettison-peer-pandas")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jettison-scale-") as folder:
        state, log = Path(folder) / "state", given.log or Path(folder) / "log"
        if given.log is None or not log.exists():
            print(make_log(log, given.records, segment_rows=given.segment_rows), file=sys.stderr)
        state.mkdir()
        (state / "traffic").symlink_to(log.resolve())
        whole(state, given.records, given.rounds)
        if given.beside:
            part = Path(folder) / "part"
            make_log(part, given.beside, segment_rows=given.segment_rows, seed=1)
            beside(part, max(3, given.rounds), pandas_python(given.peer))


if __name__ == "__main__":
    main()
