"""A detector chosen by name, on every score of the log: one that comes with us, or a plugin."""

from collections.abc import Collection
from typing import Any

import msgspec

from jettison import registry
from jettison.errors import InvalidInput
from jettison.files import value_sha256
from jettison.monitor.alerts import Alert
from jettison.monitor.detectors import Detector, Reading, open_detector
from jettison.monitor.drift_scores import DriftScores
from jettison.monitor.log import News
from jettison.release.sketch import Sketch


class DetectorReading(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector says of one score."""

    stream: str
    reading: Reading


class DetectorPart:
    """Feeds a detector each score and category that the release's sketch has, and alerts where one alarms.

    Each gets an even part of alpha.

    Args:
        use: Name of the detector.
        sketch: Of the release.
        candidates: Digests of the release's candidates; None takes every lean answer.
        alpha: Of false alarms, over all scores; what it means is the detector's to say.
        seed: Of the detectors.

    Raises:
        UnknownName: There is no detector of that name.
        InvalidInput: It holds at one look only, or alpha is not in (0, 1).
    """

    def __init__(
        self,
        use: str,
        sketch: Sketch,
        *,
        candidates: Collection[str] | None = None,
        alpha: float = 0.01,
        seed: int = 0,
    ) -> None:
        if not 0 < alpha < 1:
            raise InvalidInput(f"alpha must be in (0, 1), got {alpha}.")
        self.use, self.alpha, self.name = use, alpha, f"detector {use}"
        self._reference = value_sha256(sketch)
        self._scores = DriftScores(sketch, candidates=candidates)
        references = {name: counts for name, counts in self._scores.references.items() if sum(counts)}
        self._streams: dict[str, Detector] = {
            name: open_detector(use, counts, alpha=alpha / len(references), seed=seed)
            for name, counts in references.items()
        }
        for one in self._streams.values():
            if not (one.any_time or one.is_heuristic):
                raise InvalidInput(
                    f"--detector must be one that may be looked at any time, got {use!r}, whose alpha "
                    "holds at one look. `jettison drift` looks once; page_hinkley is for any time."
                )

    def take(self, news: News) -> None:
        for name, bins in self._scores.of(news).streams.items():
            if name in self._streams:
                self._streams[name].update(bins)

    @property
    def _promise(self) -> str:
        is_heuristic = any(one.is_heuristic for one in self._streams.values())
        return (
            "a heuristic: false alarms come" if is_heuristic else f"at alpha {self.alpha:g} over all looks"
        )

    def alerts(self, now: float) -> tuple[Alert, ...]:
        alarmed = [one for one in self.status() if one.reading.alarm]
        if not alarmed:
            return ()
        streams = ", ".join(one.stream for one in alarmed)
        return (
            Alert(
                name="drift_detector",
                subject=f"{self.use}: {alarmed[0].stream}",
                severity="warning",
                message=f"{self.use} alarms on {streams} ({self._promise})",
                time=now,
                evidence={"streams": msgspec.to_builtins(alarmed), "alpha": self.alpha},
            ),
        )

    def status(self) -> tuple[DetectorReading, ...]:
        """Those that alarm first, then by name."""
        found = [DetectorReading(stream=name, reading=one.reading()) for name, one in self._streams.items()]
        return tuple(sorted(found, key=lambda one: (not one.reading.alarm, one.stream)))

    def lines(self) -> list[str]:
        alarmed = [one.stream for one in self.status() if one.reading.alarm]
        verdict = f"DRIFT on {', '.join(alarmed)}" if alarmed else "NONE"
        return [f"{self.name}: {verdict}. {self._promise}"]

    def state(self) -> dict[str, Any]:
        return {
            "use": self.use,
            "reference": self._reference,
            "alpha": self.alpha,
            "streams": {name: one.state() for name, one in self._streams.items()},
        }

    def restore(self, state: dict[str, Any]) -> bool:
        kept = (state["use"], state["reference"], state["alpha"], set(state["streams"]))
        if kept != (self.use, self._reference, self.alpha, set(self._streams)):
            return False
        made = registry.load("detectors", self.use)
        self._streams = {name: made.from_state(one) for name, one in state["streams"].items()}
        return True
