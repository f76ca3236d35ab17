"""Which unlabelled inputs to label, so that two models' scores and their difference are known soonest.

Where both models give one answer, its label cannot change the difference; where they differ it says
most. Inputs are drawn within strata (agreement, confidence, and slices where asked for), each with a known
chance, so that the estimate is unbiased whatever the guess. Slices that a decision left open get the labels
that narrow the interval of each most.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jettison.decision import Decision, Verdict
from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate.scorers import close_scorers, open_scorers
from jettison.files import decode_json, write_atomic
from jettison.model import Output
from jettison.record import Record
from jettison.stats.stratified import LEAST_PER_STRATUM, draw_stratified, stratified_mean
from jettison.task import Example, Task

AGREE_SPREAD = 0.15
"""Guessed spread where both agree: nothing for the difference, something for each score."""
NO_TRAFFIC = (
    "there must be unlabelled inputs to choose from, got none. Name their file: "
    '`unlabelled = "traffic.jsonl"` under [data].'
)
DECIDED_SHARE = 0.05
"""Weight of inputs in no open slice, beside those of one."""


class ToLabel(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the file: an input to label. `label` is for people to fill in."""

    id: str
    text: str
    label: str | None = None
    a: str | None
    b: str | None
    """What the two models answer; hidden on the labelling page."""
    stratum: int
    stratum_name: str
    stratum_size: int
    propensity: float
    """Chance with which it was drawn, in (0, 1]."""
    slice: str = ""
    """Slice it was drawn for, as `column=value`."""


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate from the answers that came back."""

    of: str
    """`a`, `b`, or `b - a`."""
    value: float
    low: float
    high: float
    n_labels: int
    n_inputs: int
    slice: str = ""
    """Of what traffic; empty: all of it."""


def open_slices(
    decision: Decision, traffic: Sequence[Example], *, candidate: str | None = None
) -> list[str]:
    """Slices on which a decision could not tell, of those that unlabelled inputs are of.

    Args:
        decision: Of a run.
        traffic: Unlabelled inputs with their slices.
        candidate: Of the decision; the nominated one where none is named, else every one.

    Raises:
        InvalidInput: The decision has no such candidate, or leaves no slice open that traffic is of.
    """
    named = [one.name for one in decision.candidates]
    if candidate is not None and candidate not in named:
        raise InvalidInput(f"candidate must be one of {named}, got {candidate!r}.")
    asked = [one for one in decision.candidates if candidate in (None, one.name)]
    nominated = [one for one in asked if one.role in ("nominee", "fallback")] or asked
    left = [
        result.slice
        for one in nominated
        for result in one.gates
        if result.verdict is Verdict.NOT_ENOUGH_DATA and result.slice is not None and "=" in result.slice
    ]
    found = [name for name in dict.fromkeys(left) if any(_is_of(example, name) for example in traffic)]
    if not found:
        raise InvalidInput(
            "the decision must leave a slice open that unlabelled inputs are of, got "
            f"{left or 'none open'}. Slices of labels cannot be told before they are labelled."
        )
    return found


def choose_labels(
    traffic: Sequence[Example],
    a: Sequence[Record],
    b: Sequence[Record],
    *,
    budget: int,
    column: str | None = None,
    undecided: Sequence[str] = (),
    seed: int = 0,
) -> tuple[ToLabel, ...]:
    """Draw inputs to label.

    Args:
        traffic: Unlabelled inputs.
        a: One model's records of them, in the same order.
        b: The other's.
        budget: Labels to buy.
        column: Slice column within whose values strata are made, so that each gets its share.
        undecided: Slices, `column=value`, whose intervals are to narrow; an input is drawn for the first of
            them that it is of. Of others only as many are drawn as keep the estimate unbiased.
        seed: Of the draw.

    Raises:
        InvalidInput: The budget is too small for the strata, or no input has the column.
        NotEnoughData: There is no traffic.
    """
    if column is not None and undecided:
        raise InvalidInput("either a column or undecided slices may be given, got both.")
    check_slice_column(traffic, column)
    sure = np.array([min(r.confidence or 0.0, q.confidence or 0.0) for r, q in zip(a, b, strict=True)])
    middle = float(np.median(sure))
    slices = [_slice_of(example, column, undecided) for example in traffic]
    sizes_of = Counter(slices)
    names, spreads = [], {}
    for of, r, q, c in zip(slices, a, b, sure.tolist(), strict=True):
        agrees = r.output == q.output
        where = f"{of}, " if of else ""
        name = f"{where}{'agree' if agrees else 'differ'}, {'sure' if c >= middle else 'unsure'}"
        names.append(name)
        spread = AGREE_SPREAD * (1 if c >= middle else 2) if agrees else 0.9
        # Of an open slice the mean over its own inputs counts, so that a small one gets as many as a large.
        weight = (1 if of else DECIDED_SHARE) * len(traffic) / sizes_of[of] if undecided else 1.0
        spreads[name] = spread * weight
    order = sorted(spreads)
    stratum = [order.index(name) for name in names]
    drawn = draw_stratified(stratum, [spreads[name] for name in order], budget, seed=seed)
    sizes = np.bincount(stratum, minlength=len(order)).tolist()
    # Shuffled, so that whoever stops half-way has labelled a draw of every stratum, not the oldest inputs
    # of the first.
    shuffled = np.random.default_rng(seed).permutation(len(drawn.positions)).tolist()
    pairs = [(drawn.positions[k], drawn.propensities[k]) for k in shuffled]
    return tuple(
        ToLabel(
            id=traffic[i].id,
            text=traffic[i].input,
            a=a[i].output,
            b=b[i].output,
            stratum=stratum[i],
            stratum_name=names[i],
            stratum_size=sizes[stratum[i]],
            propensity=chance,
            slice=slices[i],
        )
        for i, chance in pairs
    )


def write_to_label(path: Path, rows: Sequence[ToLabel]) -> None:
    """Write the file for people, one JSON object a line."""
    write_atomic(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def with_kept_labels(path: Path, rows: Sequence[ToLabel]) -> tuple[ToLabel, ...]:
    """The rows with the labels that stand in the file already, which is about to be written anew.

    Raises:
        InvalidInput: The file holds labels of another draw, or is none of ours; nothing may be lost of it.
    """
    before = rows_standing_in(path)
    kept = {_drawn(row): row.label for row in before}
    if set(kept) != {_drawn(row) for row in rows}:
        n = sum(row.label is not None for row in before)
        if n:
            raise InvalidInput(
                f"the file to write must hold no labels of another draw, got {n} in {path}. Read them with "
                "--read, go on labelling them with --serve and no models, or name another file."
            )
        return tuple(rows)
    return tuple(msgspec.structs.replace(row, label=kept[_drawn(row)]) for row in rows)


def rows_standing_in(path: Path) -> tuple[ToLabel, ...]:
    """What a file that is to be written holds already; nothing where it is new or empty.

    Raises:
        InvalidInput: It is none of ours.
    """
    if not path.exists() or (path.is_file() and not path.read_bytes().strip()):
        return ()
    try:
        return read_labelled(path)
    except InvalidInput as error:
        raise InvalidInput(
            f"the file to write must be new or one of `jettison label`, got {path}. Name another."
        ) from error


def read_labelled(path: Path) -> tuple[ToLabel, ...]:
    """Read the file back.

    Raises:
        InvalidInput: It is missing, or a line is not one that `write_to_label` wrote.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidInput(f"labels must be a JSONL file, got {path}: {error.strerror}.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(decode_json(line, ToLabel))
            except msgspec.ValidationError as error:
                raise InvalidInput(
                    f"{path}:{number}: {error}. Fill in `label` and leave the rest."
                ) from error
            except msgspec.DecodeError as error:
                raise InvalidInput(f"{path}:{number} must be one JSON object in UTF-8: {error}.") from error
    if not rows:
        raise InvalidInput(f"{path} must hold at least one line, got none.")
    return tuple(rows)


def estimate_from_labels(task: Task, rows: Sequence[ToLabel]) -> tuple[Labelled, ...]:
    """What the answered lines say of both models on all traffic, and on each slice they were drawn for.

    Raises:
        InvalidInput: A label is none of the task's.
        NotEnoughData: A stratum has fewer than two answers.
    """
    answered, both = scores_of_labels(task, rows)
    scores = dict(zip((row.id for row in answered), both, strict=True))
    named = sorted({row.slice for row in rows if row.slice})
    return tuple(
        one
        for name in ("", *named)
        for one in _estimated(name, [row for row in rows if name in ("", row.slice)], scores)
    )


def scores_of_labels(
    task: Task, rows: Sequence[ToLabel]
) -> tuple[list[ToLabel], list[tuple[float, float]]]:
    """The lines with a label on which both models can be judged, and what a and b score on each.

    No answer is a wrong one; an answer that the scorer cannot judge is neither right nor wrong.

    Raises:
        InvalidInput: A label is none of the task's.
    """
    answered = [row for row in rows if row.label is not None]
    for row in answered:
        if task.labels and row.label not in task.labels:
            raise InvalidInput(f"a label must be one of the task's, got {row.label!r} at {row.id}.")
    first = task.scorers[0]
    scorers = open_scorers({first: task.scoring[first]}, out_of_scope=task.out_of_scope)
    scorer: Any = scorers[first]

    def score(row: ToLabel, answer: str | None) -> float | None:
        if answer is None:
            return 0.0
        example = Example(id=row.id, input=row.text, expected=row.label)
        value = scorer.score(example, Output(label=answer, confidence=0.0)).value
        return None if value is None else float(value)

    judged, scores = [], []
    try:
        for row in answered:
            a, b = score(row, row.a), score(row, row.b)
            if a is not None and b is not None:
                judged.append(row)
                scores.append((a, b))
    finally:
        close_scorers(scorers)
    return judged, scores


def answered_propensities(rows: Sequence[ToLabel], answered: Sequence[ToLabel]) -> list[float]:
    """Chance of each answered line to have been drawn and answered, where those left open are any of its
    stratum: labels that came back for half of a stratum stand for twice as many inputs each."""
    n_drawn = Counter(row.stratum for row in rows)
    n_answered = Counter(row.stratum for row in answered)
    return [row.propensity * n_answered[row.stratum] / n_drawn[row.stratum] for row in answered]


def _drawn(row: ToLabel) -> ToLabel:
    return msgspec.structs.replace(row, label=None)


def _estimated(
    name: str, rows: Sequence[ToLabel], scores: Mapping[str, tuple[float, float]]
) -> list[Labelled]:
    """Both scores and their difference on the inputs of some strata."""
    places = {stratum: i for i, stratum in enumerate(sorted({row.stratum for row in rows}))}
    sizes = [0] * len(places)
    for row in rows:
        sizes[places[row.stratum]] = row.stratum_size
    answered = [row for row in rows if row.id in scores]
    strata = [places[row.stratum] for row in answered]
    n_answered = Counter(strata)
    for row in rows:
        n = n_answered[places[row.stratum]]
        if n < min(LEAST_PER_STRATUM, row.stratum_size):
            raise NotEnoughData(
                f"each stratum needs {LEAST_PER_STRATUM} labels, got {n} of {row.stratum_size:,} inputs in "
                f"{row.stratum_name!r}. {len(rows) - len(answered):,} of {len(rows):,} lines are still "
                "without a label: label on."
            )
    a, b = ([scores[row.id][side] for row in answered] for side in (0, 1))
    found = []
    for of, values in (("a", a), ("b", b), ("b - a", [y - x for x, y in zip(a, b, strict=True)])):
        mean = stratified_mean(values, strata, sizes)
        found.append(
            Labelled(
                of=of,
                value=float(mean.value),
                # Scores are in 0-1, so that no mean is outside it.
                low=float(max(mean.low, -1.0 if of == "b - a" else 0.0)),
                high=float(min(mean.high, 1.0)),
                n_labels=len(answered),
                n_inputs=sum(sizes),
                slice=name,
            )
        )
    return found


def check_labelled_kind(kind: str) -> None:
    """Refuse a task whose inputs cannot be labelled by their text alone.

    Raises:
        InvalidInput: Its examples bring choices or passages of their own.
    """
    if kind in ("choose", "rank", "embed"):
        raise InvalidInput(f"labels are bought for a task of one text an example, got kind {kind!r}.")


def check_slice_column(traffic: Sequence[Example], column: str | None) -> None:
    """Refuse a column that no input has: each of its values would get its share of nothing.

    Raises:
        InvalidInput: No input has it.
        NotEnoughData: There are no inputs.
    """
    known = sorted({name for example in traffic for name in example.slices})
    if not traffic:
        raise NotEnoughData(NO_TRAFFIC)
    if column is not None and column not in known:
        raise InvalidInput(
            f"a slice column must be one that unlabelled inputs have, {known}, got {column!r}."
        )


def _slice_of(example: Example, column: str | None, undecided: Sequence[str]) -> str:
    if column is not None:
        return f"{column}={example.slices.get(column, '')}"
    return next((name for name in undecided if _is_of(example, name)), "")


def _is_of(example: Example, name: str) -> bool:
    column, _, value = name.partition("=")
    return example.slices.get(column) == value
