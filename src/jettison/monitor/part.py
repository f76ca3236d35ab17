"""What a watcher can be given to watch besides experiments and audits: drift, SLOs, incidents, quality."""

from typing import Any, Protocol

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
