"""Each slice's difference against its margin: one row a slice, inline SVG that fits any width."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from jettison.decide import report_words as words
from jettison.decide.report_shapes import SHAPES, nice_step
from jettison.decision import GateResult, Interval

MARGINS_SHOWN = 4
"""How many margins to either side of zero a forest plot shows."""


def forest_axis(results: Sequence[GateResult]) -> "ForestAxis | None":
    """An axis that holds zero, every margin and interval, but for losses of many margins.

    Those are drawn as arrows: an axis that held them would press together what is close.
    """
    drawn = [result for result in results if result.difference is not None]
    if not drawn:
        return None
    ends = [end for r in drawn if r.difference for end in (r.difference.low, r.difference.high)]
    widest = max(result.limit for result in drawn)
    low = min(-1.2 * widest, max(min(ends), -MARGINS_SHOWN * widest))
    high = max(0.5 * widest, min(max(ends), MARGINS_SHOWN * widest))
    pad = 0.06 * (high - low)
    return ForestAxis(low - pad, high + pad)


def interval_axis(intervals: Sequence[Interval | None]) -> "ForestAxis | None":
    """An axis for differences without a margin: all estimates, and intervals where they are near."""
    drawn = [one for one in intervals if one is not None]
    if not drawn:
        return None
    widest = 1.5 * max(0.02, *(abs(one.value) for one in drawn))
    low = min(-0.01, max(min(one.low for one in drawn), -widest))
    high = max(0.01, min(max(one.high for one in drawn), widest))
    pad = 0.06 * (high - low)
    return ForestAxis(low - pad, high + pad)


class ForestAxis:
    """Draws one row of a forest plot at any width: places are shares of the row."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        step = nice_step((high - low) * 100 / 5) / 100
        first, last = math.ceil(low / step), math.floor(high / step)
        self.ticks = [step * k for k in range(first, last + 1)]

    def row(self, result: GateResult) -> Markup:
        """Zero line, margin, interval and estimate of one gate."""
        css = words.VERDICT_CLASSES[result.verdict]
        said = f"difference {words.points_interval(result.difference)}, margin {words.limit_words(result)}"
        return self._drawn(result.difference, css, said, margin=result.limit)

    def interval(self, difference: Interval | None) -> Markup:
        """Zero line, interval and estimate of a difference that no gate is on."""
        css = "unsure"
        if difference is not None and (difference.high < 0 or difference.low > 0):
            css = "block" if difference.high < 0 else "ship"
        return self._drawn(difference, css, f"difference {words.points_interval(difference)}", margin=None)

    def _drawn(self, difference: Interval | None, css: str, said: str, *, margin: float | None) -> Markup:
        parts = [self._vertical("zero", 0.0)]
        parts += [] if margin is None else [self._vertical("margin", -margin)]
        if difference is not None:
            low, high = self._place(difference.low), self._place(difference.high)
            parts.append(
                Markup('<line class="whisker {}" x1="{:.2f}%" x2="{:.2f}%" y1="50%" y2="50%"/>').format(
                    css, min(max(0.0, low), 97.0), max(min(100.0, high), 3.0)
                )
            )
            parts += [self._arrow(css, 0, "M5,-5 L0,0 L5,5")] if low < 0 else []
            parts += [self._arrow(css, 100, "M-5,-5 L0,0 L-5,5")] if high > 100 else []
            if 0 <= self._place(difference.value) <= 100:
                parts.append(self._mark(css, difference.value))
        return Markup('<svg class="forest" role="img" aria-label="{}">{}</svg>').format(
            said, Markup("").join(parts)
        )

    def scale(self) -> Markup:
        """The ticks under all rows, in points."""
        texts = [
            Markup('<text x="{:.2f}%" y="14" text-anchor="middle">{}</text>').format(
                self._place(tick), words.points(tick).removesuffix(".0")
            )
            for tick in self.ticks
        ]
        return Markup('<svg class="forest scale" aria-hidden="true">{}</svg>').format(
            Markup("").join(texts)
        )

    def _arrow(self, css: str, place: int, path: str) -> Markup:
        return Markup(
            '<svg x="{}%" y="50%" overflow="visible"><path class="whisker {} beyond" d="{}"/></svg>'
        ).format(place, css, path)

    def _mark(self, css: str, value: float) -> Markup:
        return Markup('<svg x="{:.2f}%" y="50%" overflow="visible"><path class="{}" d="{}"/></svg>').format(
            self._place(value), css, SHAPES[css]
        )

    def _vertical(self, css: str, value: float) -> Markup:
        place = self._place(value)
        return Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="0" y2="100%"/>').format(
            css, place, place
        )

    def _place(self, value: float) -> float:
        return 100 * (value - self._low) / (self._high - self._low)
