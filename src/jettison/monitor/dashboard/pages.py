"""The pages: a path in, HTML out. Everything that came from traffic is escaped by the templates."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined

from jettison.errors import JettisonError
from jettison.monitor.dashboard import safety, views
from jettison.monitor.dashboard.board import Board
from jettison.monitor.dashboard.plots import figure
from jettison.monitor.dashboard.sources import (
    read_alerts,
    read_audits,
    read_failures,
    read_incidents,
    read_release,
)
from jettison.monitor.steer import read_control

HTML = "text/html; charset=utf-8"
WAIT_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Page:
    """What is sent."""

    status: int
    type: str
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the small files lie."""

    state: Path
    releases: dict[str, Path]
    alerts: Path
    mined: Path


class Pages:
    """Makes a page of what the board knows and the files say.

    Args:
        board: Reads the log.
        places: Where the files are.
        clock: Seconds since the epoch.
    """

    def __init__(self, board: Board, places: Places, *, clock: Callable[[], float] = time.time) -> None:
        self._board, self._places, self._clock = board, places, clock
        self._templates = Environment(
            loader=PackageLoader("jettison.monitor.dashboard", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update(when=when, clock=clock_of, fig=figure)
        self._makers: dict[str, Callable[[dict[str, list[str]]], dict[str, Any]]] = {
            "/ui": self._overview,
            "/ui/experiments": self._experiments,
            "/ui/safety": self._safety,
            "/ui/drift": self._drift,
            "/ui/failures": self._failures,
            "/ui/releases": self._releases,
            "/ui/alarms": self._alarms,
        }

    def page(self, path: str, query: str = "") -> Page:
        """The page at a path; `query` is what stands behind its question mark."""
        path = path.rstrip("/")
        maker = self._makers.get(path)
        if maker is None:
            return self._made(404, "missing.html", {"title": "Not here"}, path)
        if not self._board.lock.acquire(timeout=WAIT_S):
            return self._made(200, "reading.html", {"title": "Reading"}, path)
        try:
            view = maker(parse_qs(query, max_num_fields=8))
        finally:
            self._board.lock.release()
        name = path.removeprefix("/ui").strip("/") or "overview"
        return self._made(200, f"{name}.html", view, path)

    def _made(self, status: int, template: str, view: dict[str, Any], path: str) -> Page:
        board = self._board
        common = {
            "path": path,
            "problem": board.problem,
            "read_at": board.read_at,
            "n_records": board.n_records,
            "skips": board.skips,
            "first_time": board.first_time,
            "last_time": board.last_time,
            "state": self._places.state.name,
        }
        html = self._templates.get_template(template).render({**common, **view})
        return Page(status=status, type=HTML, body=html.encode("utf-8", "replace"))

    def _overview(self, query: dict[str, list[str]]) -> dict[str, Any]:
        span = query.get("span", ["auto"])[0]
        alerts, _ = read_alerts(self._places.alerts)
        return {
            "title": "Overview",
            **views.overview(self._board, span),
            "alerts": alerts[:5],
            "running": [t for t in views.trials(self._board) if t["is_running"]],
            "control": self._control(),
        }

    def _control(self) -> Any:
        try:
            return read_control(self._places.state)
        except JettisonError:
            return None

    def _experiments(self, query: dict[str, list[str]]) -> dict[str, Any]:
        audits, problem = read_audits(self._places.state)
        return {
            "title": "Experiments",
            "trials": views.trials(self._board),
            "audits": audits,
            "audit_problem": problem,
        }

    def _safety(self, query: dict[str, list[str]]) -> dict[str, Any]:
        counted, problem = read_incidents(self._places.state)
        counts = counted.counts if counted is not None else self._board.incidents.status()
        return {
            "title": "Safety",
            "incidents": [safety.incident_row(one) for one in counts[: safety.MOST_ROWS]],
            "counted": counted.time if counted is not None else None,
            "file_problem": problem,
            "qualities": [safety.quality_row(one) for one in self._board.estimates.status()],
        }

    def _drift(self, query: dict[str, list[str]]) -> dict[str, Any]:
        board = self._board
        streams = board.drift_status()
        reading = board.drift.reading() if board.drift is not None and streams else None
        return {
            "title": "Drift",
            "streams": [views.stream(one) for one in streams[:60]],
            "reading": reading,
            "changes": [views.change(one) for one in board.drift_changes()],
            "drift_problem": board.drift_problem,
        }

    def _failures(self, query: dict[str, list[str]]) -> dict[str, Any]:
        found, problem = read_failures(self._places.mined / "failures.json")
        return {
            "title": "Failure modes",
            "found": found,
            "file_problem": problem,
            "mined": f"{self._places.state.name}/{self._places.mined.name}",
        }

    def _releases(self, query: dict[str, list[str]]) -> dict[str, Any]:
        shown = [read_release(name, folder) for name, folder in sorted(self._places.releases.items())]
        return {"title": "Releases", "releases": [views.release(one) for one in shown]}

    def _alarms(self, query: dict[str, list[str]]) -> dict[str, Any]:
        alerts, problem = read_alerts(self._places.alerts)
        return {"title": "Alarms", "alerts": alerts, "file_problem": problem}


def when(seconds: float | None) -> str:
    """A time in UTC; a dash where it is not known."""
    if seconds is None:
        return "–"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock_of(seconds: float | None) -> str:
    """The same without the day."""
    return "–" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S")
