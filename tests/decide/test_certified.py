"""The list of slices on which a candidate is not worse: right as a whole, by Holm."""

from jettison.decide.certified import certified_slices, certified_words
from jettison.decision import GateResult, Verdict


def result(where: str, p: float | None, *, metric: str = "label", gate: str = "not_worse") -> GateResult:
    return GateResult(
        gate=gate, metric=metric, slice=where, verdict=Verdict.SHIP, limit=0.03, reason="", p_value=p,
        alpha=0.05,
    )  # fmt: skip


KNOWN = [result(where, p) for where, p in (("a=1", 0.01), ("a=2", 0.04), ("a=3", 0.03), ("a=4", 0.005))]


def test_the_list_is_holms() -> None:
    # Adjusted .03, .06, .06, .02 (R's p.adjust): two of the four that would each pass alone at 5 %.
    assert [r.slice for r in certified_slices(KNOWN)] == ["a=1", "a=4"]
    assert certified_words(KNOWN) == (
        "On 2 of 4 slices the loss is under its margin with 95 % confidence for the list as a whole "
        "(Holm): a=1, a=4."
    )


def test_a_slice_that_could_not_be_judged_counts_among_the_claims() -> None:
    assert [r.slice for r in certified_slices([*KNOWN, result("a=5", None)])] == ["a=1", "a=4"]
    assert [r.slice for r in certified_slices([*KNOWN, *(result(f"b={k}", None) for k in range(3))])] == [
        "a=4"
    ]


def test_all_or_none_or_no_list_is_said_in_words() -> None:
    sure = [result("a=1", 1e-5), result("a=2", 1e-5, metric="f1")]
    assert (certified_words(sure) or "").startswith(
        "On all 2 slices the loss is under its margin with 95 %"
    )
    assert (certified_words([result("a=1", 0.4), result("a=2", None)]) or "").startswith(
        "On none of 2 slices"
    )
    assert certified_words(KNOWN[:1]) is None
    assert certified_words([]) is None
    costs = [result("a=1", None, gate="at_most"), result("a=2", None, gate="at_most")]
    assert certified_words(costs) is None
    mixed = certified_words([*sure, result("a=3", 0.9)]) or ""
    assert mixed.endswith("a=1 (label), a=2 (f1).")
