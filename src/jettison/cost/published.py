"""Where a figure falls among published ones of the same functional unit and boundary, or why it does not.

The table is dated and bundled; a figure is held only against rows of its own functional unit and
boundary, and only where it was measured: an estimate compares on one machine, with nothing else.
"""

import csv
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import msgspec

FUNCTIONAL_UNITS = {
    "classify": "classified text",
    "choose": "chosen answer",
    "generate": "generated text",
    "extract": "extracted record",
    "rank": "ranked list",
    "embed": "searched query",
}
"""What one task is, by the kind of the task."""
COMPARES = ("M1", "M2")
"""Tiers that may be held against another machine's figures."""
TOKEN = "output token"


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """One published figure, or the range of one model's."""

    name: str
    quantity: str
    """`energy_j` or `co2e_g`."""
    low: float
    high: float
    functional_unit: str
    boundary: str
    operating_point: str
    source: str
    date: str


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """Joules of one task of a target, with what they are of."""

    name: str
    energy_j: float | None
    tier: str | None
    boundary: str | None
    completion_tokens: float | None = None
    """Mean per task, as the server counted them."""


@cache
def read_published() -> tuple[Published, ...]:
    """The bundled table."""
    text = (files("jettison.cost") / "published.csv").read_text(encoding="utf-8")
    return tuple(msgspec.convert(row, Published, strict=False) for row in csv.DictReader(text.splitlines()))


def contexts(figures: Sequence[Figure], kind: str | None) -> tuple[str, ...]:
    """Where the joules of each target fall, one sentence for all that share it.

    Args:
        figures: One a target.
        kind: Of the task: classify, generate, ...; None where it is not known what one task is.
    """
    unit = FUNCTIONAL_UNITS.get(kind or "")
    said: dict[str, list[str]] = {}
    for figure in figures:
        for sentence in _sentences(figure, unit):
            said.setdefault(sentence, []).append(figure.name)
    return tuple(f"Among published figures, {', '.join(names)}: {what}" for what, names in said.items())


def _sentences(figure: Figure, unit: str | None) -> list[str]:
    if figure.energy_j is None:
        return ["not comparable, because no joules are known."]
    if figure.tier not in COMPARES:
        how = "an estimate" if (figure.tier or "").startswith("E") else "a counter shared by CPU time"
        return [
            f"not comparable, because the joules are {how} (tier {figure.tier}), which compares on this "
            "machine only."
        ]
    found = [_place(figure.energy_j, unit, figure.boundary)]
    if figure.completion_tokens:
        found.append(_place(figure.energy_j / figure.completion_tokens, TOKEN, figure.boundary))
    return found


def _place(energy_j: float, unit: str | None, boundary: str | None) -> str:
    if unit is None:
        return "not comparable, because what one task is was not told. Give --task."
    rows = [row for row in read_published() if row.quantity == "energy_j" and row.functional_unit == unit]
    if not rows:
        return f"not comparable, because none in the table is of one {unit}."
    alike = [row for row in rows if row.boundary == boundary]
    if not alike:
        drawn = ", ".join(sorted({row.boundary for row in rows}))
        return (
            f"not comparable, because its boundary is {boundary or 'not known'}, and those of one {unit} "
            f"are of another: {drawn}."
        )
    below = max((row for row in alike if row.high < energy_j), key=lambda row: row.high, default=None)
    above = min((row for row in alike if row.low > energy_j), key=lambda row: row.low, default=None)
    within = [row for row in alike if row.low <= energy_j <= row.high]
    parts = [f"within {_words(row)}" for row in within]
    parts += [f"above {_words(below)}"] if below else []
    parts += [f"below {_words(above)}"] if above else []
    return (
        f"{energy_j:.3g} J per {unit} (boundary: {boundary}) is {', '.join(parts)}; of {len(alike)} with "
        "this boundary and functional unit. Hardware, batch and load are part of each."
    )


def _words(row: Published) -> str:
    value = f"{row.low:g}" if row.low == row.high else f"{row.low:g}-{row.high:g}"
    return f"{row.name}, {value} J ({row.operating_point}; {row.source}, {row.date})"
