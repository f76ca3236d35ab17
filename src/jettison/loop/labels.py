"""Which unlabelled inputs to label, so that two models' scores and their difference are known soonest.

Where both models give one answer, its label cannot change the difference; where they differ it says
most. Inputs are drawn within strata (agreement, confidence, and a slice column where asked for), each with
a known chance, so that the estimate is unbiased whatever the guess.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate.scorers import open_scorers
from jettison.files import write_atomic
from jettison.model import Output
from jettison.record import Record
from jettison.stats.stratified import draw_stratified, stratified_mean
from jettison.task import Example, Task

AGREE_SPREAD = 0.15
"""Guessed spread where both agree: nothing for the difference, something for each score."""


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


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate from the answers that came back."""

    of: str
    """`a`, `b`, or `b - a`."""
    value: float
    low: float
    high: float
    n_labels: int
    n_inputs: int


def choose_labels(
    traffic: Sequence[Example],
    a: Sequence[Record],
    b: Sequence[Record],
    *,
    budget: int,
    column: str | None = None,
    seed: int = 0,
) -> tuple[ToLabel, ...]:
    """Draw inputs to label.

    Args:
        traffic: Unlabelled inputs.
        a: One model's records of them, in the same order.
        b: The other's.
        budget: Labels to buy.
        column: Slice column within whose values strata are made, so that each gets its share.
        seed: Of the draw.

    Raises:
        InvalidInput: The budget is too small for the strata.
        NotEnoughData: There is no traffic.
    """
    if not traffic:
        raise NotEnoughData("there must be unlabelled inputs to choose from, got none.")
    sure = np.array([min(r.confidence or 0.0, q.confidence or 0.0) for r, q in zip(a, b, strict=True)])
    middle = float(np.median(sure))
    names, spreads = [], {}
    for example, r, q, c in zip(traffic, a, b, sure.tolist(), strict=True):
        agrees = r.output == q.output
        where = "" if column is None else f"{column}={example.slices.get(column, '')}, "
        name = f"{where}{'agree' if agrees else 'differ'}, {'sure' if c >= middle else 'unsure'}"
        names.append(name)
        spreads[name] = AGREE_SPREAD * (1 if c >= middle else 2) if agrees else 0.9
    order = sorted(spreads)
    stratum = [order.index(name) for name in names]
    drawn = draw_stratified(stratum, [spreads[name] for name in order], budget, seed=seed)
    sizes = np.bincount(stratum, minlength=len(order)).tolist()
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
        )
        for i, chance in zip(drawn.positions, drawn.propensities, strict=True)
    )


def write_to_label(path: Path, rows: Sequence[ToLabel]) -> None:
    """Write the file for people, one JSON object a line."""
    write_atomic(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


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
                rows.append(msgspec.json.decode(line, type=ToLabel))
            except msgspec.ValidationError as error:
                raise InvalidInput(
                    f"{path}:{number}: {error}. Fill in `label` and leave the rest."
                ) from error
            except msgspec.DecodeError as error:
                raise InvalidInput(f"{path}:{number} must be one JSON object: {error}.") from error
    if not rows:
        raise InvalidInput(f"{path} must hold at least one line, got none.")
    return tuple(rows)


def estimate_from_labels(task: Task, rows: Sequence[ToLabel]) -> tuple[Labelled, ...]:
    """What the answered lines say of both models on all of the traffic.

    Raises:
        InvalidInput: A label is none of the task's.
        NotEnoughData: A stratum has fewer than two answers.
    """
    answered = [row for row in rows if row.label is not None]
    known = (*task.labels, task.out_of_scope)
    for row in answered:
        if task.labels and row.label not in known:
            raise InvalidInput(f"a label must be one of the task's, got {row.label!r} at {row.id}.")
    first = task.scorers[0]
    scorer: Any = open_scorers({first: task.scoring[first]}, out_of_scope=task.out_of_scope)[first]

    def score(row: ToLabel, answer: str | None) -> float:
        example = Example(id=row.id, input=row.text, expected=row.label)
        error = "no answer" if answer is None else None
        value = scorer.score(example, Output(label=answer or "", confidence=0.0, error=error)).value
        return 0.0 if value is None else float(value)

    a, b = ([score(row, getattr(row, side)) for row in answered] for side in "ab")
    strata = [row.stratum for row in answered]
    sizes = [0] * (max(row.stratum for row in rows) + 1)
    for row in rows:
        sizes[row.stratum] = row.stratum_size
    found = []
    for name, values in (("a", a), ("b", b), ("b - a", [y - x for x, y in zip(a, b, strict=True)])):
        mean = stratified_mean(values, strata, sizes)
        found.append(
            Labelled(
                of=name,
                value=mean.value,
                low=mean.low,
                high=mean.high,
                n_labels=len(answered),
                n_inputs=sum(sizes),
            )
        )
    return tuple(found)
