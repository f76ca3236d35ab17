"""Abstaining on real out-of-scope queries: the whole loop on CLINC150 with `when_out_of_scope = "abstain"`.

The dynamic int8 export of the fine-tuned MiniLM abstains where its in-scope score is under the
threshold that dev gives for `false_alarm_share`; the incumbent stays as it runs today. The share is
half of the in-scope margin and was set before this reading of the test split, as inputs that are in scope
and withheld count as misses.

    python benchmarks/abstain_clinc.py [--work DIR]
"""

import argparse
from pathlib import Path

import msgspec

from beside import figure
from jettison.loop.run import Outcome, run
from jettison.record import Record, read_records
from jettison.stats.binomial import clopper_pearson
from lean_ratio import clinc150

SHARE = 0.005
OUTSIDE = "oos"
INT8 = {
    "name": "onnx-int8",
    "steps": [
        {"step": "export", "target": "onnx"},
        {"step": "quantize", "method": "dynamic"},
        {"step": "settings", "max_tokens": "data"},
    ],
}


def main() -> None:
    """Run or resume the loop in `--work`, and print shares of the test split with 95 % intervals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("abstain-work"))
    folder = parser.parse_args().work.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    config = msgspec.structs.replace(
        clinc150(folder), recipes=[INT8], when_out_of_scope="abstain", false_alarm_share=SHARE
    )
    outcome = run(config)
    for report in outcome.decision.candidates:
        records = _test_records(outcome, report.digest)
        inside = [record for record in records if record.expected != OUTSIDE]
        outside = [record for record in records if record.expected == OUTSIDE]
        kept = [record for record in records if record.output != OUTSIDE]
        verdict = None if report.role == "incumbent" else report.verdict.value
        shares = {
            "out of scope told": ([r.output == OUTSIDE for r in outside], "queries out of scope"),
            "out of scope abstained": ([r.abstained for r in outside], "queries out of scope"),
            "in scope abstained": ([r.abstained for r in inside], "queries in scope"),
            "in scope right": ([r.output == r.expected for r in inside], "queries in scope"),
            "answered with an intent, and wrong": ([r.output != r.expected for r in kept], "such answers"),
        }
        for name, (hits, of) in shares.items():
            interval = clopper_pearson(sum(hits), len(hits))
            share, facts = sum(hits) / len(hits), {"n": len(hits), "verdict": verdict}
            line = (f"{report.name}: {name}", share, interval.low, interval.high, "share", of)
            print(figure(*line, **facts))


def _test_records(outcome: Outcome, digest: str) -> list[Record]:
    for path in (outcome.folder / "cache" / "records").glob("test-*.parquet"):
        found = read_records(path)
        if found[0].candidate == digest:
            return found
    raise AssertionError(digest)


if __name__ == "__main__":
    main()
