"""Runs Evidently on logs of answers, in an environment of its own; nothing of jettison is imported here.

`python peer_evidently.py REFERENCE WITH_TEXT LOG...` is the process that is measured: it compares
each log with the reference, as Evidently's own preset does, and prints a line of JSON for each.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

PACKAGES = ("evidently==0.7.23", "pandas==2.3.3", "pyarrow==26.0.1")
"""0.7.23 does not import beside pandas 3."""
COLUMNS = {"numerical": ["confidence", "in_scope"], "categorical": ["output"], "text": ["input"]}


def evidently_python(peers: Path) -> Path:
    """The interpreter of Evidently's environment, which is made where it is not there."""
    python = peers / "evidently" / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-qq", *PACKAGES], check=True)
    return python


def peak_bytes() -> int:
    """Of this process alone: `ru_maxrss` starts at what the process that started it had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main(reference: str, with_text: str, *logs: str) -> None:
    """Compare each log."""
    started = time.process_time()
    import evidently
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    import_cpu_s = time.process_time() - started
    texts = COLUMNS["text"] if with_text == "1" else []
    columns = [*COLUMNS["numerical"], *COLUMNS["categorical"], *texts]
    definition = DataDefinition(
        numerical_columns=COLUMNS["numerical"],
        categorical_columns=COLUMNS["categorical"],
        text_columns=texts,
    )
    before = Dataset.from_pandas(pd.read_parquet(reference, columns=columns), data_definition=definition)
    for log in logs:
        cpu, wall = time.process_time(), time.perf_counter()
        frame = pd.concat(
            [pd.read_parquet(path, columns=columns) for path in sorted(Path(log).glob("*.parquet"))],
            ignore_index=True,
        )
        now = Dataset.from_pandas(frame, data_definition=definition)
        found = Report([DataDriftPreset(columns=columns)]).run(now, before).dict()["metrics"]
        told = {
            "n": len(frame),
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.perf_counter() - wall,
            "import_cpu_s": import_cpu_s,
            "peak_bytes": peak_bytes(),
            "drifted_share": next(
                float(m["value"]["share"]) for m in found if isinstance(m["value"], dict)
            ),
            "columns": {m["metric_name"]: m["value"] for m in found if not isinstance(m["value"], dict)},
            "version": evidently.__version__,
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
