"""Puts the answers of two candidates to one example side by side, or refuses."""

from collections.abc import Sequence
from typing import NamedTuple

from jettison.decision import Flips
from jettison.errors import InvalidInput, UnknownName
from jettison.record import Record


class Pair(NamedTuple):
    """The incumbent's and the candidate's record of one example."""

    incumbent: Record
    candidate: Record


class ScoredPair(NamedTuple):
    """A pair with both judgements of one scorer."""

    pair: Pair
    incumbent: float
    candidate: float


def pair_records(incumbent: Sequence[Record], candidate: Sequence[Record]) -> tuple[Pair, ...]:
    """Pair by example, in the incumbent's order.

    Raises:
        InvalidInput: An example occurs twice or for one side alone, or the two sides
            expect different answers to it.
    """
    by_id = [_by_id(incumbent, "incumbent"), _by_id(candidate, "candidate")]
    for side, other, name in ((by_id[0], by_id[1], "candidate"), (by_id[1], by_id[0], "incumbent")):
        unpaired = [example for example in side if example not in other]
        if unpaired:
            raise InvalidInput(
                f"both sides must answer the same examples, got {len(unpaired)} that the {name} did not "
                f"answer at {unpaired[0]}. Evaluate both on one task, or keep the examples they share."
            )
    pairs = tuple(Pair(record, by_id[1][example]) for example, record in by_id[0].items())
    for pair in pairs:
        if pair.incumbent.expected != pair.candidate.expected:
            raise InvalidInput(
                f"both sides must expect the same answer, got {pair.incumbent.expected!r} and "
                f"{pair.candidate.expected!r} at {pair.incumbent.example_id}. They come from two data sets."
            )
    return pairs


def check_agreement(pairs: Sequence[Pair]) -> None:
    """Refuse two sides that say different things of one example, beside what is expected.

    Raises:
        InvalidInput: They differ in its group, its weight or the value of a slice that both name.
    """
    for one, other in pairs:
        shared = [name for name in one.slices if name in other.slices]
        said = [("group", one.group, other.group), ("weight", one.weight, other.weight)]
        said += [(f"slice {name!r}", one.slices[name], other.slices[name]) for name in shared]
        for what, a, b in said:
            if a != b:
                raise InvalidInput(
                    f"both sides must say the same {what} of an example, got {a!r} and {b!r} at "
                    f"{one.example_id}. Leave the column out of one of them, or correct it."
                )


def score_pairs(pairs: Sequence[Pair], scorer: str, *, on: str = "all") -> tuple[ScoredPair, ...]:
    """Both judgements of each pair; a failed call counts 0, a pair that could not be judged is left out,
    and so is one of which an answer was lost on the way.

    Raises:
        UnknownName: No record carries that scorer.
        InvalidInput: A call failed and the scores are not in 0-1, so that 0 is not the worst.
    """
    if pairs and not any(scorer in p.incumbent.scores or scorer in p.candidate.scores for p in pairs):
        known = sorted({name for p in pairs for r in (p.incumbent, p.candidate) for name in r.scores})
        where = "" if on == "all" else f" on {on}"
        way_out = "" if on == "all" or not known else _by_itself(known[0], on)
        raise UnknownName(f"the scorer of a gate must be one of {known}{where}, got {scorer!r}.{way_out}")
    scored = []
    for pair in pairs:
        one = record_score(pair.incumbent, scorer)
        other = record_score(pair.candidate, scorer)
        if one is not None and other is not None:
            scored.append(ScoredPair(pair, one, other))
    outside = any(not (0 <= s.incumbent <= 1 and 0 <= s.candidate <= 1) for s in scored)
    failed = (
        [r.example_id for p in pairs for r in (p.incumbent, p.candidate) if has_failed(r, scorer)]
        if outside
        else []
    )
    if failed:
        raise InvalidInput(
            f"scores must be in 0-1 where calls failed and count as wrong, got others from {scorer!r} "
            f"at {failed[0]}. Answer the failed examples again."
        )
    return tuple(scored)


def _by_itself(scorer: str, on: str) -> str:
    return f" Judge that slice by itself: `--scorer {scorer} --slice {on}`, or a gate of its own."


def record_score(record: Record, scorer: str) -> float | None:
    """Judgement of one record: 0 when the call failed, None when it was lost or could not be judged."""
    if record.unanswered:
        return None
    if record.error is not None:
        return 0.0
    score = record.scores.get(scorer)
    return 0.0 if score is None and record.output is None else score


def has_failed(record: Record, scorer: str) -> bool:
    """Whether the model gave no answer to judge; of one that was lost on the way nobody knows."""
    return not record.unanswered and (
        record.error is not None or (record.output is None and record.scores.get(scorer) is None)
    )


def count_flips(scored: Sequence[ScoredPair]) -> Flips:
    """How answers changed; right means a score of 1."""
    harmful = beneficial = churn = both_right = 0
    for s in scored:
        if s.incumbent >= 1:
            if s.candidate >= 1:
                both_right += 1
            else:
                harmful += 1
        elif s.candidate >= 1:
            beneficial += 1
        elif s.pair.incumbent.output != s.pair.candidate.output:
            churn += 1
    return Flips(harmful=harmful, beneficial=beneficial, churn=churn, both_right=both_right, n=len(scored))


def _by_id(records: Sequence[Record], side: str) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in records:
        if record.example_id in found:
            raise InvalidInput(
                f"examples must be unique, got two records of the {side} at {record.example_id}."
            )
        found[record.example_id] = record
    return found
