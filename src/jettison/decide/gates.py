"""Judges one gate: SHIP, BLOCK or NOT ENOUGH DATA, with a reason anyone can read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from jettison.decide.costs import COSTS, judge_at_most, judge_cheaper
from jettison.decide.pairing import Pair, ScoredPair, count_flips, has_failed, pair_records, score_pairs
from jettison.decide.slices import ALL, by_slice, expand_slices
from jettison.decide.words import NONE_REALISTIC, TOO_NEAR, about, count, is_realistic, on_slice, share
from jettison.decision import Flips, GateResult, Interval, NotShownWorse, NotWorse, ScorerErrors, Verdict
from jettison.errors import InvalidInput, NotEnoughData
from jettison.record import Record
from jettison.stats.interval import MarginTest
from jettison.stats.judged import GAIN_ALPHA, JudgeCounts, gain_interval, judged_margin_test
from jettison.stats.noninferiority import margin_test
from jettison.stats.planning import (
    n_needed_as_seen,
    smallest_certifiable_margin,
    smallest_passing_n,
)

__all__ = [
    "COSTS",
    "check_not_worse",
    "judge_at_most",
    "judge_cheaper",
    "judge_not_shown_worse",
    "judge_not_worse",
]

MOST_MISSING = 10_000_000
"""Beyond so many examples "more data" is no answer."""


def judge_not_worse(
    gate: NotWorse,
    incumbent_records: Sequence[Record],
    candidate_records: Sequence[Record],
    *,
    alpha: float | None = None,
    seed: int = 0,
) -> tuple[GateResult, ...]:
    """Judge a candidate against the incumbent on each slice of a gate.

    Every slice is tested at the full alpha: shipping needs all of them (Berger 1982).

    Args:
        gate: Scorer, margin and slices.
        incumbent_records: Records of the incumbent, in any order.
        candidate_records: Records of the candidate on the same examples.
        alpha: One-sided error probability to spend instead of the gate's own.
        seed: Of the draws of the permutation test, used with few groups.

    Raises:
        InvalidInput: The records cannot be paired, or a setting is out of range.
        UnknownName: The scorer or a slice does not exist.
    """
    found = _judged(gate, incumbent_records, candidate_records, alpha=alpha, seed=seed)
    return tuple(msgspec.structs.replace(one, reason=one.reason + notes) for one, notes in found)


def _judged(
    gate: NotWorse,
    incumbent_records: Sequence[Record],
    candidate_records: Sequence[Record],
    *,
    alpha: float | None,
    seed: int,
) -> list[tuple[GateResult, str]]:
    """The result on each slice, and what has to be said beside its reason."""
    spent = gate.alpha if alpha is None else alpha
    check_not_worse(gate, spent)
    pairs = pair_records(incumbent_records, candidate_records)
    results: list[tuple[GateResult, str]] = []
    named = by_slice(incumbent_records)
    pair_of = {pair.incumbent.example_id: pair for pair in pairs}
    names = expand_slices(gate.slices, incumbent_records)
    # Scores of all are looked up again for each slice: every pair is judged once, however many slices.
    known = score_pairs(pairs, gate.scorer) if ALL in names else None
    scored_of = None if known is None else {s.pair.incumbent.example_id: s for s in known}
    for name in names:
        members = pairs if name == ALL else [pair_of[record.example_id] for record in named[name]]
        scored = _scored(members, scored_of, gate.scorer, name)
        asked = _Asked(scorer=gate.scorer, on=name, margin=margin_on(gate, name), alpha=spent, seed=seed)
        asked = replace(asked, errors=gate.scorer_errors.get(name, gate.scorer_errors.get("*")))
        result = _judge_slice(asked, scored)
        if lost := sum(pair.incumbent.unanswered or pair.candidate.unanswered for pair in members):
            results.append((_undecided(result, lost), ""))
            continue
        failed = sum(
            has_failed(pair.candidate, gate.scorer)
            for pair in members
            if pair.candidate.error is not None or pair.candidate.output is None
        )
        notes = _notes(len(members) - len(scored), failed) + _fallible(gate, asked.errors)
        results.append((result, notes))
    return results


def judge_not_shown_worse(
    gate: NotShownWorse,
    incumbent_records: Sequence[Record],
    candidate_records: Sequence[Record],
    *,
    alpha: float | None = None,
    seed: int = 0,
) -> tuple[GateResult, ...]:
    """Block a candidate whose loss on a slice is shown to be above zero, and pass it elsewhere.

    Where answers were lost or nothing was judged, nothing was looked at: NOT ENOUGH DATA, as of `NotWorse`.

    Args:
        gate: Scorer and slices.
        incumbent_records: Records of the incumbent, in any order.
        candidate_records: Records of the candidate on the same examples.
        alpha: One-sided error probability to spend instead of the gate's own.
        seed: Of the draws of the permutation test, used with few groups.

    Raises:
        InvalidInput: The records cannot be paired, or a setting is out of range.
        UnknownName: The scorer or a slice does not exist.
    """
    asked = NotWorse(
        scorer=gate.scorer,
        margin=0.0,
        slices=gate.slices,
        alpha=gate.alpha,
        is_fallible=gate.is_fallible,
        scorer_errors=gate.scorer_errors,
    )
    found = _judged(asked, incumbent_records, candidate_records, alpha=alpha, seed=seed)
    return tuple(_as_shown(result, notes) for result, notes in found)


def _as_shown(result: GateResult, notes: str) -> GateResult:
    if result.p_value is None or result.difference is None:  # nothing was judged, or answers were lost
        return msgspec.structs.replace(result, gate="not_shown_worse", reason=result.reason + notes)
    seen = result.difference
    scores = (
        f"{on_slice(result.slice or ALL)} the candidate scores {share(result.candidate or 0.0)} against "
        f"{share(result.incumbent or 0.0)} ({result.metric}, {count(result.n or 0, 'example')})"
    )
    bounds = f"difference {share(seen.low, 'signed')} to {share(seen.high, 'signed')}"
    if result.verdict is Verdict.BLOCK:
        verdict, told = Verdict.BLOCK, f"a loss is shown ({bounds})."
    else:
        left = f"; up to {share(-seen.low, 'point')} is not excluded" if seen.low < 0 else ""
        verdict, told = Verdict.SHIP, f"no loss is shown ({bounds}){left}."
    return msgspec.structs.replace(
        result,
        gate="not_shown_worse",
        verdict=verdict,
        reason=f"{scores}: {told}{notes}",
        p_value=None,
        n_missing=None,
    )


def _scored(
    members: Sequence[Pair], known: Mapping[str, ScoredPair] | None, scorer: str, on: str
) -> Sequence[ScoredPair]:
    """Members with both scores, out of those known; judged here where none are."""
    if known is None:
        return score_pairs(members, scorer, on=on)
    found = [s for pair in members if (s := known.get(pair.incumbent.example_id)) is not None]
    return found or score_pairs(members, scorer, on=on)


def check_not_worse(gate: NotWorse, alpha: float) -> None:
    """Refuse a gate whose settings mean nothing.

    Raises:
        InvalidInput: The margin, alpha or slices are out of range.
    """
    for margin in (gate.margin, *gate.margins.values()):
        if not 0 <= margin < float("inf"):
            raise InvalidInput(f"the margin of a gate must be zero or more, got {margin}.")
    if not 0 < alpha < 0.5:
        raise InvalidInput(f"the alpha of a gate must be in (0, 0.5), got {alpha}.")
    if not gate.slices:
        raise InvalidInput("a gate must name at least one slice, got none. Use `all` for every example.")


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """One question of a gate."""

    scorer: str
    on: str
    margin: float
    alpha: float
    seed: int
    errors: ScorerErrors | None = None
    """How the scorer errs on this slice; None: its verdicts are taken as they are."""

    @property
    def as_seen(self) -> "_Asked":
        """The question on the scale of the scorer's verdicts, which show less than the true difference."""
        if self.errors is None:
            return self
        gain = gain_interval(_counts(self.errors), confidence=1 - 2 * GAIN_ALPHA * self.alpha)
        left = (1 - GAIN_ALPHA) * self.alpha
        return replace(self, margin=self.margin * gain.low, alpha=left, errors=None)


