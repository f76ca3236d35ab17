"""Pictures of a run under load, as inline SVG: distributions of latency, and latency against rate."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from jettison.cost.load_types import LoadReport, RatePoint
from jettison.decide import report_words as words
from jettison.decision import CDF_SHARES

STROKES = ("", "7 4", "2 3", "9 3 2 3", "1 5")
"""Targets differ in dash as well as color."""
COLORS = ("--incumbent", "--line-2", "--line-3", "--line-4", "--soft")
"""The first is what runs today, in its color; none of the others is the color of a verdict."""
_MEDIAN = CDF_SHARES.index(0.5)
_SHARES = (0.01, 0.5, 0.9, 0.95, 0.99, 0.999)
WIDTH, HEIGHT = 960, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, WIDTH - 14.0, 14.0, HEIGHT - 46.0


class Distribution(NamedTuple):
    """Times of one target, as quantiles."""

    name: str
    quantiles_s: Sequence[float | None]
    """At `CDF_SHARES`, None among the failed; empty where nothing was measured."""
    n: int
    """Samples: the line ends where they do."""


def due_times(report: LoadReport) -> list[Distribution]:
    """From when each request was due."""
    return [Distribution(t.name, t.latency_quantiles_s, t.n_tasks) for t in report.targets]


def service_times(report: LoadReport) -> list[Distribution]:
    """From when each request was sent."""
    return [Distribution(t.name, t.service_quantiles_s, t.n_tasks) for t in report.targets]


def latency_cdfs(
    found: Sequence[Distribution], axis_name: str, *, beside: Sequence[Distribution] = ()
) -> Markup | None:
    """Share of requests done within a time, log time, the share stretched towards 1; None without any.

    Args:
        found: One line each; a place in the order is a color and a dash.
        axis_name: From when to when the times count.
        beside: Distributions of another picture, whose axis of times is to be the same.
    """
    shown = [(i, one) for i, one in enumerate(found) if any(q for q in one.quantiles_s)]
    if not shown:
        return None
    times = [q for one in (*found, *beside) for q in one.quantiles_s if q]
    axis = _LogAxis(min(times), max(times))
    parts = [axis.grid(f"{axis_name}, log scale")]
    for share in _SHARES:
        y = _stretched(share)
        parts += [
            _line("grid", _LEFT, y, _RIGHT, y),
            _text("tick", _LEFT - 6, y + 4, f"{100 * share:g} %", "end"),
        ]
    parts += [_path(index, _steps(one, axis)) for index, one in shown]
    said = "; ".join(f"{one.name}: median {words.seconds(one.quantiles_s[_MEDIAN])}" for _, one in shown)
    return _svg(f"Distribution of {axis_name}. {said}", parts)


def rate_curves(report: LoadReport) -> Markup | None:
    """The SLO's percentile against the rate, one line a target; None with fewer than two points in all."""
    curves = [(i, t) for i, t in enumerate(report.targets) if t.curve]
    points = [p for _, t in curves for p in t.curve if p.tail.value_s]
    if len(points) < 2:
        return None
    limit_s = report.slo.limit_s if report.slo else None
    axis = _LogAxis(min(p.rate_per_s for p in points), max(p.rate_per_s for p in points), of_time=False)
    ends = [v for p in points for v in (p.tail.value_s, p.tail.low_s, p.tail.high_s, limit_s) if v]
    low, high = math.log10(min(ends)) - 0.1, math.log10(max(ends)) + 0.1

    def up(value_s: float) -> float:
        return _BOTTOM - (math.log10(value_s) - low) / (high - low) * (_BOTTOM - _TOP)

    percentile = f"{100 * report.slo.share:g}th percentile" if report.slo else "95th percentile"
    parts = [
        axis.grid("requests per second, log scale"),
        _text("axis", _LEFT + 4, _TOP + 6, f"↑ {percentile}, from due to done, log scale", "start"),
    ]
    for tick in _ticks(low, high):
        parts += [
            _line("grid", _LEFT, up(tick), _RIGHT, up(tick)),
            _text("tick", _LEFT - 6, up(tick) + 4, words.seconds(tick), "end"),
        ]
    if limit_s:
        parts += [
            _line("margin", _LEFT, up(limit_s), _RIGHT, up(limit_s)),
            _text(
                "margin-text", _RIGHT - 4, up(limit_s) - 5, report.slo.words if report.slo else "", "end"
            ),
        ]
    for index, target in curves:
        seen = [p for p in target.curve if p.tail.value_s]
        parts.append(_path(index, [(axis.x(p.rate_per_s), up(p.tail.value_s or 0)) for p in seen]))
        parts += [_whisker(index, p, axis.x(p.rate_per_s), up) for p in seen]
    return _svg("Latency against rate", parts)


