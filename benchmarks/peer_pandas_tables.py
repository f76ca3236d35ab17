"""The tables of `jettison traffic` as one would write them with pandas: everything read, then grouped.

`python benchmarks/peer_pandas_tables.py LOG` prints how many rows the tables have.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

AMOUNTS = ["cpu_s", "energy_j", "price_usd", "prompt_tokens", "completion_tokens", "wire_bytes"]
COLUMNS = [
    *("time", "arm", "role", "route", "output", "confidence", "in_scope", "error", "unanswered"),
    *("escalated", "guardrails", "cost.latency_s", *(f"cost.{name}" for name in AMOUNTS)),
]


def main(log: Path) -> None:
    files = sorted((log / "segments").glob("records-*.parquet"))
    frame = pd.concat([pd.read_parquet(file, columns=COLUMNS) for file in files], ignore_index=True)
    frame["day"] = (frame["time"] // 86400).astype(int)
    frame["failed"] = frame["error"].notna()
    frame["guarded"] = frame["guardrails"] != "{}"
    by_day, by_arm = ["day", "arm"], ["arm"]
    answers = frame[frame["role"] == "answer"]
    lean = frame[frame["role"].isin(["answer", "lean"]) & ~frame["route"].str.endswith("fallback")]
    lean = lean[~lean["failed"]]
    tables = []
    for keys in (by_day, by_arm):
        tables.append(frame.groupby(keys)[[f"cost.{name}" for name in AMOUNTS]].agg(["sum", "count"]))
        tables.append(answers.groupby(keys)[["failed", "unanswered", "escalated", "guarded"]].mean())
        answered = answers[~answers["failed"]]
        tables.append(answered.groupby(keys)["cost.latency_s"].quantile([0.5, 0.95, 0.99]))
    for name, edges in (
        ("confidence", np.linspace(0, 1, 50)),
        ("in_scope", np.linspace(0, 1, 64)),
        ("cost.completion_tokens", 2 ** (np.arange(65) / 4)),
    ):
        bins = np.searchsorted(edges, lean[name])
        tables.append(lean.groupby([*by_day, bins]).size())
    tables.append(lean.groupby([*by_day, "output"]).size())
    print(sum(len(table) for table in tables))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