def _judge_slice(asked: _Asked, scored: Sequence[ScoredPair]) -> GateResult:
    bare = GateResult(
        gate="not_worse",
        metric=asked.scorer,
        slice=asked.on,
        verdict=Verdict.NOT_ENOUGH_DATA,
        limit=asked.margin,
        reason="",
        n=len(scored),
        alpha=asked.alpha,
    )
    _check_share(asked.margin, scored)
    try:
        test = _test(asked, scored)
    except NotEnoughData as error:
        missing = None if asked.errors is not None else _zero_flip_gap(len(scored), asked)
        return msgspec.structs.replace(bare, reason=f"{on_slice(asked.on)}: {error}", n_missing=missing)
    flips = count_flips(scored)
    weights = [s.pair.incumbent.weight for s in scored]
    result = msgspec.structs.replace(
        bare,
        verdict=_verdict(test, asked.alpha),
        n_groups=test.n_groups,
        n_groups_to_show=test.n_groups_to_show,
        incumbent=_mean([s.incumbent for s in scored], weights),
        candidate=_mean([s.candidate for s in scored], weights),
        difference=_stored(test),
        p_value=test.p_not_worse,
        flips=flips,
        method=test.method,
    )
    if result.verdict is Verdict.NOT_ENOUGH_DATA:
        single = test.n == test.n_groups and set(weights) == {1.0}
        seen = asked.as_seen
        raw = test if seen is asked else _test(seen, scored)
        missing = _n_missing(raw, seen, flips if single and _binary(scored) else None)
        result = msgspec.structs.replace(result, n_missing=missing)
    return msgspec.structs.replace(result, reason=_reason(result, test, asked))


