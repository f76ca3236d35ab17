"""The watcher of one gateway: reads the log on, conducts experiments, holds cascades to their audits."""

from pathlib import Path

import msgspec

from jettison.errors import BrokenArtifact
from jettison.files import write_atomic
from jettison.monitor.alerts import Alert, Alerts
from jettison.monitor.audit import AuditPlan, Audits, AuditStatus
from jettison.monitor.conduct import conduct
from jettison.monitor.experiment import Experiment, ExperimentStatus
from jettison.monitor.log import Place, TrafficLog
from jettison.monitor.part import Part, Published
from jettison.monitor.plan import experiment_names, read_outcome, read_plan
from jettison.monitor.steer import read_control, steer

STATE_FILE = "monitor.msgpack"
_NAMES = {
    "ROLLED BACK": "experiment_rolled_back",
    "VOID": "experiment_void",
    "PROMOTED": "experiment_promoted",
}


class Watch:
    """Everything that is watched of one gateway; `look` may be called as often as one likes.

    Args:
        state: The gateway's state folder.
        audits: Cascades whose audits are watched.
        alerts: Where findings go.
        parts: What else is watched; each reads the log once, from its beginning.

    Raises:
        InvalidInput: There is no traffic log.
        BrokenArtifact: What an earlier watcher kept cannot be read.
    """

    def __init__(
        self, state: Path, *, audits: tuple[AuditPlan, ...], alerts: Alerts, parts: tuple[Part, ...] = ()
    ) -> None:
        self.state, self.alerts, self.parts = state, alerts, parts
        self._log = TrafficLog(state)
        self._experiments: dict[str, Experiment] = {}
        self._place = Place()
        self._audits = {plan.place: Audits(plan) for plan in audits}
        self._part_places = {part.name: Place() for part in parts}
        self._restore({plan.place: plan for plan in audits})

    def look(self, now: float) -> tuple[tuple[ExperimentStatus, ...], tuple[AuditStatus, ...]]:
        """Read what is new and act on it.

        Args:
            now: Seconds since the epoch.

        Returns:
            Where each running experiment and each cascade stands.
        """
        experiments = tuple(self._look_at(name, now) for name in self._running())
        self._read_on()
        cascades = tuple(self._hold(place, now) for place in list(self._audits))
        self._read_parts_on()
        for part in self.parts:
            for alert in part.alerts(now):
                self.alerts.tell(alert)
            if isinstance(part, Published):
                part.publish(self.state)
        return experiments, cascades

    def _read_parts_on(self) -> None:
        """Parts that stand at one place read together; one that is new catches up by itself first."""
        behind = list(self.parts)
        while behind:
            place = min((self._part_places[p.name] for p in behind), key=lambda p: (p.records, p.feedback))
            here = [part for part in behind if self._part_places[part.name] == place]
            news = self._log.read(place)
            for part in here:
                part.take(news)
                self._part_places[part.name] = news.place
            if news.is_all:
                behind = [part for part in behind if part not in here]

    def _running(self) -> tuple[str, ...]:
        return tuple(n for n in experiment_names(self.state) if read_outcome(self.state, n) is None)

    def _look_at(self, name: str, now: float) -> ExperimentStatus:
        if name not in self._experiments:
            self._experiments[name] = Experiment.open(self.state, read_plan(self.state, name))
        status, done = conduct(self.state, self._experiments[name], self._log, now=now)
        if done is not None:
            verdict = done.partition(":")[0]
            alert = Alert(
                name=_NAMES.get(verdict, "experiment_ramped"),
                subject=name,
                severity="critical" if verdict in ("ROLLED BACK", "VOID") else "info",
                message=done,
                time=now,
                evidence=msgspec.to_builtins(status),
            )
            self.alerts.tell(alert)
        return status

    def _read_on(self) -> None:
        if not self._audits:
            return
        while True:
            news = self._log.read(self._place)
            for audits in self._audits.values():
                audits.take(news)
            self._place = news.place
            if news.is_all:
                return

    def _hold(self, place: str, now: float) -> AuditStatus:
        """Tighten a threshold that no longer holds, at once, and say so."""
        audits = self._audits[place]
        status = audits.status()
        if status.verdict != "BROKEN" or status.threshold_wanted is None:
            return status
        in_force = read_control(self.state).routes.get(place)
        before = (in_force.threshold if in_force else None) or 0.0
        wanted = max(before, status.threshold_wanted)  # never loosened, whoever set it
        steer(self.state, place, threshold=wanted, reason=status.reason)
        self._audits[place] = Audits(msgspec.structs.replace(audits.plan, threshold=wanted))
        self.alerts.tell(
            Alert(
                name="threshold_broken",
                subject=place,
                severity="critical",
                message=status.reason,
                time=now,
                evidence=msgspec.to_builtins(status),
            )
        )
        return status

    def save(self) -> None:
        """Keep everything, so that the next watcher goes on from here."""
        for experiment in self._experiments.values():
            experiment.save(self.state)
        content = {
            "place": [self._place.records, self._place.feedback],
            "audits": [audits.state() for audits in self._audits.values()],
            "told": self.alerts.state(),
            "parts": {
                part.name: {
                    "place": [self._part_places[part.name].records, self._part_places[part.name].feedback],
                    "state": part.state(),
                }
                for part in self.parts
            },
        }
        write_atomic(self.state / STATE_FILE, msgspec.msgpack.encode(content))

    def _restore(self, plans: dict[str, AuditPlan]) -> None:
        """Go on where `save` stopped; another plan for the audits begins with the log."""
        path = self.state / STATE_FILE
        if not path.exists():
            return
        try:
            content = msgspec.msgpack.decode(path.read_bytes(), strict=False)
            kept = {one["plan"]["place"]: Audits.from_state(one) for one in content["audits"]}
            place = Place(records=content["place"][0], feedback=content["place"][1])
            self.alerts._told.update(content["told"])
            for part in self.parts:
                known = content.get("parts", {}).get(part.name)
                if known is not None and part.restore(known["state"]):
                    self._part_places[part.name] = Place(
                        records=known["place"][0], feedback=known["place"][1]
                    )
        except (msgspec.DecodeError, msgspec.ValidationError, KeyError, ValueError, TypeError) as error:
            raise BrokenArtifact(
                f"{path} must be what a watcher saved: {error}. Delete it: the log holds everything."
            ) from error
        if all(name in kept and _same(kept[name].plan, plan) for name, plan in plans.items()):
            self._audits, self._place = {name: kept[name] for name in plans}, place


def _same(kept: AuditPlan, given: AuditPlan) -> bool:
    """Whether a kept plan is the given one, perhaps with a threshold that was tightened since."""
    return kept.threshold >= given.threshold and kept == msgspec.structs.replace(
        given, threshold=kept.threshold
    )
