"""Charts over time as inline SVG, made here: no script, no style of their own, colors by class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

WIDTH, HEIGHT = 480, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 10, 26


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line over time, perhaps with a band around it; a None is a gap."""

    name: str
    css: str
    times: Sequence[float]
    values: Sequence[float | None]
    lows: Sequence[float | None] = ()
    highs: Sequence[float | None] = ()


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One layer of stacked bars, a value for each time."""

    name: str
    css: str
    values: Sequence[float]


class _Frame:
    """Where data lies in the picture."""

    def __init__(self, *, x: tuple[float, float], y: tuple[float, float], kind: str) -> None:
        self._x = (x[0], x[1] if x[1] > x[0] else x[0] + 60)
        self._y = (y[0], y[1] if y[1] > y[0] else y[0] + 1)
        self._kind = kind

    def across(self, time: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (time - self._x[0]) / (self._x[1] - self._x[0])

    def up(self, value: float) -> float:
        inside = min(max(value, self._y[0]), self._y[1])
        share = (inside - self._y[0]) / (self._y[1] - self._y[0])
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share

    def picture(self, said: str, parts: Sequence[Markup]) -> Markup:
        axes: list[Markup] = []
        for tick in value_ticks(*self._y):
            at = self.up(tick)
            axes.append(_line("grid", _LEFT, at, WIDTH - _RIGHT, at))
            axes.append(_text("tick", _LEFT - 6, at + 4, figure(tick, self._kind), "end"))
        for time, words in time_ticks(*self._x):
            at = self.across(time)
            axes.append(_line("grid", at, HEIGHT - _BOTTOM, at, HEIGHT - _BOTTOM + 4))
            room = 3.4 * len(words)  # half of it: near an end the words would be cut
            axes.append(_text("tick", min(max(at, room), WIDTH - room), HEIGHT - 8, words, "middle"))
        axes.append(_line("base", _LEFT, HEIGHT - _BOTTOM, WIDTH - _RIGHT, HEIGHT - _BOTTOM))
        return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            WIDTH, HEIGHT, said, Markup("").join((*axes, *parts))
        )


def line_plot(
    lines: Sequence[Line],
    *,
    said: str,
    kind: str,
    limit: float | None = None,
    span: tuple[float, float] | None = None,
    zero: bool = False,
) -> Markup:
    """Lines over time.

    Args:
        lines: At least one value in all.
        said: What a screen reader says.
        kind: Of the values: `share`, `points` (of a difference), `relative`, `seconds`, `usd` or `count`.
        limit: Drawn as a dashed line.
        span: Of the time axis; None fits it.
        zero: Whether the axis begins at 0.
    """
    times = [time for line in lines for time in line.times]
    values = [v for line in lines for v in (*line.values, *line.lows, *line.highs) if v is not None]
    if not times or not values:
        return Markup("")
    values += [] if limit is None else [limit]
    low, high = (0.0 if zero else min(values)), max(values)
    room = 0.06 * (high - low or abs(high) or 1.0)
    bottom = low if zero else low - room
    if kind == "share":
        bottom, high = max(0.0, bottom), min(1.0, high)
    top = min(1.0, high + room) if kind == "share" else high + room
    frame = _Frame(x=span or (min(times), max(times)), y=(bottom, top), kind=kind)
    parts: list[Markup] = []
    for line in lines:
        if line.lows:
            parts.append(_band(frame, line))
    if limit is not None:
        at = frame.up(limit)
        parts.append(_line("limit", _LEFT, at, WIDTH - _RIGHT, at))
    for line in lines:
        for run in _runs(line.times, line.values):
            points = [(frame.across(time), frame.up(value)) for time, value in run]
            if len(points) == 1:
                parts.append(_dot(line.css, *points[0]))
            else:
                parts.append(_path(f"line {line.css}", _d(points)))
    return frame.picture(said, parts)


def bar_plot(times: Sequence[float], layers: Sequence[Bars], *, width_s: float, said: str) -> Markup:
    """Stacked counts over time; times are the bars' left ends."""
    if not times or not layers:
        return Markup("")
    tops = [sum(layer.values[i] for layer in layers) for i in range(len(times))]
    frame = _Frame(x=(times[0], times[-1] + width_s), y=(0.0, max(tops) * 1.06 or 1.0), kind="count")
    parts: list[Markup] = []
    below = [0.0] * len(times)
    for layer in layers:
        boxes: list[str] = []
        for i, value in enumerate(layer.values):
            if value:
                left, right = frame.across(times[i]), frame.across(times[i] + width_s)
                top, base = frame.up(below[i] + value), frame.up(below[i])
                gap = min(1.0, (right - left) / 5)
                boxes.append(
                    f"M{left:.1f},{base:.1f}V{top:.1f}H{max(right - gap, left + 0.5):.1f}V{base:.1f}Z"
                )
                below[i] += value
        if boxes:
            parts.append(_path(f"fill {layer.css}", "".join(boxes)))
    return frame.picture(said, parts)


def figure(value: float | None, kind: str) -> str:
    """A number as people read it; a dash where it is not known."""
    if value is None:
        return "–"
    if kind in ("share", "relative", "points"):
        sign = "" if kind == "share" else "+"
        unit = "pt" if kind == "points" else "%"
        return f"{100 * value:{sign}.{0 if abs(value) >= 0.9995 or value == 0 else 1}f} {unit}"
    if kind == "seconds":
        return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.3g} ms"
    if kind == "usd":
        return f"${value:.3g}"
    if kind == "joules":
        return f"{value:.3g} J"
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:.2g}"


def value_ticks(low: float, high: float) -> list[float]:
    """Round values, about four of them."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(max(rough, 1e-12)))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [step * k for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


_STEPS = (
    (60, "%H:%M"), (300, "%H:%M"), (600, "%H:%M"), (1800, "%H:%M"), (3600, "%H:%M"), (3 * 3600, "%H:%M"),
    (6 * 3600, "%d %b %H h"), (86400, "%d %b"), (2 * 86400, "%d %b"), (7 * 86400, "%d %b"),
)  # fmt: skip


def time_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round times in UTC, at most six of them."""
    if high - low < 240:
        step, pattern = max(10.0, 10.0 * math.ceil((high - low) / 50)), "%H:%M:%S"
    else:
        step, pattern = next(((s, p) for s, p in _STEPS if (high - low) / s <= 6), (30 * 86400, "%d %b"))
    first = math.ceil(low / step)
    ticks = [step * k for k in range(first, math.floor(high / step) + 1)]
    return [(at, datetime.fromtimestamp(at, UTC).strftime(pattern)) for at in ticks[:8]]


def _runs(times: Sequence[float], values: Sequence[float | None]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for time, value in zip(times, values, strict=True):
        if value is None or not math.isfinite(value):
            runs.append([])
        else:
            runs[-1].append((time, value))
    return [run for run in runs if run]


def _band(frame: _Frame, line: Line) -> Markup:
    kept = [
        (time, low, high)
        for time, low, high in zip(line.times, line.lows, line.highs, strict=True)
        if low is not None and high is not None
    ]
    if len(kept) < 2:
        return Markup("")
    points = [(frame.across(time), frame.up(high)) for time, _, high in kept]
    points += [(frame.across(time), frame.up(low)) for time, low, _ in reversed(kept)]
    return _path(f"band {line.css}", _d(points) + "Z")


def _d(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _line(css: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        css, x1, y1, x2, y2
    )


def _text(css: str, x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        css, x, y, anchor, words
    )


def _path(css: str, d: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(css, d)


def _dot(css: str, x: float, y: float) -> Markup:
    return Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(css, x, y)
