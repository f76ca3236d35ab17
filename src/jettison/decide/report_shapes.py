"""What both pictures share: a shape a verdict, and round steps for an axis."""

import math

from markupsafe import Markup

SHAPES = {
    "incumbent": "M0,-8 L8,0 L0,8 L-8,0 Z",
    "ship": "M7,0 A7,7 0 1,1 -7,0 A7,7 0 1,1 7,0 Z",
    "block": "M-6,-6 H6 V6 H-6 Z",
    "unsure": "M0,-7.5 L7.5,6 H-7.5 Z",
}
"""Verdicts differ in shape as well as color: diamond, circle, square, triangle."""


def marker(css: str, *, title: str = "") -> Markup:
    """A verdict's shape as a small picture of its own, for legends and tables."""
    said = Markup("<title>{}</title>").format(title) if title else Markup("")
    hidden = Markup(' role="img"') if title else Markup(' aria-hidden="true"')
    return Markup('<svg class="mark" viewBox="-9 -9 18 18"{}>{}<path class="{}" d="{}"/></svg>').format(
        hidden, said, css, SHAPES[css]
    )


def nice_step(rough: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(rough, 1e-9)))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
