"""An experiment as it stands: the log's records in, a verdict out, the same after any restart."""

from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import BrokenArtifact
from jettison.files import write_atomic
from jettison.monitor.evidence import Finding, evidence_for
from jettison.monitor.log import News, Place, TrafficLog
from jettison.monitor.observe import Observer
from jettison.monitor.plan import STATE_FILE, ExperimentPlan, experiment_folder
from jettison.monitor.sample_ratio import RatioFinding, SampleRatio


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
    """Reads the log on and keeps one statistic a metric."""

    def __init__(self, plan: ExperimentPlan) -> None:
        self.plan = plan
        self.place = Place()
        self._observer = Observer(plan)
        self._evidence = {metric.name: evidence_for(metric, plan) for metric in plan.metrics}
        self._ratio = SampleRatio(plan.srm_alpha)
        self._n_units, self._n_late = 0, 0
        self._last: float | None = None

    def take(self, news: News) -> None:
        """Take in the next part of the log; its bounds may fall anywhere."""
        found = self._observer.take(news.records, news.feedback)
        for name, values in found.values.items():
            self._evidence[name].update(values, found.treated.get(name, ()), found.shares.get(name, ()))
        self._ratio.update(found.units)
        pairs = max((len(values) for values in found.values.values()), default=0)
        self._n_units += len(found.units) if self.plan.kind == "split" else pairs
        self._n_late += found.n_late
        self.place = news.place
        if news.records:
            self._last = news.records[-1].time

    def catch_up(self, log: TrafficLog) -> None:
        """Read all there is."""
        while True:
            news = log.read(self.place)
            self.take(news)
            if news.is_all:
                return

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
        """Keep what it knows beside its plan, so that the log need not be read from its beginning."""
        content = {
            "place": [self.place.records, self.place.feedback],
            "observer": self._observer.state(),
            "evidence": {name: evidence.state() for name, evidence in self._evidence.items()},
            "ratio": self._ratio.state(),
            "counts": [self._n_units, self._n_late, self._last],
        }
        write_atomic(experiment_folder(state, self.plan.name) / STATE_FILE, msgspec.msgpack.encode(content))

    @classmethod
    def open(cls, state: Path, plan: ExperimentPlan) -> "Experiment":
        """Go on where `save` stopped, or begin.

        Raises:
            BrokenArtifact: What was saved cannot be read.
        """
        path = experiment_folder(state, plan.name) / STATE_FILE
        if not path.exists():
            return cls(plan)
        try:
            return cls._from_state(plan, msgspec.msgpack.decode(path.read_bytes(), strict=False))
        except (msgspec.DecodeError, msgspec.ValidationError, KeyError, ValueError, TypeError) as error:
            raise BrokenArtifact(
                f"{path} must be what an experiment saved: {error}. Delete it: the log holds everything."
            ) from error

    @classmethod
    def _from_state(cls, plan: ExperimentPlan, content: dict[str, Any]) -> "Experiment":
        found = cls(plan)
        found.place = Place(records=content["place"][0], feedback=content["place"][1])
        found._observer = Observer.from_state(plan, content["observer"])
        found._evidence = {
            metric.name: evidence_for(metric, plan, content["evidence"][metric.name])
            for metric in plan.metrics
        }
        found._ratio = SampleRatio.from_state(plan.srm_alpha, content["ratio"])
        found._n_units, found._n_late, found._last = content["counts"]
        return found


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


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.4f}"
