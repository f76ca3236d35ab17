"""A small finished release to test with: a fake candidate, its records, a decision that chose it."""

from pathlib import Path
from typing import Any

from jettison.candidate import AppliedStep, Calibration, Candidate, write_candidate
from jettison.decision import (
    CandidateReport,
    CostSummary,
    Decision,
    GateResult,
    Interval,
    NotWorse,
    Verdict,
)
from jettison.evaluate import evaluate, evaluation_file, reference_profile
from jettison.release import Release, write_release
from jettison.task import Example

LABELS = ("apple", "pear", "oos")
EXAMPLES = tuple(
    Example(id=str(i), input=f"{LABELS[i % 3]} secretword {i}", expected=LABELS[i % 3]) for i in range(60)
)


def make_candidate(folder: Path, *, name: str = "lean|er", **settings: Any) -> Candidate:
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights " * 100)
    return write_candidate(
        folder,
        name=name,
        backend="fake",
        labels=LABELS,
        out_of_scope="oos",
        settings=settings,
        calibration=Calibration(scope_quantiles=(0.6, 0.7, 0.8, 0.9, 1.0)),
        licence="Apache-2.0",
        lineage=(
            AppliedStep(step="prune", settings={"share": 0.5}, seed=0, versions={}, parents=("f" * 64,)),
        ),
    )


def make_decision(candidate: Candidate, *, chosen: str | None = "lean|er") -> Decision:
    gate = GateResult(
        gate="not_worse", metric="label", slice="all", verdict=Verdict.SHIP, limit=0.01, reason="As good.",
        n=5500, incumbent=0.95, candidate=0.949,
        difference=Interval(value=-0.001, low=-0.0041, high=0.0021),
    )  # fmt: skip
    report = CandidateReport(
        name="lean|er", digest=candidate.digest, verdict=Verdict.SHIP, role="nominee", gates=(gate,),
        scores={"all": {"accuracy": 0.949, "auroc": None}, "length=short": {"accuracy": 0.00001}},
        n={"all": 5500, "length=short": 20},
        cost=CostSummary(cpu_s=Interval(value=0.001, low=0.0009, high=0.0011), bytes=2_000_000),
    )  # fmt: skip
    return Decision(
        task="fruit", verdict=Verdict.SHIP, chosen=chosen, headline='Ship "lean|er": as good, 5× cheaper.',
        reasons=("It is.",), incumbent="big", candidates=(report,), gates=(NotWorse(),),
        test_digest="d" * 64, n_test_reads=1, seed=0, machine={"cpu": "Test CPU"},
        created="2026-11-01T00:00:00+00:00", caveats=("Nothing of other languages.",),
    )  # fmt: skip


def make_release(folder: Path, **options: Any) -> Release:
    """Write `folder`/7, with everything it is made of beside it."""
    candidate = options.pop("candidate", None) or make_candidate(folder / "candidate")
    kept = {"split": "dev", "folder": folder / "records"}
    records = evaluate(candidate, EXAMPLES, **kept)  # type: ignore[arg-type]
    return write_release(
        folder / "7",
        candidate=candidate,
        decision=options.pop("decision", None) or make_decision(candidate),
        evidence=[evaluation_file(folder / "records", candidate, EXAMPLES, split="dev")],
        task_name="fruit",
        profile=reference_profile(records, [e.input for e in EXAMPLES]),
        **options,
    )