def _check_share(margin: float, scored: Sequence[ScoredPair]) -> None:
    """Refuse a margin that no loss can reach, as of somebody who writes one point as 1."""
    if margin >= 1 and all(0 <= value <= 1 for s in scored for value in (s.incumbent, s.candidate)):
        raise InvalidInput(
            f"the margin of a gate must be under 1 where scores lie in 0-1, got {margin:g}. It is a share: "
            "0.01 is one point."
        )


def _test(asked: _Asked, scored: Sequence[ScoredPair]) -> MarginTest:
    weights = [s.pair.incumbent.weight for s in scored]
    # An example without a group is a group of its own; the mark keeps it apart from groups of that name.
    groups = [s.pair.incumbent.group or f"\0{s.pair.incumbent.example_id}" for s in scored]
    test = (
        margin_test if asked.errors is None else partial(judged_margin_test, counts=_counts(asked.errors))
    )
    return test(
        [s.candidate for s in scored],
        [s.incumbent for s in scored],
        margin=asked.margin,
        alpha=asked.alpha,
        groups=groups if len(set(groups)) < len(groups) else None,
        weights=weights if set(weights) - {1.0} else None,
        seed=asked.seed,
    )


def _verdict(test: MarginTest, alpha: float) -> Verdict:
    if test.p_not_worse <= alpha:
        return Verdict.SHIP
    return Verdict.BLOCK if test.p_worse <= alpha else Verdict.NOT_ENOUGH_DATA


def _binary(scored: Sequence[ScoredPair]) -> bool:
    return all(value in (0.0, 1.0) for s in scored for value in (s.incumbent, s.candidate))


def _n_missing(test: MarginTest, asked: _Asked, flips: Flips | None) -> int | None:
    """More examples that would settle it with power 0.8, if the truth is what was seen."""
    n, least = test.n, 1
    if flips is None:  # groups, grades or weights: examples come with their groups
        groups = test.n_groups_needed
        needed = None if groups is None else math.ceil(groups * n / test.n_groups)
    else:
        shares, margin = (flips.beneficial / n, flips.harmful / n), asked.margin
        if test.interval.value > -margin:
            least = _zero_flip_gap(n, asked) or 1
        else:  # what settles it is a loss that is surely over the margin
            shares, margin = shares[::-1], -margin
        needed = n_needed_as_seen(*shares, margin=margin, alpha=asked.alpha, most=n + MOST_MISSING)
    missing = None if needed is None else max(needed - n, least)
    return None if missing is None or missing > MOST_MISSING else missing


def _zero_flip_gap(n: int, asked: _Asked) -> int | None:
    if not 0 < asked.margin < 1:
        return None
    return max(1, smallest_passing_n(asked.margin, alpha=asked.alpha) - n)


