"""How good answers are, as far as feedback tells: each arm's share of right ones and its sequence."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from jettison.monitor.dashboard.tally import NO_ARM
from jettison.record import Record
from jettison.stats.bernstein_sequence import EmpiricalBernsteinSequence
from jettison.traffic import Feedback

MOST_WAITING = 50_000
"""Answers that wait for what somebody says of them; the oldest are forgotten first."""
MOST_POINTS = 240


@dataclass(frozen=True)
class Point:
    """Where a mean stood at one time."""

    time: float
    n: int
    value: float
    low: float
    high: float


class Path:
    """A confidence sequence and the way it took, in a bounded number of points."""

    def __init__(self) -> None:
        self._sequence = EmpiricalBernsteinSequence()
        self._values: list[float] = []
        self._every, self._time = 10, 0.0
        self._points: list[Point] = []

    def take(self, time: float, value: float) -> None:
        """One more judgement, in 0-1."""
        self._values.append(value)
        self._time = time
        if len(self._values) >= self._every:
            self._points.append(self._mark())
            if len(self._points) > MOST_POINTS:
                self._points, self._every = self._points[1::2], self._every * 2

    def _mark(self) -> Point:
        self._sequence.update(self._values)
        self._values = []
        shown = self._sequence.interval(running=False)
        return Point(
            time=self._time,
            n=self._sequence.n,
            value=shown.value,
            low=max(0.0, shown.low),
            high=min(1.0, shown.high),
        )

    @property
    def n(self) -> int:
        """Judgements so far."""
        return self._sequence.n + len(self._values)

    def points(self) -> list[Point]:
        """The way it took, with where it stands now as the last point."""
        if self._values:
            self._points.append(self._mark())
        return list(self._points)


class Quality:
    """Joins feedback to the answer it is of; the first word on a request counts."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, tuple[str, str | None]] = OrderedDict()
        self.arms: dict[str, Path] = {}
        self.n_unknown = 0
        """Feedback on requests that are not known, or no longer."""

    def take(self, records: Iterable[Record], feedback: Iterable[Feedback]) -> None:
        """Records first: feedback is of what is there."""
        for record in records:
            if record.role in (None, "answer") and not record.unanswered:
                self._waiting[record.example_id] = record.arm or NO_ARM, record.output
                if len(self._waiting) > MOST_WAITING:
                    self._waiting.popitem(last=False)
        for said in feedback:
            if said.label is None and said.score is None:
                continue
            known = self._waiting.pop(said.request_id, None)
            if known is None:
                self.n_unknown += 1
                continue
            arm, output = known
            right = float(said.label == output) if said.label is not None else float(said.score or 0.0)
            if arm in self.arms or len(self.arms) < 8:
                self.arms.setdefault(arm, Path()).take(said.time, min(1.0, max(0.0, right)))
