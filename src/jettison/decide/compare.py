"""The gate alone: two models' answers to the same examples, whoever made them."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from jettison.decide.decide import overall
from jettison.decide.gates import judge_not_worse
from jettison.decide.metrics import slice_counts, summarize
from jettison.decide.pairing import check_agreement, pair_records
from jettison.decide.predictions import Predictions, complete, read_predictions
from jettison.decide.slices import in_slice
from jettison.decision import GateResult, Interval, NotWorse, Verdict
from jettison.errors import InvalidInput, UnknownName
from jettison.record import Record
from jettison.stats.classification import label_codes
from jettison.stats.group_jackknife import number_groups
from jettison.stats.macro_f1 import macro_f1_difference_ci
from jettison.task.weights import check_weights

PREFERRED = ("label", "score", "acc", "exact_match")


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """B judged against A."""

    verdict: Verdict
    headline: str
    a: str
    """The baseline."""
    b: str
    """What is judged."""
    gate: NotWorse
    results: tuple[GateResult, ...]
    metrics: dict[str, dict[str, dict[str, float | None]]]
    """`a` or `b` → slice → metric → value."""
    n: dict[str, int]
    """slice → examples."""
    macro_f1_difference: Interval | None = None
    """B minus A; for display, no gate reads it."""
    notes: tuple[str, ...] = ()
    """What makes the figures doubtful, in words."""


def compare_files(
    a: Path, b: Path, *, gate: NotWorse, scorer: str | None = None, seed: int = 0
) -> Comparison:
    """Compare two prediction files; `scorer` None takes the one that both have.

    Raises:
        InvalidInput: A file cannot be read, or the two cannot be paired.
    """
    columns = slice_columns(gate.slices)
    read = read_predictions(a, slice_columns=columns), read_predictions(b, slice_columns=columns)
    return compare_predictions(*read, gate=gate, scorer=scorer, names=(str(a), str(b)), seed=seed)


def compare_predictions(
    a: Predictions,
    b: Predictions,
    *,
    gate: NotWorse,
    scorer: str | None = None,
    names: tuple[str, str] = ("A", "B"),
    seed: int = 0,
) -> Comparison:
    """Compare predictions already read; see `compare_files`."""
    _check_prompts(a.prompts, b.prompts)
    pairs = pair_records(complete(a.records, _by_id(b.records)), complete(b.records, _by_id(a.records)))
    check_agreement(pairs)
    check_weights([pair.incumbent.weight for pair in pairs], [pair.incumbent.example_id for pair in pairs])
    one, other = [pair.incumbent for pair in pairs], [pair.candidate for pair in pairs]
    chosen = msgspec.structs.replace(gate, scorer=scorer or _shared_scorer(one, other))
    notes = _spelling_notes(one, other, names) if chosen.scorer == "label" else ()
    judged = judge_not_worse(chosen, one, other, seed=seed)
    results = tuple(_with_retry(result, ((a.retry, one), (b.retry, other))) for result in judged)
    verdict = overall([result.verdict for result in results])
    return Comparison(
        verdict=verdict,
        headline=_headline(names[1], names[0], verdict, results),
        a=names[0],
        b=names[1],
        gate=chosen,
        results=results,
        metrics={"a": summarize(one), "b": summarize(other)},
        n=slice_counts(one),
        macro_f1_difference=_macro_f1_difference(one, other),
        notes=notes,
    )


def slice_columns(slices: Sequence[str]) -> tuple[str, ...]:
    """Columns that slices name."""
    return tuple(dict.fromkeys(name.partition("=")[0] for name in slices if name != "all"))


def _by_id(records: Sequence[Record]) -> dict[str, Record]:
    return {record.example_id: record for record in records}


def _shared_scorer(one: Sequence[Record], other: Sequence[Record]) -> str:
    shared = {s for r in one for s in r.scores} & {s for r in other for s in r.scores}
    if not shared:
        raise UnknownName(
            "both sides must carry one scorer, got none in common. Give both files the right answer in a "
            "column `expected`, or a `score`, or name the task with --task."
        )
    return next((name for name in PREFERRED if name in shared), sorted(shared)[0])


def _spelling_notes(
    one: Sequence[Record], other: Sequence[Record], names: tuple[str, str]
) -> tuple[str, ...]:
    """A candidate none of whose answers is an expected one; such a baseline is refused, as all beats it."""
    expected = {record.expected for record in one} - {None}
    strange = []
    for side in (one, other):
        answers = {record.output for record in side} - {None}
        is_strange = bool(expected and answers) and not answers & expected
        said = f"answers such as {_some(answers)}, expected such as {_some(expected)}"
        strange.append(said if is_strange else None)
    if strange[0] is not None:
        raise InvalidInput(
            f"answers must be spelled as the expected ones are, got no such answer in {names[0]}: "
            f"{strange[0]}. Spell them alike, or give a `score` of your own."
        )
    if strange[1] is not None:
        return (
            f"No answer of {names[1]} is one of the expected ones ({strange[1]}): the two are probably not "
            "spelled alike.",
        )
    return ()


def _some(texts: Collection[str | None]) -> list[str]:
    return sorted(str(text)[:60] for text in texts)[:3]


def _check_prompts(a: Mapping[str, str], b: Mapping[str, str]) -> None:
    differing = [example for example in a if example in b and a[example] != b[example]]
    if differing:
        raise InvalidInput(
            f"both sides must have been asked with the same prompts, got {len(differing)} that differ at "
            f"{differing[0]}. Run both with one prompt and number of shots."
        )


def _with_retry(result: GateResult, sides: Sequence[tuple[str | None, Sequence[Record]]]) -> GateResult:
    """Say by what command of another tool lost answers are asked for again."""
    commands = [
        f"`{retry}`"
        for retry, records in sides
        if retry and any(r.unanswered and in_slice(r, result.slice or "all") for r in records)
    ]
    if not commands:
        return result
    reason = f"{result.reason} Here that is done by {' and '.join(commands)}."
    return msgspec.structs.replace(result, reason=reason)


def _headline(b: str, a: str, verdict: Verdict, results: Sequence[GateResult]) -> str:
    held = sum(result.verdict is Verdict.SHIP for result in results)
    first = next((r for r in results if r.verdict is verdict), results[0])
    match verdict:
        case Verdict.SHIP:
            return f"{b} may replace {a}: it holds on {held} of {len(results)} checks. {first.reason}"
        case Verdict.BLOCK:
            return f"{b} must not replace {a}. {first.reason}"
        case Verdict.NOT_ENOUGH_DATA:
            return f"{b} is neither proven nor ruled out against {a}. {first.reason}"


def _macro_f1_difference(one: Sequence[Record], other: Sequence[Record]) -> Interval | None:
    known = [(p, q) for p, q in zip(one, other, strict=True) if p.expected is not None]
    answered = any(p.output is not None for p, _ in known) and any(q.output is not None for _, q in known)
    if len(known) < 2 or not answered:
        return None
    groups = number_groups([p.group or p.example_id for p, _ in known], len(known))
    if groups.max() < 1:
        return None
    expected = [p.expected or "" for p, _ in known]
    both = label_codes(expected * 2, [p.output for p, _ in known] + [q.output for _, q in known])
    n = len(known)
    found = macro_f1_difference_ci(
        both.expected[:n],
        both.predicted[:n],
        both.predicted[n:],
        n_labels=both.n_labels,
        group_of=groups,
    )
    return Interval(
        value=found.value, low=found.low, high=found.high, confidence=found.confidence, method=found.method
    )
