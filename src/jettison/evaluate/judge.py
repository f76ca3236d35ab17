"""How often a judge errs, measured against people, and what its verdicts then say of a model."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate.scorers import Scorer, score_all
from jettison.files import decode_json
from jettison.model import Output
from jettison.record import Record
from jettison.stats.binomial import clopper_pearson
from jettison.stats.interval import Interval
from jettison.stats.judged import JudgeCounts, corrected_difference, corrected_share
from jettison.task import Example

PASSES = 0.5
"""A verdict of so much or more says that the answer is right."""


class LabelledAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of which a person has said whether it is right."""

    example: Example
    answer: str
    right: bool
    passed: bool | None = None
    """What the scorer said of it, where it was asked elsewhere; None asks it."""


class JudgeErrors(msgspec.Struct, frozen=True, kw_only=True):
    """How a judge's verdicts agree with people's."""

    counts: JudgeCounts
    sensitivity: Interval
    """Share of right answers that it passes (Clopper-Pearson)."""
    specificity: Interval
    """Share of wrong answers that it fails (Clopper-Pearson)."""
    agreement: Interval
    """Share of all answers on which it says what people say; high by itself where most are right."""
    kappa: float | None
    """Agreement beyond chance (Cohen 1960), 1 at most; None where chance alone would always agree."""
    n_undecided: int
    """Answers that it gave no verdict on; they are in none of the above."""


def measure_judge(
    scorer: Scorer | None, rows: Sequence[LabelledAnswer], *, confidence: float = 0.95
) -> JudgeErrors:
    """Measure a judge, or any other scorer, on answers that people have labelled.

    The rows must not be those that the rubric was written on.

    Args:
        scorer: Asked for each row that does not say what it said; None where all rows do.
        rows: Labelled answers.
        confidence: Of the intervals.

    Raises:
        InvalidInput: A row has no verdict, and there is no scorer to ask.
        NotEnoughData: No right or no wrong answer that the judge decided on.
    """
    said = [
        (row.right, passed)
        for row, passed in zip(rows, _verdicts_on(scorer, rows), strict=True)
        if passed is not None
    ]
    counts = JudgeCounts(
        n_right=sum(right for right, _ in said),
        n_right_passed=sum(right and passed for right, passed in said),
        n_wrong=sum(not right for right, _ in said),
        n_wrong_failed=sum(not right and not passed for right, passed in said),
    )
    if not (counts.n_right and counts.n_wrong):
        raise NotEnoughData(
            "a judge is measured on right and wrong answers, got "
            f"{counts.n_right} right and {counts.n_wrong} wrong that it decided on."
        )
    n, n_agree = len(said), counts.n_right_passed + counts.n_wrong_failed
    return JudgeErrors(
        counts=counts,
        sensitivity=clopper_pearson(counts.n_right_passed, counts.n_right, confidence=confidence),
        specificity=clopper_pearson(counts.n_wrong_failed, counts.n_wrong, confidence=confidence),
        agreement=clopper_pearson(n_agree, n, confidence=confidence),
        kappa=_kappa(counts),
        n_undecided=len(rows) - n,
    )


def read_labelled(path: Path) -> list[LabelledAnswer]:
    """Read labelled answers from JSONL: `input`, `answer`, `right`, and perhaps `expected` and `passed`.

    `right` is what people say, true or false; `passed` what the scorer said, where it was asked elsewhere.

    Raises:
        InvalidInput: The file is missing, or a line of it is no labelled answer.
    """
    found = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # U+2028 ends no line
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"labelled answers must be a JSONL file, got {path}: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = decode_json(line, _Row)
        except msgspec.MsgspecError as error:
            raise InvalidInput(
                "a labelled answer must be a JSON object with `input`, `answer` and `right`, "
                f"got {error} at {path}, line {number}."
            ) from error
        example = Example(id=str(number), input=row.input, expected=row.expected)
        found.append(LabelledAnswer(example=example, answer=row.answer, right=row.right, passed=row.passed))
    return found


def corrected_mean(
    records: Sequence[Record], scorer: str, errors: JudgeErrors, *, confidence: float = 0.95
) -> Interval:
    """Share of one candidate's answers that are truly right, by a judge that errs as measured.

    Raises:
        NotEnoughData: No record has a verdict, or the judge may be no better than chance.
    """
    verdicts = [v >= PASSES for v in _verdicts(records, scorer).values()]
    return corrected_share(sum(verdicts), len(verdicts), errors.counts, confidence=confidence)


def corrected_judged_difference(
    incumbent: Sequence[Record],
    candidate: Sequence[Record],
    scorer: str,
    errors: JudgeErrors,
    *,
    confidence: float = 0.95,
) -> Interval:
    """True difference of right answers, candidate less incumbent, on the examples both have a verdict on.

    Raises:
        NotEnoughData: Fewer than two such examples, or the judge may be no better than chance.
    """
    a, b = _verdicts(candidate, scorer), _verdicts(incumbent, scorer)
    ids = [example_id for example_id in b if example_id in a]
    groups = {r.example_id: r.group or f"\0{r.example_id}" for r in incumbent}
    return corrected_difference(
        [float(a[i] >= PASSES) for i in ids],
        [float(b[i] >= PASSES) for i in ids],
        errors.counts,
        groups=[groups[i] for i in ids],
        confidence=confidence,
    )


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    input: str
    answer: str
    right: bool
    expected: str | None = None
    passed: bool | None = None


def _verdicts_on(scorer: Scorer | None, rows: Sequence[LabelledAnswer]) -> list[bool | None]:
    """What the scorer said, or says, of each row; None where it cannot tell."""
    asked = [row for row in rows if row.passed is None]
    if asked and scorer is None:
        raise InvalidInput(
            f"each labelled answer must say what the scorer said (`passed`), got {len(asked)} that do not."
        )
    pairs = [(row.example, Output(label=row.answer, confidence=0.0)) for row in asked]
    scores = iter(score_all(scorer, pairs) if scorer is not None else ())
    return [row.passed if row.passed is not None else _passed(next(scores).value) for row in rows]


def _passed(value: float | None) -> bool | None:
    return None if value is None else value >= PASSES


def _verdicts(records: Iterable[Record], scorer: str) -> dict[str, float]:
    found = {}
    for record in records:
        value = record.scores.get(scorer)
        if value is not None:
            found[record.example_id] = value
    return found


def _kappa(counts: JudgeCounts) -> float | None:
    n = counts.n_right + counts.n_wrong
    passed = counts.n_right_passed + counts.n_wrong - counts.n_wrong_failed
    seen = (counts.n_right_passed + counts.n_wrong_failed) / n
    chance = (passed * counts.n_right + (n - passed) * counts.n_wrong) / n**2
    return None if chance == 1 else (seen - chance) / (1 - chance)
