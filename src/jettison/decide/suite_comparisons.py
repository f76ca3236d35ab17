"""Each candidate beside the incumbent on every slice of the suites, whether or not a gate asks for it."""

from collections.abc import Sequence

from jettison.decide.gates import judge_not_worse
from jettison.decide.report_evidence import SuiteComparison
from jettison.decide.slices import by_slice
from jettison.decision import NotWorse
from jettison.record import Record

TIER, SCOPE_SCORER = "tier", "out_of_scope"
WHOLE = (TIER, "ood", "perturbation", "attacked")
"""Columns of a suite of which each value is a slice."""
MARKED = ("long_tail", "tail_class", "tail_density", "tail_tokens", "tail_length", "disagreement")
"""Columns of a suite of which `yes` is a slice, as it is of `found_1`, `found_2`, ..."""


def suite_slices(records: Sequence[Record]) -> tuple[str, ...]:
    """Slices that come of a suite, in the order in which they are told; none where there is no suite."""
    columns = sorted({column for record in records for column in record.slices})
    if TIER not in columns:
        return ()
    found = [c for c in columns if c.startswith("found_")]
    present = by_slice(records)
    whole = [name for column in WHOLE for name in present if name.startswith(f"{column}=")]
    marked = [name for column in (*MARKED, *found) if (name := f"{column}=yes") in present]
    return (*whole, *marked)


def suite_comparisons(
    name: str, incumbent: Sequence[Record], records: Sequence[Record], *, scorer: str, seed: int = 0
) -> tuple[SuiteComparison, ...]:
    """Paired differences on each slice of the suites, with 95 % intervals that no gate has paid for.

    Where all of a slice is out of scope, what counts is the flag (`out_of_scope`), not the label.

    Args:
        name: Of the candidate.
        incumbent: Records of the incumbent.
        records: The candidate's on the same examples.
        scorer: The task's first.
        seed: Of the permutation test used with few groups.
    """
    members = by_slice(incumbent)
    names = suite_slices(incumbent)
    judged_by = {slice_name: scorer_of(members[slice_name], scorer) for slice_name in names}
    results = {}
    for one in dict.fromkeys(judged_by.values()):
        gate = NotWorse(scorer=one, slices=tuple(n for n in names if judged_by[n] == one))
        results.update({r.slice: r for r in judge_not_worse(gate, incumbent, records, seed=seed)})
    return tuple(
        SuiteComparison(
            candidate=name,
            slice=slice_name,
            scorer=judged_by[slice_name],
            n=results[slice_name].n or 0,
            incumbent=results[slice_name].incumbent,
            score=results[slice_name].candidate,
            difference=results[slice_name].difference,
            flips=results[slice_name].flips,
        )
        for slice_name in names
    )


def scorer_of(records: Sequence[Record], scorer: str) -> str:
    """What a slice is judged by: the flag, where all its examples are out of scope."""
    outside = all(record.slices.get("scope") == "out" for record in records)
    flagged = any(record.scores.get(SCOPE_SCORER) is not None for record in records)
    return SCOPE_SCORER if outside and flagged else scorer