def _reason(result: GateResult, test: MarginTest, asked: _Asked) -> str:
    n, alpha, seen = result.n or 0, result.alpha or 0.0, result.difference
    assert seen is not None
    grouped = f" in {count(test.n_groups, 'group')}" if test.n_groups < n else ""
    scores = (
        f"{on_slice(result.slice or 'all')} the candidate scores {share(result.candidate or 0.0)} against "
        f"{share(result.incumbent or 0.0)} ({result.metric}, {count(n, 'example')}{grouped})"
    )
    sure, points = f"{100 * (1 - alpha):.4g} % confidence", share(result.limit, "point")
    bounds = f"{share(seen.low, 'signed')} to {share(seen.high, 'signed')}"
    if result.verdict is Verdict.SHIP:
        return f"{scores}: with {sure} the loss is under {points} (difference {bounds})."
    if result.verdict is Verdict.BLOCK:
        return f"{scores}: with {sure} the loss is over {points} (difference {bounds})."
    floor = _floor(result, test) if asked.errors is None else None
    limit = floor or f"the difference is known only to lie in {bounds}"
    return f"{scores}: {limit}, the margin is {points}; {_more(result, test)}."


def _floor(result: GateResult, test: MarginTest) -> str | None:
    """Why the margin is out of reach, whatever the answers; None when it is not."""
    n, alpha = test.n, result.alpha or 0.0
    if 0 < result.limit < 1 and n < smallest_passing_n(result.limit, alpha=alpha):
        least = share(smallest_certifiable_margin(n, alpha=alpha), "point")
        return f"even if no answer changed, {n:,} examples would certify no less than {least}"
    if test.smallest_margin is None or test.smallest_margin <= result.limit:
        return None
    least = share(test.smallest_margin, "point")
    things = count(test.n_groups, "group" if test.n_groups < n else "example")
    return (
        f"even if no answer changed, {things}, the largest with {share(test.largest_share or 0.0)} of the "
        f"weight, would certify no less than {least}"
    )


def _more(result: GateResult, test: MarginTest) -> str:
    if not result.n_missing:
        return NONE_REALISTIC
    if not is_realistic(result.n_missing, result.n or 0):
        return NONE_REALISTIC if _floor(result, test) else TOO_NEAR
    if test.n_groups_needed is None or test.n_groups == test.n:
        return f"about {about(result.n_missing, 'more example')} would settle it"
    groups = about(max(test.n_groups_needed - test.n_groups, 1), "more group")
    return f"about {groups} like these ({about(result.n_missing, 'example')}) would settle it"


def _undecided(result: GateResult, n_lost: int) -> GateResult:
    """Answers that were lost on the way could be right or wrong: nothing is decided without them."""
    examples = "1 example has" if n_lost == 1 else f"{n_lost:,} examples have"
    reason = (
        f"{on_slice(result.slice or 'all')} {examples} no answer: it was lost on the way to or from a "
        "server. Evaluate again: only what is missing is asked for."
    )
    return msgspec.structs.replace(
        result, verdict=Verdict.NOT_ENOUGH_DATA, reason=reason, p_value=None, n_missing=n_lost
    )


def _counts(errors: ScorerErrors) -> JudgeCounts:
    return JudgeCounts(
        n_right=errors.n_right,
        n_right_passed=errors.n_right_passed,
        n_wrong=errors.n_wrong,
        n_wrong_failed=errors.n_wrong_failed,
    )


def _fallible(gate: NotWorse, errors: ScorerErrors | None) -> str:
    """Whether the figure is the truth or a scorer's, and how far that was measured."""
    if errors is not None:
        return (
            f" Told by a scorer that passes {share(errors.n_right_passed / errors.n_right)} of the right "
            f"answers and fails {share(errors.n_wrong_failed / errors.n_wrong)} of the wrong ones "
            f"({errors.source}); the difference allows for it, the two scores do not."
        )
    if gate.is_fallible:
        return " The figure is the scorer's and not the truth: how often it errs here was not measured."
    return ""


def _notes(n_unjudged: int, n_failed: int) -> str:
    notes = ""
    if n_failed:
        notes += f" {count(n_failed, 'failed call')} of the candidate counted as wrong."
    if n_unjudged:
        notes += f" {count(n_unjudged, 'example')} left out, which the scorer could not judge."
    return notes


def margin_on(gate: NotWorse, name: str) -> float:
    """The margin of a gate on one slice: its own, its column's, or the gate's."""
    column = name.partition("=")[0]
    return gate.margins.get(name, gate.margins.get(f"{column}=*", gate.margin))


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def _stored(test: MarginTest) -> Interval:
    seen = test.interval
    return Interval(
        value=seen.value, low=seen.low, high=seen.high, confidence=seen.confidence, method=seen.method
    )
