"""Small sets of records whose flips are known by construction."""

from collections.abc import Sequence

import msgspec

from jettison.decide.decide import Evidence
from jettison.decision import CostSummary, Interval
from jettison.record import Record


def records_of(
    rights: Sequence[bool], *, candidate: str, wrong: str = "wrong", **fields: object
) -> list[Record]:
    """One record an example, right where `rights` says so; even examples are of slice lang=de."""
    return [
        msgspec.structs.replace(
            Record(
                candidate=candidate,
                example_id=f"e{i}",
                split="test",
                output="yes" if right else wrong,
                expected="yes",
                confidence=0.9 if right else 0.6,
                scores={"label": float(right)},
                slices={"lang": "en" if i % 2 else "de"},
            ),
            **fields,
        )
        for i, right in enumerate(rights)
    ]


def flipped(n: int, *, harmful: int, beneficial: int, both_wrong: int = 0) -> tuple[list[bool], list[bool]]:
    """Whether incumbent and candidate are right, with the flips spread evenly over both slices."""
    same = n - harmful - beneficial - both_wrong
    incumbent = [True] * harmful + [False] * beneficial + [False] * both_wrong + [True] * same
    candidate = [False] * harmful + [True] * beneficial + [False] * both_wrong + [True] * same
    return incumbent, candidate


def cost(ratio: float, *, size: int = 10_000_000, spread: float = 0.02) -> CostSummary:
    """A cost measured at a ratio of the incumbent's 10 ms."""
    return CostSummary(
        cpu_s=Interval(value=0.01 * ratio, low=0.009 * ratio, high=0.011 * ratio),
        cpu_ratio=Interval(value=ratio, low=ratio - spread, high=ratio + spread),
        bytes=size,
    )


def evidence(
    name: str, rights: Sequence[bool], *, role: str, ratio: float = 0.3, size: int = 10_000_000
) -> Evidence:
    """What was found about one candidate."""
    return Evidence(
        name=name,
        digest=name,
        records=records_of(rights, candidate=name),
        cost=cost(ratio, size=size),
        role=role,
        steps=("export", "quantize"),
    )
