"""What is told elsewhere of one model: its records, and the figures computed from them with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from jettison.decide.pairing import record_score
from jettison.decide.slices import by_slice
from jettison.decision import CandidateReport, Decision, Interval
from jettison.errors import InvalidInput, NotEnoughData
from jettison.record import Record
from jettison.stats.binomial import wilson
from jettison.stats.clustered import mean_difference_ci
from jettison.stats.group_jackknife import bounds_of
from jettison.task import Example

ACCURACY = ("label", "acc")
"""Scorers whose mean everyone calls accuracy."""
PREFERRED = ("label", "score", "acc", "exact_match")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The mean of one scorer on one slice."""

    scorer: str
    slice: str
    value: float
    n: int
    """Examples that were judged."""
    n_unscored: int = 0
    """Examples that could not be judged, or whose answer was lost on the way."""
    low: float | None = None
    """Of the interval; None where the examples are too few for one."""
    high: float | None = None
    confidence: float = 0.95
    method: str = ""
    difference: Interval | None = None
    """From the incumbent, where a decision looked at this slice."""

    @property
    def metric(self) -> str:
        """What others call it."""
        return "accuracy" if self.scorer in ACCURACY else self.scorer


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All records of one model on one task, with what was decided on them."""

    model: str
    task: str
    created: str
    """ISO 8601 with its zone."""
    records: Sequence[Record] = field(repr=False)
    examples: Mapping[str, Example] = field(default_factory=dict, repr=False)
    """By id, where the task is at hand: records hold no texts."""
    kind: str | None = None
    """Of the task, where it is known."""
    revision: str | None = None
    """Digest of the test split, where it is known."""
    licence: str | None = None
    decision: Decision | None = field(default=None, repr=False)
    report: CandidateReport | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """Of the candidate, or of the file that its answers came in."""
        return self.records[0].candidate if self.records else ""

    @cached_property
    def scorers(self) -> tuple[str, ...]:
        """Every scorer on the records; the one to tell first where only one is told."""
        found = {name for record in self.records for name in record.scores}
        first = [name for name in PREFERRED if name in found]
        return tuple(dict.fromkeys((*first, *sorted(found))))

    @cached_property
    def figures(self) -> tuple[Figure, ...]:
        """Every scorer on `all` and on each slice present; what could not be judged at all is left out."""
        gates = {
            (gate.metric, gate.slice): gate.difference
            for gate in (self.report.gates if self.report else ())
        }
        found = []
        for where, records in by_slice(self.records).items():
            for scorer in self.scorers:
                figure = figure_of(records, scorer, where, difference=gates.get((scorer, where)))
                if figure is not None:
                    found.append(figure)
        return tuple(found)

    def figure(self, scorer: str | None = None) -> Figure:
        """One figure over all examples; None takes the first scorer.

        Raises:
            InvalidInput: No record carries the scorer, or none could be judged.
        """
        overall = {figure.scorer: figure for figure in self.figures if figure.slice == "all"}
        if not overall:
            raise InvalidInput(f"records must carry a score to be published, got none for {self.model}.")
        if scorer is not None and scorer not in overall:
            raise InvalidInput(f"--scorer must be one of {list(overall)}, got {scorer!r}.")
        return overall[scorer or next(name for name in self.scorers if name in overall)]

    def text(self, record: Record) -> str:
        """What was asked.

        Raises:
            InvalidInput: Neither the record nor the task at hand has it.
        """
        if record.example_id in self.examples:
            return self.examples[record.example_id].input
        if record.input is not None:
            return record.input
        raise InvalidInput(
            f"this format must hold what was asked, got no text of example {record.example_id!r}: records "
            "hold none. Name the task that it is of by --task, or a column by --column input=NAME."
        )

    def answers(self, record: Record) -> tuple[str, ...]:
        """The right answers, as far as they are known."""
        example = self.examples.get(record.example_id)
        expected = record.expected if record.expected is not None else example and example.expected
        further = example.references if example is not None else ()
        return (*(() if expected is None else (expected,)), *further)

    def choices(self, record: Record) -> tuple[str, ...]:
        """What could be answered, where the example brings its own choices."""
        example = self.examples.get(record.example_id)
        return () if example is None else example.choices


def figure_of(
    records: Sequence[Record], scorer: str, where: str, *, difference: Interval | None = None
) -> Figure | None:
    """The weighted mean of one scorer with its interval; None where nothing could be judged.

    Yes-or-no scores of examples that stand alone get Wilson's interval, all others a group jackknife.
    """
    judged = [(record, score) for record in records if (score := record_score(record, scorer)) is not None]
    if not judged:
        return None
    scores = [score for _, score in judged]
    groups = [record.group or record.example_id for record, _ in judged]
    weights = [record.weight for record, _ in judged]
    n = len(judged)
    value = sum(s * w for s, w in zip(scores, weights, strict=True)) / sum(weights)
    low = high = None
    method = ""
    if len(set(groups)) == n and len(set(weights)) == 1 and set(scores) <= {0.0, 1.0}:
        found = wilson(int(sum(scores)), n)
        low, high, method = found.low, found.high, found.method
    else:
        try:
            bounds = bounds_of(np.array(scores))
            found = mean_difference_ci(scores, [0.0] * n, groups=groups, weights=weights, bounds=bounds)
            low, high, method = found.low, found.high, found.method
        except NotEnoughData:
            pass
    return Figure(
        scorer=scorer, slice=where, value=value, n=n, n_unscored=len(records) - n,
        low=low, high=high, method=method, difference=difference,
    )  # fmt: skip


def in_words(figure: Figure) -> str:
    """Interval, size and difference of a figure in one line."""
    parts = [f"n = {figure.n:,}"]
    if figure.low is not None and figure.high is not None:
        share = f"{100 * figure.confidence:g} %"
        parts.insert(0, f"{share} interval {figure.low:.4f} to {figure.high:.4f} ({figure.method})")
    if figure.n_unscored:
        parts.append(f"{figure.n_unscored:,} not judged")
    if (d := figure.difference) is not None:
        parts.append(f"{d.value:+.4f} against the incumbent ({d.low:+.4f} to {d.high:+.4f})")
    return "; ".join(parts)