def legend(names: Sequence[str]) -> Markup:
    """Which line is whose."""
    rows = [
        Markup(
            '<li><svg width="34" height="10" aria-hidden="true"><line x1="0" y1="5" x2="34" y2="5" '
            'stroke="var({})" stroke-width="2.5" stroke-dasharray="{}"/></svg> {}</li>'
        ).format(_color(i), _stroke(i), name)
        for i, name in enumerate(names)
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(rows))


class _LogAxis:
    """Values to pixels on a logarithmic axis from left to right."""

    def __init__(self, low: float, high: float, *, of_time: bool = True) -> None:
        pad = max(0.02, 0.03 * (math.log10(high) - math.log10(low)))
        self._low, self._high = math.log10(low) - pad, math.log10(high) + pad
        self._say = words.seconds if of_time else words.three_digits

    def x(self, value: float) -> float:
        return _LEFT + (math.log10(value) - self._low) / (self._high - self._low) * (_RIGHT - _LEFT)

    def grid(self, name: str) -> Markup:
        parts = [_text("axis", (_LEFT + _RIGHT) / 2, _BOTTOM + 36, name)]
        for tick in _ticks(self._low, self._high):
            x = self.x(tick)
            parts += [_line("grid", x, _TOP, x, _BOTTOM), _text("tick", x, _BOTTOM + 16, self._say(tick))]
        return Markup("").join(parts)


def _steps(one: Distribution, axis: _LogAxis) -> list[tuple[float, float]]:
    """Points of a line, up to the last share that so many samples can tell from the next."""
    pairs = zip(one.quantiles_s, CDF_SHARES, strict=True)
    last = 1 - 1 / max(2, one.n)
    return [(axis.x(time_s), _stretched(share)) for time_s, share in pairs if time_s and share <= last]


def _stretched(share: float) -> float:
    """Each nine as far from the last: -log10 of what is beyond, ended at 99.95 %."""
    beyond = -math.log10(max(1 - share, 5e-4))
    return _BOTTOM - beyond / -math.log10(5e-4) * (_BOTTOM - _TOP)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 in each decade; only 1 where that is many."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    every = [m * 10.0**k for k in decades for m in (1, 2, 5)]
    inside = [v for v in every if low <= math.log10(v) <= high]
    return inside if len(inside) <= 9 else [v for v in inside if str(v * 1e9)[0] == "1"]


def _whisker(index: int, point: RatePoint, x: float, up: Callable[[float], float]) -> Markup:
    """The interval of one probe and its dot: hollow where it was not shown to meet the limit."""
    color = _color(index)
    top = up(point.tail.high_s) if point.tail.high_s else _TOP
    bottom = up(point.tail.low_s or point.tail.value_s or 1)
    fill = color if point.is_met else "--paper"
    title = (
        f"{words.rate(point.rate_per_s)}: {words.seconds(point.tail.value_s)}, {point.n_tasks:,} requests"
    )
    return Markup(
        '<line x1="{x:.1f}" y1="{a:.1f}" x2="{x:.1f}" y2="{b:.1f}" stroke="var({c})" stroke-width="1.5" '
        'opacity=".6"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="var({f})" stroke="var({c})" '
        'stroke-width="2"><title>{t}</title></circle>'
    ).format(x=x, a=top, b=bottom, c=color, y=up(point.tail.value_s or 1), f=fill, t=title)


def _path(index: int, points: Sequence[tuple[float, float]]) -> Markup:
    d = " ".join(f"{'M' if i == 0 else 'L'}{x:.1f},{y:.1f}" for i, (x, y) in enumerate(points))
    return Markup(
        '<path d="{}" fill="none" stroke="var({})" stroke-width="2.5" stroke-dasharray="{}"/>'
    ).format(d, _color(index), _stroke(index))


def _color(index: int) -> str:
    return COLORS[index % len(COLORS)]


def _stroke(index: int) -> str:
    """Shifted by one each time the colors begin again: no two of the first 25 lines look alike."""
    return STROKES[(index + index // len(COLORS)) % len(STROKES)]


def _line(css: str, x0: float, y0: float, x1: float, y1: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        css, x0, y0, x1, y1
    )


def _text(css: str, x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        css, x, y, anchor, text
    )


def _svg(said: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, said, Markup("").join(parts)
    )
