"""Everything the pages show of the log: read on while somebody looks, in bounded time and memory.

At the start the newest `MOST_ROWS` records are read, then what comes. Nothing is written anywhere.
"""

import bisect
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jettison.errors import JettisonError
from jettison.monitor.dashboard.quality import Point, Quality
from jettison.monitor.dashboard.tally import Tally
from jettison.monitor.drift import sketch_of
from jettison.monitor.drift_changes import Change, surest
from jettison.monitor.drift_stream import DriftStatus, DriftWatch
from jettison.monitor.evidence import Finding
from jettison.monitor.experiment import Experiment, ExperimentStatus
from jettison.monitor.incidents import IncidentWatch
from jettison.monitor.log import MOST_ROWS, News, Place, TrafficLog
from jettison.monitor.plan import (
    STATE_FILE,
    ExperimentPlan,
    Outcome,
    experiment_folder,
    experiment_names,
    read_outcome,
    read_plan,
)
from jettison.monitor.quality_watch import QualityWatch
from jettison.release import open_release, read_profile

PIECE = 200
"""Records between two points of an experiment's path."""
MOST_DRIFT = 20_000
MOST_EXPERIMENTS = 20


@dataclass
class Trial:
    """One experiment as it is followed here."""

    plan: ExperimentPlan
    experiment: Experiment
    outcome: Outcome | None
    is_whole: bool
    """Whether the log was read from before it started, so that the path is all of it."""
    path: dict[str, list[Point]] = field(default_factory=dict)
    status: ExperimentStatus | None = None
    problem: str | None = None


