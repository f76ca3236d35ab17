"""Tells people: an alert with its evidence goes to a file, a webhook or Alertmanager, once."""

import json
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from jettison.errors import InvalidInput
from jettison.files import said_when_unwritable

TIMEOUT_S = 5.0
REPEAT_S = 4 * 3600.0
"""After so long an alert that still holds is told again."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person should know now."""

    name: str
    """What kind: `experiment_rolled_back`, `threshold_broken` and so on."""
    subject: str
    """What it is about: an experiment, or a place in the route plan."""
    severity: Literal["critical", "warning", "info"]
    message: str
    """One sentence with the figures it rests on."""
    time: float
    """Seconds since the epoch."""
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)


class Sink(Protocol):
    """Where alerts go."""

    def send(self, alert: Alert) -> None:
        """Deliver one; raise OSError when it cannot be."""


class FileSink:
    """One line of JSON an alert, appended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def send(self, alert: Alert) -> None:
        with said_when_unwritable(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(msgspec.json.encode(alert) + b"\n")


class WebhookSink:
    """POST of the alert as JSON, with `text` for chat tools that read that alone."""

    def __init__(self, url: str) -> None:
        self.url = _checked(url)

    def send(self, alert: Alert) -> None:
        text = f"[{alert.severity}] {alert.name} {alert.subject}: {alert.message}"
        _post(self.url, {**msgspec.to_builtins(alert), "text": text})


class AlertmanagerSink:
    """Prometheus Alertmanager, API version 2."""

    def __init__(self, url: str) -> None:
        self.url = _checked(url).rstrip("/") + "/api/v2/alerts"

    def send(self, alert: Alert) -> None:
        started = datetime.fromtimestamp(alert.time, UTC).isoformat()
        labels = {"alertname": alert.name, "subject": alert.subject or "/", "severity": alert.severity}
        notes = {"summary": alert.message, "evidence": json.dumps(alert.evidence, default=str)}
        _post(self.url, [{"labels": labels, "annotations": notes, "startsAt": started}])


class Alerts:
    """Sends each alert to every sink, and the same one again only after a while.

    Args:
        sinks: Where to.
        repeat_s: Seconds after which one that still holds is told again.
        told: When each was last told, from `state` of an earlier process.
    """

    def __init__(
        self,
        sinks: tuple[Sink, ...],
        *,
        repeat_s: float = REPEAT_S,
        told: Mapping[str, float] | None = None,
    ) -> None:
        self.sinks, self.repeat_s = sinks, repeat_s
        self._told = dict(told or {})
        self._unsent: list[tuple[Sink, Alert]] = []
        self.n_failed = 0
        """Deliveries that failed so far; each is tried again at the next alert or `retry`."""

    def tell(self, alert: Alert) -> bool:
        """Send it unless it was told lately; whether it was sent."""
        key = f"{alert.name}\n{alert.subject}\n{alert.severity}"
        last = self._told.get(key)
        if last is not None and alert.time - last < self.repeat_s:
            return False
        self._told[key] = alert.time
        self._unsent += [(sink, alert) for sink in self.sinks]
        self.retry()
        return True

    def retry(self) -> None:
        """Try again what could not be delivered; the newest 1,000 wait."""
        waiting, self._unsent = self._unsent[-1000:], []
        for sink, alert in waiting:
            try:
                sink.send(alert)
            except OSError:
                self.n_failed += 1
                self._unsent.append((sink, alert))

    def state(self) -> dict[str, float]:
        """When each alert was last told."""
        return dict(self._told)


def sink_from(text: str) -> Sink:
    """A sink as the command line writes it: `alertmanager+URL`, a URL (webhook) or a file.

    Raises:
        InvalidInput: An address is not http or https.
    """
    if text.startswith("alertmanager+"):
        return AlertmanagerSink(text.removeprefix("alertmanager+"))
    return WebhookSink(text) if "://" in text else FileSink(Path(text))


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(
            f"an alert's address must be http:// or https://, got {parts.scheme}://{parts.hostname or ''}."
        )
    return url


def _post(url: str, content: Any) -> None:
    body = json.dumps(content, default=str).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"}, method="POST")
    # HTTPError and URLError are OSErrors: whatever goes wrong, the alert waits and is sent again.
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        reply.read(1 << 16)
