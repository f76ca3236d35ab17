"""What a watcher can be given to watch besides experiments and audits: drift, SLOs, incidents, quality."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jettison.monitor.alerts import Alert
from jettison.monitor.log import News


class Part(Protocol):
    """Takes the log in and says what a person should know."""

    name: str
    """Unique in one watcher; `state` is kept under it."""

    def take(self, news: News) -> None:
        """Take in the next part of the log; its bounds may fall anywhere."""

    def alerts(self, now: float) -> tuple[Alert, ...]:
        """What holds now and should be told; telling it once is the watcher's task."""

    def status(self) -> Any:
        """Figures for `--json`: records, or tuples of them."""

    def lines(self) -> list[str]:
        """The same in words."""

    def state(self) -> dict[str, Any]:
        """Everything it knows, JSON-like."""

    def restore(self, state: dict[str, Any]) -> bool:
        """Go on where `state` was taken; False, with nothing changed, where it is of another plan."""


@runtime_checkable
class Published(Protocol):
    """A part that leaves a file beside the log for others to read."""

    def publish(self, state: Path) -> None:
        """Write it into the gateway's state folder, where it changed."""