class Board:
    """The state that pages are made of.

    Args:
        state: The gateway's state folder.
        release: Folder of the release whose reference drift is watched against; None watches none.
        most: Records read at the start, the newest; all that come later are read.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        state: Path,
        *,
        release: Path | None,
        most: int = MOST_ROWS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.state, self.release, self._most, self._clock = state, release, most, clock
        self.lock = threading.Lock()
        self.read_at: float | None = None
        self.problem: str | None = None
        self._start_over()

    def _start_over(self) -> None:
        self.minutes, self.hours = Tally(60.0, 180), Tally(3600.0, 14 * 24)
        self.quality = Quality()
        self.incidents, self.estimates = IncidentWatch(), QualityWatch()
        self.trials: dict[str, Trial] = {}
        self.drift: DriftWatch | None = None
        self.drift_problem: str | None = None
        self.drift_of: str | None = None
        self._candidates: frozenset[str] = frozenset()
        self._begun = False
        self.n_records = 0
        self.first_time: float | None = None
        self.last_time: float | None = None
        self._place: Place | None = None
        self.skips = False
        """Whether the log holds older records than were read."""
        self._since = 0.0

    def refresh(self) -> None:
        """Read on; what cannot be read is said on the pages and tried again."""
        with self.lock:
            try:
                self._read_on()
                self.problem = None
            except JettisonError as error:
                self.problem = str(error)
            self.read_at = self._clock()

    def _read_on(self) -> None:
        log = TrafficLog(self.state)
        plans = self._plans()
        if any(plan.name not in self.trials for plan in plans):
            self._start_over()  # an experiment that is new is read from before it began
        if self._place is None:
            begin, said = (max(0, log.last(table) - self._most) for table in ("records", "feedback"))
            self._place, self.skips = Place(records=begin, feedback=said if begin else 0), begin > 0
            first = log.read(self._place, most=1).records if self.skips else ()
            self._since = (first[0].time or float("inf")) if first else 0.0
        self._follow(plans)
        self._watch_drift()
        while True:
            news = log.read(self._place)
            self._take(news)
            self._place = news.place
            if news.is_all:
                break
        self._judge()

    def _has_begun(self, piece: News) -> bool:
        """Whether the release has answered: what came before it is not held against its reference."""
        self._begun = self._begun or any(one.candidate in self._candidates for one in piece.records)
        return self._begun

    def _plans(self) -> list[ExperimentPlan]:
        plans = [read_plan(self.state, name) for name in experiment_names(self.state)]
        return sorted(plans, key=lambda plan: -plan.started)[:MOST_EXPERIMENTS]

    def _take(self, news: News) -> None:
        n_left = len(news.records)
        for piece in pieces(news):
            self.minutes.take(piece.records)
            self.hours.take(piece.records)
            self.quality.take(piece.records, piece.feedback)
            self.incidents.take(piece)
            self.estimates.take(piece)
            if self.drift is not None and n_left <= MOST_DRIFT and self._has_begun(piece):
                self.drift.take(piece)
            n_left -= len(piece.records)
            for trial in self.trials.values():
                _take_in(trial, piece)
            if piece.records:
                self.first_time = self.first_time or piece.records[0].time
                self.last_time = piece.records[-1].time or self.last_time
        self.n_records += len(news.records)

    def _follow(self, plans: list[ExperimentPlan]) -> None:
        for plan in plans:
            trial = self.trials.get(plan.name)
            if trial is None:
                is_whole = plan.started >= self._since  # its records carry its name: none came before it
                trial = Trial(plan=plan, experiment=Experiment(plan), outcome=None, is_whole=is_whole)
                self.trials[plan.name] = trial
            if trial.outcome is None:
                trial.outcome = read_outcome(self.state, plan.name)

    def _judge(self) -> None:
        for trial in self.trials.values():
            if trial.is_whole:
                trial.status = trial.experiment.status()
                continue
            # The log is longer than what is read here: what the watcher kept is exact.
            trial.status, trial.problem = None, "the log is too long to read here, and no watcher saved it."
            if (experiment_folder(self.state, trial.plan.name) / STATE_FILE).exists():
                try:
                    trial.status, trial.problem = Experiment.open(self.state, trial.plan).status(), None
                except JettisonError as error:
                    trial.problem = str(error)

    def _watch_drift(self) -> None:
        if self.release is None:
            self.drift_problem = "the gateway serves no release, so there is no reference."
            return
        try:
            opened = open_release(self.release.resolve(), verify=False)
            if opened.digest == self.drift_of:
                return
            self.drift_of = opened.digest
            sketch = sketch_of(read_profile(opened))
            self._candidates, self._begun = frozenset(opened.candidates.values()), False
            self.drift = DriftWatch(sketch, candidates=self._candidates)
            self.drift_problem = None
        except JettisonError as error:
            self.drift, self.drift_problem = None, str(error)

    def drift_status(self) -> tuple[DriftStatus, ...]:
        """Streams, the strongest evidence first."""
        return () if self.drift is None else self.drift.status()

    def drift_changes(self) -> tuple[Change, ...]:
        """What changed in the newest inputs, on all and by slice; nothing before a stream has alarmed."""
        if self.drift is None or not self.drift.has_drifted:
            return ()
        return surest(self.drift.newest.changes())


def pieces(news: News) -> Iterator[News]:
    """The same in the order in which it came to pass, so that a path over time can be drawn.

    What is said of a record stays behind it, and each kind keeps its order: a statistic comes out the same.
    """
    times = [one.time for one in news.feedback]
    latest = list(times)
    for i in range(1, len(latest)):  # feedback is in the order it was written in, give or take a moment
        latest[i] = max(latest[i], latest[i - 1])
    done = 0
    for start in range(0, len(news.records), PIECE):
        part = news.records[start : start + PIECE]
        is_last = start + PIECE >= len(news.records)
        until = part[-1].time or 0.0
        end = len(news.feedback) if is_last else max(done, bisect.bisect_right(latest, until))
        yield News(records=part, feedback=news.feedback[done:end], place=news.place, is_all=is_last)
        done = end
    if not news.records:
        yield news


def _take_in(trial: Trial, piece: News) -> None:
    """Read an experiment on until it ended, and mark where its metrics stand."""
    if not trial.is_whole:
        return
    ended = float("inf") if trial.outcome is None else trial.outcome.time
    records = tuple(one for one in piece.records if (one.time or 0.0) <= ended)
    feedback = tuple(one for one in piece.feedback if one.time <= ended)
    if not records and not feedback:
        return
    trial.experiment.take(News(records=records, feedback=feedback, place=piece.place, is_all=piece.is_all))
    at = records[-1].time if records else feedback[-1].time
    if at is None or at < trial.plan.started:
        return
    for one in trial.experiment.status().metrics:
        point = _point(one, at)
        if point is not None:
            path = trial.path.setdefault(one.metric, [])
            path.append(point)
            if len(path) > 400:
                trial.path[one.metric] = path[1::2]


def _point(one: Finding, at: float) -> Point | None:
    if one.value is None or one.low is None or one.high is None:
        return None
    return Point(time=at, n=one.n, value=one.value, low=one.low, high=one.high)
