"""Small files beside the log that the pages show: alarms, failure modes, releases, what steers the gateway.

Each is read anew for a page, no further than a bound, and a file that cannot be read is said to be so.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from jettison.decision import Decision
from jettison.errors import JettisonError
from jettison.files import read_json
from jettison.incident import INCIDENTS_FILE, Incidents
from jettison.monitor.alerts import Alert
from jettison.monitor.audit import Audits, AuditStatus
from jettison.monitor.watch import STATE_FILE
from jettison.release import Release, open_release, read_decision

MOST_ALERT_BYTES = 512 * 1024
MOST_ALERTS = 200
MOST_FILE_BYTES = 8 * 2**20


class ModeShare(msgspec.Struct, frozen=True, kw_only=True):
    """How often something held, with its interval."""

    share: float
    low: float
    high: float
    n: int


class ShownMode(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of a failure mode in `failures.json`."""

    name: str
    title: str
    keywords: tuple[str, ...] = ()
    n: int
    share: float
    n_bad: int
    n_doubtful: int
    reasons: dict[str, int]
    trend: str
    incumbent_right: ModeShare | None = None
    lean_agrees: ModeShare | None = None
    examples: tuple[str, ...] = ()


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """`failures.json` as `jettison mine` writes it."""

    n_searched: int
    n_bad: int
    n_doubtful: int
    first: float
    last: float
    n_outside: int
    modes: tuple[ShownMode, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReleaseView:
    """A release that is served, with its proof; `problem` instead where it cannot be read."""

    name: str
    release: Release | None = None
    decision: Decision | None = None
    problem: str | None = None


def read_alerts(path: Path) -> tuple[list[Alert], str | None]:
    """The newest alerts, the newest first, and what is wrong with the file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - MOST_ALERT_BYTES))
            lines = file.read(MOST_ALERT_BYTES).splitlines()
    except FileNotFoundError:
        return [], None
    except OSError as error:
        return [], f"{path} cannot be read: {error.strerror}."
    if size > MOST_ALERT_BYTES:
        lines = lines[1:]  # the first is cut
    found: list[Alert] = []
    n_broken = 0
    for line in reversed(lines):
        try:
            found.append(msgspec.json.decode(line, type=Alert))
        except msgspec.DecodeError:
            n_broken += 1
        if len(found) == MOST_ALERTS:
            break
    return found, f"{n_broken} lines of {path} are no alerts." if n_broken else None


def read_failures(path: Path) -> tuple[Failures | None, str | None]:
    """What was mined last, and what is wrong with the file."""
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            return None, f"{path} is larger than {MOST_FILE_BYTES:,} bytes and is not read."
        return msgspec.json.decode(path.read_bytes(), type=Failures), None
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror}."
    except msgspec.DecodeError as error:
        return None, f"{path} must be what `jettison mine` wrote: {error}."


def read_release(name: str, folder: Path) -> ReleaseView:
    """A release and the decision that it rests on. Its bytes were verified when the gateway took it up."""
    try:
        release = open_release(folder.resolve(), verify=False)
        return ReleaseView(name=name, release=release, decision=read_decision(release))
    except JettisonError as error:
        return ReleaseView(name=name, problem=str(error))


def read_audits(state: Path) -> tuple[tuple[AuditStatus, ...], str | None]:
    """Where cascades stood when the watcher last saved, and what is wrong with its file."""
    path = state / STATE_FILE
    try:
        kept = msgspec.msgpack.decode(path.read_bytes(), strict=False)
        return tuple(Audits.from_state(one).status() for one in kept["audits"]), None
    except FileNotFoundError:
        return (), None
    except (
        OSError,
        msgspec.DecodeError,
        msgspec.ValidationError,
        KeyError,
        ValueError,
        TypeError,
    ) as error:
        return (), f"{path} cannot be read: {error}."


def read_incidents(state: Path) -> tuple[Incidents | None, str | None]:
    """What the watcher counted over the whole log, and what is wrong with its file."""
    path = state / INCIDENTS_FILE
    if not path.exists():
        return None, None
    try:
        return read_json(path, Incidents), None
    except JettisonError as error:
        return None, str(error)
