"""When requests arrive: drawn or read before the run, so that no slow answer delays the next question."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from jettison.errors import InvalidInput
from jettison.files import decode_json

MOST_REQUESTS = 5_000_000
_FIELDS = ("due_s", "time", "timestamp", "created")


def poisson_schedule(rate_per_s: float, duration_s: float, *, rng: np.random.Generator) -> list[float]:
    """Draw arrivals of independent users: exponential gaps.

    Args:
        rate_per_s: Mean arrivals a second, above 0.
        duration_s: Length of the schedule, above 0.
        rng: The same state draws the same arrivals.

    Returns:
        Seconds from the start, ascending, shape (n,); at least one.

    Raises:
        InvalidInput: The rate or the length is not above 0, or they give over five million requests.
    """
    if not 0 < rate_per_s < np.inf or not 0 < duration_s < np.inf:
        raise InvalidInput(
            f"the rate and the duration must be above 0, got {rate_per_s} per second and {duration_s} s."
        )
    if rate_per_s * duration_s > MOST_REQUESTS:
        raise InvalidInput(
            f"a run must hold {MOST_REQUESTS:,} requests at most, got {rate_per_s:g} per second for "
            f"{duration_s:g} s. Ask for less of either."
        )
    expected = rate_per_s * duration_s
    n = int(expected + 6 * np.sqrt(expected) + 10)
    due = np.cumsum(rng.exponential(1 / rate_per_s, n))
    kept: list[float] = due[due < duration_s].tolist()
    return kept or [0.0]


def read_trace(path: Path) -> list[float]:
    """Read arrivals: one a line, as seconds or ISO time, or JSON lines with one of them.

    JSON lines may name it `due_s`, `time`, `timestamp` or `created`.

    Returns:
        Seconds from the first arrival, ascending, shape (n,).

    Raises:
        InvalidInput: It is not readable, holds no arrival, or one comes before the one above it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"a trace must be a readable UTF-8 file, got {path}: {error}.") from error
    moments: list[float] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and line.strip() in _FIELDS):
            continue
        moments.append(_moment(line.strip(), path, number))
        if len(moments) > 1 and moments[-1] < moments[-2]:
            raise InvalidInput(
                f"arrivals of a trace must not go back in time, got a gap of "
                f"{moments[-1] - moments[-2]:g} s at line {number} of {path}. Sort it by time."
            )
        if len(moments) > MOST_REQUESTS:
            raise InvalidInput(f"a trace must hold {MOST_REQUESTS:,} arrivals at most, got more in {path}.")
    if not moments:
        raise InvalidInput(f"a trace must hold at least one arrival, got none in {path}.")
    return [moment - moments[0] for moment in moments]


def cut_trace(due_s: Sequence[float], n_blocks: int) -> list[list[float]]:
    """Cut a trace into blocks of equal length in time, each from 0; one without arrivals is left out."""
    length_s = max(due_s[-1], 1e-9) / n_blocks
    blocks: list[list[float]] = [[] for _ in range(n_blocks)]
    for due in due_s:
        index = min(n_blocks - 1, int(due / length_s))
        blocks[index].append(float(due - index * length_s))
    return [block for block in blocks if block]


def _moment(text: str, path: Path, number: int) -> float:
    value: object = text
    if text.startswith("{"):
        try:
            row = decode_json(text, dict[str, object])
        except msgspec.DecodeError as error:
            raise InvalidInput(
                f"{path} must hold one JSON object a line, got none at line {number}: {error}."
            ) from error
        value = next((row[name] for name in _FIELDS if name in row), None)
    try:
        found = float(value) if isinstance(value, str | int | float) else np.nan
    except ValueError:
        try:
            found = datetime.fromisoformat(str(value)).timestamp()
        except ValueError:
            found = np.nan
    if not np.isfinite(found):
        raise InvalidInput(
            f"an arrival must be seconds or an ISO time (in JSON under one of {list(_FIELDS)}), "
            f"got {text[:60]!r} at line {number} of {path}."
        )
    return found
