"""An experiment as it stands: the log's records in, a verdict out, the same after any restart."""

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jettison.errors import BrokenArtifact, CannotWrite
from jettison.files import said_when_unwritable, write_atomic
from jettison.monitor.evidence import Finding, evidence_for
from jettison.monitor.hashed import hash_texts
from jettison.monitor.kept_observer import WAITING, clean, restore, save_full, save_rows
from jettison.monitor.log import News, Place, TrafficLog
from jettison.monitor.log_columns import RecordBatch, feedback_batches, record_batches
from jettison.monitor.observe_shadow import ShadowObserver
from jettison.monitor.observe_split import SplitObserver
from jettison.monitor.observed import FeedbackColumns, Observed, Observer
from jettison.monitor.pieces import open_moment
from jettison.monitor.plan import STATE_FILE, ExperimentPlan, experiment_folder
from jettison.monitor.record_columns import RecordColumns
from jettison.monitor.sample_ratio import RatioFinding, SampleRatio

FORMAT = 4
LOCK_FILE = "evidence.lock"
TRIES = 3


class ExperimentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What may be said of an experiment now; it may be looked at as often as one likes."""

    name: str
    kind: str
    verdict: str
    """`RUNNING`, `SHOWN` (not worse on every metric), `ROLL BACK` or `VOID` (the assignment is broken)."""
    reason: str
    n_units: int
    """Keys of a split, pairs of a shadow."""
    n_late: int
    """Labels whose request is unknown or no longer waited for."""
    metrics: tuple[Finding, ...]
    ratio: RatioFinding | None
    """None for a shadow, where nothing is drawn between arms."""
    last_time: float | None
    """Of the last record read."""


class Experiment:
    """Reads the log on and keeps one statistic a metric.

    The log is read by columns, and keys and waiting requests are remembered as numbers, so that tens of
    millions of records are a matter of seconds.
    """

    def __init__(self, plan: ExperimentPlan) -> None:
        self.plan = plan
        self._begin()

    def _begin(self) -> None:
        """Know nothing yet."""
        plan = self.plan
        self.place = Place()
        self._observer: Observer = SplitObserver(plan) if plan.kind == "split" else ShadowObserver(plan)
        self._evidence = {metric.name: evidence_for(metric, plan) for metric in plan.metrics}
        self._ratio = SampleRatio(plan.srm_alpha)
        self._n_units, self._n_late = 0, 0
        self._last: float | None = None
        self._ends = _Ends()
        self._saved: dict[str, int] = {}
        self._ahead: Path | None = None
        """Where full files are written while more is read; None: nowhere."""
        self._is_checked = True

    def take(self, news: News) -> None:
        """Take in the next part of the log; its bounds may fall anywhere."""
        if news.records:
            self._count(self._observe(RecordColumns.of(news.records)))
        if news.feedback:
            self._count(self._observer.take_feedback(FeedbackColumns.of_said(news.feedback)))
        if news.is_all:
            self._forget()
        self.place = news.place

    def catch_up(self, log: TrafficLog, *, state: Path | None = None) -> None:
        """Read all there is. Where the log is not the one that was read before, begin anew.

        Args:
            log: The traffic log.
            state: Where `save` is to keep it: what of that is done already is written while more is read.

        Raises:
            BrokenArtifact: A row or segment cannot be read.
        """
        if not self._is_checked and not self._is_of(log):
            self._begin()
        self._is_checked = True
        observer = self._observer
        self._ahead = None if state is None else experiment_folder(state, self.plan.name)
        for attempt in range(TRIES):
            try:
                # Feedback is looked up first: what is seen of it always finds its record.
                with (
                    open_moment(log.folder, "feedback", after=self.place.feedback) as said,
                    open_moment(log.folder, "records", after=self.place.records) as records,
                ):
                    observer.reserve(log.last() - self.place.records)
                    self._take_all(record_batches(records, observer.columns()))
                    for words in feedback_batches(said):
                        self._count(observer.take_feedback(words.columns))
                        self.place = replace(self.place, feedback=words.last)
                self._forget()
                return
            except FileNotFoundError as error:  # dropped for its age while we read: go on after it
                if attempt == TRIES - 1:
                    raise BrokenArtifact(
                        f"{log.folder} must keep its segments while they are read, got {error}. Try again."
                    ) from error

    def _forget(self) -> None:
        """Once all feedback is read: what comes later is too late for what is older than the wait."""
        if self._last is not None:
            self._observer.waiting.forget(self._last - self.plan.label_wait_s)

    def _take_all(self, batches: Iterator[RecordBatch]) -> None:
        """Batch after batch; while one is observed, a thread counts the last one, in their order."""
        pending: Future[None] | None = None
        with ThreadPoolExecutor(1) as counting:
            try:
                for batch in batches:
                    observed = self._observe(batch.columns)
                    self.place = replace(self.place, records=batch.last)
                    if pending is not None:
                        pending.result()
                    pending = counting.submit(self._count, observed)
            finally:
                if pending is not None:
                    pending.result()

    def _observe(self, columns: RecordColumns) -> Observed:
        observed = self._observer.take(columns)
        time = float(columns.floats("time")[-1])
        self._last = None if np.isnan(time) else time
        ids = columns.hashes("example_id")
        self._ends = self._ends.after(int(ids[0]), int(ids[-1]))
        return observed

    def _count(self, observed: Observed) -> None:
        if observed.units is not None:
            self._ratio.update(observed.units)
            self._n_units += len(observed.units)
        for name, found in observed.outcomes.items():
            self._evidence[name].update(found.values, found.treated, found.shares)
        self._n_units += observed.n_pairs
        self._n_late += observed.n_late
        if self._ahead is not None:
            try:
                save_full(self._observer, self._ahead, self._token, self._saved)
            except CannotWrite:  # said by whoever saves
                self._ahead = None

    @property
    def _token(self) -> str:
        return f"{self._ends.first:016x}"

    def status(self) -> ExperimentStatus:
        """Where it stands."""
        findings = tuple(evidence.finding() for evidence in self._evidence.values())
        ratio = self._ratio.finding() if self.plan.kind == "split" else None
        verdict, reason = judge(findings, ratio)
        return ExperimentStatus(
            name=self.plan.name,
            kind=self.plan.kind,
            verdict=verdict,
            reason=reason,
            n_units=self._n_units,
            n_late=self._n_late,
            metrics=findings,
            ratio=ratio,
            last_time=self._last,
        )

    def save(self, state: Path) -> None:
        """Keep what it knows beside its plan, so that the log need not be read from its beginning.

        Where another process saves at the same time, or has kept more of the same log, nothing is done.

        Raises:
            CannotWrite: The disk is full or the folder read-only.
        """
        folder = experiment_folder(state, self.plan.name)
        with _alone_in(folder) as is_alone:
            if not is_alone or self._is_behind(folder):
                return
            content: dict[str, Any] = {
                "format": FORMAT,
                "plan": _plan_digest(self.plan),
                "place": [self.place.records, self.place.feedback],
                "ends": [self._ends.first, self._ends.last],
                "evidence": {name: evidence.state() for name, evidence in self._evidence.items()},
                "ratio": self._ratio.state(),
                "counts": [self._n_units, self._n_late, self._last],
            }
            content["observer"] = save_rows(self._observer, folder, self._token, self._saved)
            write_atomic(folder / STATE_FILE, msgspec.msgpack.encode(content))
            clean(folder, self._token, content["observer"])

    def _is_behind(self, folder: Path) -> bool:
        """Whether what is kept there goes further than this, in the same log."""
        try:
            kept = msgspec.msgpack.decode((folder / STATE_FILE).read_bytes(), strict=False)
            return bool(
                kept["format"] == FORMAT
                and kept["plan"] == _plan_digest(self.plan)
                and kept["ends"][0] == self._ends.first
                and (kept["place"][0], kept["place"][1]) > (self.place.records, self.place.feedback)
            )
        except (OSError, msgspec.DecodeError, KeyError, TypeError, IndexError):
            return False

    @classmethod
    def open(cls, state: Path, plan: ExperimentPlan) -> "Experiment":
        """Go on where `save` stopped, or begin: also where that was of another plan or version.

        Raises:
            BrokenArtifact: What was saved cannot be read.
        """
        path = experiment_folder(state, plan.name) / STATE_FILE
        if not path.exists():
            return cls(plan)
        try:
            content = msgspec.msgpack.decode(path.read_bytes(), strict=False)
            if content.get("format") != FORMAT or content["plan"] != _plan_digest(plan):
                return cls(plan)
            return cls._from_state(plan, path.parent, content)
        except (
            msgspec.DecodeError,
            msgspec.ValidationError,
            KeyError,
            ValueError,
            TypeError,
            AttributeError,
        ) as error:
            raise BrokenArtifact(
                f"{path} must be what an experiment saved: {error}. Delete it: the log holds everything."
            ) from error

    @classmethod
    def _from_state(cls, plan: ExperimentPlan, folder: Path, content: dict[str, Any]) -> "Experiment":
        found = cls(plan)
        found.place = Place(records=content["place"][0], feedback=content["place"][1])
        found._ends = _Ends(first=content["ends"][0], last=content["ends"][1])
        head = content["observer"]
        restore(found._observer, folder, found._token, head)
        found._saved = {**head["seen"], WAITING: head["waiting"]}
        found._evidence = {
            metric.name: evidence_for(metric, plan, content["evidence"][metric.name])
            for metric in plan.metrics
        }
        found._ratio = SampleRatio.from_state(plan.srm_alpha, content["ratio"])
        found._n_units, found._n_late, found._last = content["counts"]
        found._is_checked = False
        return found

    def _is_of(self, log: TrafficLog) -> bool:
        """Whether the log still holds the record that was read last, or may: old ones are dropped."""
        if not self.place.records:
            return True
        if log.last() < self.place.records:
            return False
        found = log.request_id(self.place.records)
        return found is None or _hash_one(found) == self._ends.last


@dataclass(frozen=True, kw_only=True)
class _Ends:
    """By which a log is known again: hashes of the first and the last request id read."""

    first: int = 0
    last: int = 0

    def after(self, first: int, last: int) -> "_Ends":
        return _Ends(first=self.first or first, last=last)


def _hash_one(text: str) -> int:
    import pyarrow as pa

    return int(hash_texts(pa.array([text], pa.string()))[0])


def _plan_digest(plan: ExperimentPlan) -> str:
    return hashlib.sha256(msgspec.json.encode(plan)).hexdigest()


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[bool]:
    """Whether no other process is saving there now; while it lasts none can begin to."""
    with said_when_unwritable(folder / LOCK_FILE):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK_FILE).open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def judge(findings: tuple[Finding, ...], ratio: RatioFinding | None) -> tuple[str, str]:
    """The verdict over all metrics, and why."""
    if ratio is not None and ratio.is_broken:
        return (
            "VOID",
            f"the arms do not get their shares ({ratio.worst}: {ratio.treatment:,} treatment, "
            f"{ratio.control:,} control in all; log e-value {ratio.log_e:.1f}, limit {ratio.limit:.1f}): "
            "nothing can be concluded from this assignment.",
        )
    for one in findings:
        if one.verdict == "broken" and one.late_since is not None and not _is_shown_lost(one):
            return "ROLL BACK", _late(one)
        if one.verdict == "broken":
            return (
                "ROLL BACK",
                f"{one.metric} ({one.role}) lost more than its margin of {one.margin:g}: "
                f"{_number(one.value)} ({_number(one.low)} to {_number(one.high)}) after {one.n:,}.",
            )
    if findings and all(one.verdict == "holds" for one in findings):
        return "SHOWN", "treatment is not worse than control by its margin on any metric."
    waiting = [one.metric for one in findings if one.verdict == "open"]
    return "RUNNING", f"not yet settled: {', '.join(waiting)}."


def _is_shown_lost(one: Finding) -> bool:
    """Whether the bounds over all observations say so too."""
    return one.high is not None and one.high <= -one.margin + 1e-12


def _late(one: Finding) -> str:
    assert one.late_since is not None
    whole = f"{_number(one.value)} ({_number(one.low)} to {_number(one.high)})"
    return (
        f"{one.metric} ({one.role}) has lost more than its margin of {one.margin:g} since about "
        f"observation {one.late_since:,} of {one.n:,} (log e-value {one.late_log_e:.1f}, limit "
        f"{one.late_limit:.1f}); over all of them {whole}."
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.4f}"
