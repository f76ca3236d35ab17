"""Places labels beside points so that none lies on another label, a point or an interval."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

CHARACTER_PX = 6.7
"""Mean width of a character at 12 px in a sans-serif font."""
LINE_PX = 15.0


class Box(NamedTuple):
    """A rectangle, in pixels from the top left."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: "Box") -> float:
        """Area the two share."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(0.0, width) * max(0.0, height)


class Label(NamedTuple):
    """Where a text stands: its box, the edge that must not move, and whether a line leads to its point."""

    box: Box
    anchor: Literal["start", "middle", "end"]
    """How wide a text is drawn is only guessed: beside its point it grows away from it."""
    is_far: bool

    @property
    def x(self) -> float:
        """Of the edge that must not move, or of the middle."""
        middle = (self.box.x0 + self.box.x1) / 2
        return {"start": self.box.x0, "middle": middle, "end": self.box.x1}[self.anchor]


def place_labels(
    anchors: Sequence[tuple[float, float]],
    texts: Sequence[str],
    *,
    obstacles: Sequence[Box],
    bounds: Box,
    radii: Sequence[float] | None = None,
) -> list[Label]:
    """Give each text the place that covers least, near places first.

    Args:
        anchors: Points the texts belong to, (x, y).
        texts: One a point.
        obstacles: What may not be covered: markers, intervals.
        bounds: What may not be left.
        radii: Of each point's marker; None takes 8 for all.
    """
    placed: list[Label] = []
    for (x, y), text, radius in zip(anchors, texts, radii or [8.0] * len(texts), strict=True):
        width = CHARACTER_PX * len(text)
        wider = radius - 8.0
        offsets = [(_away(dx, wider), _away(dy, wider)) for dx, dy in _OFFSETS]
        options = [_at(x, y, width, dx, dy, bounds) for dx, dy in offsets]
        taken = [*obstacles, *(label.box for label in placed)]
        costs = [
            sum(box.overlap(other) for other in taken) + 4 * _outside(box, bounds) + 2.0 * rank
            for rank, box in enumerate(options)
        ]
        best = min(range(len(options)), key=lambda index: costs[index])
        is_far = best >= _N_NEAR
        dx = 0 if is_far else _OFFSETS[best][0]
        placed.append(Label(options[best], "start" if dx > 0 else "end" if dx < 0 else "middle", is_far))
    return placed


# Right, left, above, below, then farther out; dx of 0 centers the text.
_NEAR = [(12, 0), (-12, 0), (0, -17), (0, 17), (10, -14), (10, 14), (-10, -14), (-10, 14)]
_FAR = [(dx, dy) for dy in (-30, 30, -46, 46, -62, 62) for dx in (14, -14, 0)]
_OFFSETS = _NEAR + _FAR
_N_NEAR = len(_NEAR)


def _away(offset: float, by: float) -> float:
    """An offset farther out, where it leads out at all."""
    return offset + by if offset > 0 else offset - by if offset < 0 else offset


def _at(x: float, y: float, width: float, dx: float, dy: float, bounds: Box) -> Box:
    left = x + dx if dx > 0 else x + dx - width if dx < 0 else x - width / 2
    if abs(dy) > LINE_PX:  # clear of the point's own line: it may slide to stay inside
        left = min(max(left, bounds.x0), bounds.x1 - width)
    return Box(left, y + dy - LINE_PX / 2, left + width, y + dy + LINE_PX / 2)


def _outside(box: Box, bounds: Box) -> float:
    whole = (box.x1 - box.x0) * (box.y1 - box.y0)
    return whole - box.overlap(bounds)
