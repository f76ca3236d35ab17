"""Figures as people read them."""

from typing import Literal

from jettison.decision import ratio_figure

ROLE_WORDS = {"fallback": "second nominee"}
"""A role as people read it where its name says something else: an arm of a cascade is a fallback, too."""
MOST_MORE = 100_000
MOST_MORE_TIMES = 20
"""More examples than this many, and than so many times those there are, nobody will label."""
NONE_REALISTIC = "no realistic number of examples would settle it"
TOO_NEAR = f"the loss lies so near the margin that {NONE_REALISTIC}"


def share(value: float, form: Literal["plain", "point", "signed"] = "plain") -> str:
    """A score in 0-1 as percent, or a difference of scores in points."""
    if form == "plain":
        return f"{100 * value:.1f} %"
    if form == "signed":
        return f"{100 * value:+.2f}"
    points = f"{100 * value:.3g}"
    return f"{points} point" if points == "1" else f"{points} points"


def signed(value: float, low: float, high: float) -> str:
    """A difference of scores with its interval, in points."""
    return f"{share(value, 'signed')} ({share(low, 'signed')} to {share(high, 'signed')})"


def figure(value: float) -> str:
    """Three significant digits, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def count(n: int, thing: str) -> str:
    """`1 example`, `1,200 examples`."""
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def about(n: int, thing: str) -> str:
    """`1 example`, `420 examples`, `12,000 examples`: an estimate, to two digits from a thousand on."""
    return count(n if n < 1000 else int(float(f"{n:.2g}")), thing)


def is_realistic(n_more: int, n: int) -> bool:
    """Whether somebody who has n examples may be asked for so many more."""
    return n_more <= max(MOST_MORE, MOST_MORE_TIMES * n)


def on_slice(name: str) -> str:
    """Start of a sentence about a slice."""
    return "On all examples" if name == "all" else f"On {name}"


def in_units(cost: str, value: float) -> str:
    """A cost with its unit, which ends its name."""
    if cost.endswith("_ratio"):
        return ratio_figure(value)
    if cost.endswith("bytes"):
        return f"{figure(value / 1e6)} MB"
    if cost.startswith("usd"):
        return f"{figure(value)} USD"
    if cost.endswith("_s"):
        return f"{figure(value * 1000)} ms" if value < 1 else f"{figure(value)} s"
    if cost.endswith("_j"):
        return f"{figure(value)} J"
    return figure(value)
