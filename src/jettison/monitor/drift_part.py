"""Drift as a part of the watcher."""

from typing import Any

import msgspec

from jettison.monitor.alerts import Alert
from jettison.monitor.drift_changes import ranking_words, surest
from jettison.monitor.drift_stream import DriftStatus, DriftWatch
from jettison.monitor.log import News


class DriftPart:
    """Alerts once the streams say that something moved."""

    name = "drift"

    def __init__(self, watch: DriftWatch) -> None:
        self.watch = watch

    def take(self, news: News) -> None:
        self.watch.take(news)

    def alerts(self, now: float) -> tuple[Alert, ...]:
        if not self.watch.has_drifted:
            return ()
        drifted = [one for one in self.watch.status() if one.has_drifted]
        changes = surest(self.watch.newest.changes())
        return (
            Alert(
                name="drift",
                subject=drifted[0].stream,
                severity="warning",
                message=self.watch.reading().reason,
                time=now,
                evidence={
                    "streams": msgspec.to_builtins(drifted),
                    "alpha": self.watch.alpha,
                    "changes": msgspec.to_builtins(changes),
                },
            ),
        )

    def status(self) -> tuple[DriftStatus, ...]:
        return self.watch.status()

    def lines(self) -> list[str]:
        reading = self.watch.reading()
        said = [f"drift: {'DRIFT' if reading.alarm else 'NONE'}. {reading.reason}"]
        if reading.alarm:
            said += [
                f"what changed on {one.slice}: {ranking_words(one.changed)}. A classifier tells the newest "
                f"{one.n:,} inputs from the reference with AUC {one.auc:.2f}"
                for one in surest(self.watch.newest.changes())
            ]
        return said

    def state(self) -> dict[str, Any]:
        return self.watch.state()

    def restore(self, state: dict[str, Any]) -> bool:
        return self.watch.restore(state)
