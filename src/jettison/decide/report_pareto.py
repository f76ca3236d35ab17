"""Quality against cost: the Pareto picture, as inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from jettison.decide import report_words as words
from jettison.decide.pareto import mark_pareto
from jettison.decide.report_labels import Box, place_labels
from jettison.decide.report_shapes import SHAPES, nice_step
from jettison.decide.report_view import (
    contenders,
    css_of,
    incumbent_of,
    main_metric,
    result_on_all,
    score_of,
)
from jettison.decision import Decision

RING = 12
"""Radius of the ring around the chosen one."""


@dataclass(frozen=True, kw_only=True)
class _Point:
    name: str
    css: str
    cost_s: float
    score: float
    low: float | None
    high: float | None
    is_pareto: bool
    is_chosen: bool


def quality_against_cost(decision: Decision, *, width: int, height: int) -> Markup | None:
    """Score on all examples against CPU-seconds per task on a log axis; None with nothing to draw."""
    points = _points(decision)
    if len(points) < 2:
        return None
    frame = _Frame(points, width, height, margin=margin_on_all(decision))
    labels = _short([p.name for p in points], 30 if width > 500 else 20)
    boxes = place_labels(
        [frame.at(p) for p in points],
        labels,
        obstacles=[*(box for p in points for box in frame.obstacles(p)), *frame.front_boxes(points)],
        bounds=Box(frame.left, 4, frame.right, frame.bottom),
        radii=[RING if p.is_chosen else 8.0 for p in points],
    )
    parts = [
        frame.axes(words.metric_words(main_metric(decision))),
        frame.margin_line(),
        frame.front(points),
    ]
    for point, text, label in zip(points, labels, boxes, strict=True):
        parts.append(frame.draw(point))
        x, y = frame.at(point)
        if label.is_far:
            end = label.box.y1 if label.box.y1 < y else label.box.y0
            near = min(max(x, label.box.x0 + 6), label.box.x1 - 6)
            parts.append(_line("leader", x, y, near, end))
        bold = " chosen" if point.is_chosen else ""
        parts.append(
            Markup('<text class="label{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
                Markup(bold), label.x, label.box.y0 + 11.5, label.anchor, text
            )
        )
    said = "; ".join(f"{p.name}: {words.percent(p.score)} at {words.seconds(p.cost_s)}" for p in points)
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="Quality against cost. {}">{}</svg>'
    ).format(width, height, said, Markup("").join(parts))


class _Frame:
    """Turns costs and scores into pixels, and draws what lies behind the points."""

    def __init__(self, points: Sequence[_Point], width: int, height: int, margin: float | None) -> None:
        self.left, self.right, self.bottom, self._top = 52.0, width - 12.0, height - 46.0, 14.0
        costs = [math.log10(p.cost_s) for p in points]
        spread = max(0.5, max(costs) - min(costs))
        self._x0, self._x1 = min(costs) - 0.12 * spread, max(costs) + 0.12 * spread
        self._limit = None if margin is None else points[0].score - margin
        ends = [v for p in points for v in (p.score, p.low, p.high) if v is not None]
        ends += [] if self._limit is None else [self._limit]
        pad = 0.08 * max(0.01, max(ends) - min(ends))
        self._y0, self._y1 = max(0.0, min(ends) - pad), max(ends) + pad

    def at(self, point: _Point) -> tuple[float, float]:
        """Pixels of a point."""
        return self._x(point.cost_s), self._y(point.score)

    def obstacles(self, point: _Point) -> list[Box]:
        """Boxes of the marker and of the interval."""
        x, y = self.at(point)
        around = RING + 1 if point.is_chosen else 9
        boxes = [Box(x - around, y - around, x + around, y + around)]
        if point.low is not None and point.high is not None:
            boxes.append(Box(x - 3, self._y(point.high), x + 3, self._y(point.low)))
        if self._limit is not None:
            limit = self._y(self._limit)
            boxes.append(Box(self.left, limit - 2, self.right, limit + 2))
            boxes.append(Box(self.right - 170, limit + 2, self.right, limit + 17))
        return boxes

    def axes(self, metric: str) -> Markup:
        """Ticks, grid lines and the names of the axes."""
        parts = []
        for cost_s in _log_ticks(self._x0, self._x1):
            x = self._x(cost_s)
            parts.append(_line("grid", x, self._top, x, self.bottom))
            parts.append(_text("tick", x, self.bottom + 16, words.seconds(cost_s)))
        step = nice_step(100 * (self._y1 - self._y0) / 5) / 100
        for k in range(math.ceil(self._y0 / step), math.floor(min(1.0, self._y1) / step) + 1):
            y = self._y(k * step)
            parts.append(_line("grid", self.left, y, self.right, y))
            digits = max(0, math.ceil(-math.log10(100 * step) - 1e-9))  # ticks apart read apart
            parts.append(_text("tick", self.left - 6, y + 4, words.percent(k * step, digits), "end"))
        middle = (self.left + self.right) / 2
        name = "CPU time per task, log scale (left is cheaper)"
        parts.append(_text("axis", middle, self.bottom + 36, name))
        parts.append(_text("axis", self.left + 4, self._top + 6, f"↑ {metric}", "start"))
        return Markup("").join(parts)

    def margin_line(self) -> Markup:
        """Where the incumbent's score less the margin lies."""
        if self._limit is None:
            return Markup("")
        y = self._y(self._limit)
        return _line("margin", self.left, y, self.right, y) + _text(
            "margin-text", self.right - 4, y + 14, "incumbent less the margin", "end"
        )

    def front(self, points: Sequence[_Point]) -> Markup:
        """The Pareto front as steps: nothing below and right of it is worth having."""
        best = sorted((p for p in points if p.is_pareto), key=lambda p: p.cost_s)
        if len(best) < 2:
            return Markup("")
        steps = [f"M{self._x(best[0].cost_s):.1f},{self._y(best[0].score):.1f}"]
        for point in best[1:]:
            steps.append(f"H{self._x(point.cost_s):.1f} V{self._y(point.score):.1f}")
        return Markup('<path class="front" d="{}"/>').format(" ".join(steps))

    def front_boxes(self, points: Sequence[_Point]) -> list[Box]:
        """Thin boxes along the front, for labels to keep off."""
        best = [self.at(p) for p in sorted((p for p in points if p.is_pareto), key=lambda p: p.cost_s)]
        boxes = []
        for (x0, y0), (x1, y1) in pairwise(best):
            boxes.append(Box(x0, y0 - 2, x1, y0 + 2))
            boxes.append(Box(x1 - 2, min(y0, y1), x1 + 2, max(y0, y1)))
        return boxes

    def draw(self, point: _Point) -> Markup:
        """Interval, marker and, for the chosen one, a ring."""
        x, y = self.at(point)
        parts = []
        if point.low is not None and point.high is not None:
            parts.append(_line(f"whisker {point.css}", x, self._y(point.low), x, self._y(point.high)))
        if point.is_chosen:
            parts.append(Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="{}"/>').format(x, y, RING))
        title = f"{point.name}: {words.percent(point.score)} at {words.seconds(point.cost_s)} CPU per task"
        parts.append(
            Markup(
                '<path class="{}" transform="translate({:.1f},{:.1f})" d="{}"><title>{}</title></path>'
            ).format(point.css, x, y, SHAPES[point.css], title)
        )
        return Markup("").join(parts)

    def _x(self, cost_s: float) -> float:
        share = (math.log10(cost_s) - self._x0) / (self._x1 - self._x0)
        return self.left + share * (self.right - self.left)

    def _y(self, score: float) -> float:
        return self.bottom - (score - self._y0) / (self._y1 - self._y0) * (self.bottom - self._top)


def _points(decision: Decision) -> list[_Point]:
    """The incumbent first, then every candidate with a score and a CPU cost above zero."""
    metric = main_metric(decision)
    # Of a decision of before 2026-11-28 the marks are of one slice: they are read off what is drawn here.
    best = {c.name for c in mark_pareto(decision.candidates, scorer=metric) if c.pareto}
    incumbent = incumbent_of(decision)
    base = score_of(incumbent, metric)
    found = []
    for candidate in (incumbent, *contenders(decision)):
        score, cpu = score_of(candidate, metric), candidate.cost.cpu_s
        if score is None or cpu is None or cpu.value <= 0:
            continue
        # A bar around the score on all examples must be of all examples.
        result = result_on_all(candidate, metric)
        difference = result.difference if result is not None else None
        is_known = candidate is not incumbent and difference is not None and base is not None
        found.append(
            _Point(
                name=candidate.name,
                css=css_of(candidate, decision),
                cost_s=cpu.value,
                score=score,
                low=base + difference.low if is_known and base is not None and difference else None,
                high=base + difference.high if is_known and base is not None and difference else None,
                is_pareto=candidate.name in best,
                is_chosen=candidate.name == decision.chosen,
            )
        )
    return found if found and found[0].name == incumbent.name else []


def margin_on_all(decision: Decision) -> float | None:
    """The margin of the gate on all examples, which the picture draws; None where there is none."""
    metric = main_metric(decision)
    results = [result_on_all(c, metric) for c in contenders(decision)]
    return next((r.limit for r in results if r is not None), None)


def _short(names: Sequence[str], longest: int) -> list[str]:
    """Names cut in the middle where they are too long to stand beside a point."""
    keep = (longest - 1) // 2
    return [n if len(n) <= longest else f"{n[:keep]}…{n[-keep:]}" for n in names]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 in each decade; only 1 when that would be many."""
    every = [m * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    inside = [v for v in every if low <= math.log10(v) <= high]
    tens = [v for v in inside if math.isclose(math.log10(v), round(math.log10(v)), abs_tol=1e-9)]
    return inside if len(inside) <= 6 or len(tens) < 2 else tens


def _line(css: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        css, x1, y1, x2, y2
    )


def _text(css: str, x: float, y: float, text: str, anchor: str = "middle") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        css, x, y, anchor, escape(text)
    )
