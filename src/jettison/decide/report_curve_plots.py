"""Reliability and risk-coverage as small pictures: inline SVG, one of each a candidate."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from jettison.decide.report_evidence import BinOfAnswers, KeptAnswers
from jettison.decide.report_shapes import nice_step

WIDTH, HEIGHT = 340, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 40


class _Frame:
    """Axes in percent, with their ticks; data in 0-1."""

    def __init__(
        self, *, x: tuple[float, float], y: tuple[float, float], x_words: str, y_words: str
    ) -> None:
        self._x, self._y = x, y
        self._words = x_words, y_words

    def at(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1) = self._x, self._y
        across = _LEFT + (WIDTH - _LEFT - _RIGHT) * (x - x0) / (x1 - x0)
        up = HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (y - y0) / (y1 - y0)
        return across, up

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        return "M" + " L".join("{:.1f},{:.1f}".format(*self.at(*point)) for point in points)

    def picture(self, said: str, parts: Sequence[Markup]) -> Markup:
        left, bottom = self.at(self._x[0], self._y[0])
        right, top = self.at(self._x[1], self._y[1])
        axes: list[Markup] = []
        for tick in _ticks(*self._x):
            at = self.at(tick, self._y[0])[0]
            axes.append(_line("grid", at, top, at, bottom))
            axes.append(_text("tick", at, bottom + 15, _percent(tick), "middle"))
        for tick in _ticks(*self._y):
            at = self.at(self._x[0], tick)[1]
            axes.append(_line("grid", left, at, right, at))
            axes.append(_text("tick", left - 5, at + 4, _percent(tick), "end"))
        axes.append(_text("axis", (left + right) / 2, HEIGHT - 6, self._words[0], "middle"))
        middle = (top + bottom) / 2
        axes.append(
            Markup(
                '<text class="axis" text-anchor="middle" '
                'transform="translate(11,{:.1f}) rotate(-90)">{}</text>'
            ).format(middle, self._words[1])
        )
        return Markup(
            '<svg class="plot curve" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
        ).format(WIDTH, HEIGHT, said, Markup("").join((*axes, *parts)))


def reliability_plot(bins: Sequence[BinOfAnswers], *, css: str, name: str) -> Markup:
    """Share of right answers against confidence: on the diagonal a confidence is what it says."""
    least = min(min(b.low, b.confidence) for b in bins)
    start = max(0.0, math.floor(10 * least) / 10)
    frame = _Frame(x=(start, 1.0), y=(start, 1.0), x_words="confidence, %", y_words="right answers, %")
    parts = [_path("diagonal", frame.path([(start, start), (1.0, 1.0)]))]
    for b in bins:
        x, low = frame.at(b.confidence, b.low)
        _, high = frame.at(b.confidence, b.high)
        off = "" if b.low <= b.confidence <= b.high else " off"
        parts.append(_line(f"bar {css}{off}", x, low, x, high))
    parts.append(_path(f"line {css}", frame.path([(b.confidence, b.right_share) for b in bins])))
    for b in bins:
        x, y = frame.at(b.confidence, b.right_share)
        parts.append(Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(css, x, y))
    n_off = sum(not b.low <= b.confidence <= b.high for b in bins)
    said = (
        f"Reliability of {name}: in {len(bins)} bins of confidence, {n_off} lie off the diagonal by more "
        "than their interval"
    )
    return frame.picture(said, parts)


def risk_coverage_plot(
    points: Sequence[KeptAnswers], beside: Sequence[KeptAnswers], *, css: str, name: str, most: float
) -> Markup:
    """Share of wrong answers among the surest ones, with its interval; the incumbent's line beside it.

    Args:
        points: Of the candidate.
        beside: Of the incumbent; empty on the incumbent's own picture.
        css: Class of its color.
        name: Of the candidate.
        most: Top of the axis, one for all pictures.
    """
    frame = _Frame(x=(0.0, 1.0), y=(0.0, most), x_words="answers kept, surest first, %", y_words="wrong, %")

    def inside(values: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x, min(y, most)) for x, y in values]

    band = inside([(p.coverage, p.high) for p in points])
    band += inside([(p.coverage, p.low) for p in reversed(points)])
    parts = [_path(f"band {css}", frame.path(band) + " Z")]
    if beside:
        parts.append(_path("line incumbent", frame.path(inside([(p.coverage, p.risk) for p in beside]))))
    parts.append(_path(f"line {css}", frame.path(inside([(p.coverage, p.risk) for p in points]))))
    last = points[-1]
    said = f"Risk against coverage of {name}: {100 * last.risk:.1f} % wrong with all answers kept"
    return frame.picture(said, parts)


def top_of_risk(curves: Sequence[Sequence[KeptAnswers]]) -> float:
    """An axis on which all curves fit from a tenth of coverage on, where intervals are no longer wide."""
    seen = [p.high for points in curves for p in points if p.coverage >= 0.1]
    highest = max(seen, default=0.1)
    step = nice_step(100 * highest / 4) / 100
    return min(1.0, max(0.02, math.ceil(highest / step) * step))


def _ticks(low: float, high: float) -> list[float]:
    step = nice_step(100 * (high - low) / 5) / 100
    return [step * k for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _percent(value: float) -> str:
    return f"{100 * value:.3g}"


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
