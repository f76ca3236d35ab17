"""Places labels beside points so that none lies on another label, a point or an interval."""

from collections.abc import Sequence
from typing import NamedTuple

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
    """Where a text stands: its box, and whether it needs a line to its point."""

    box: Box
    is_far: bool


def place_labels(
    anchors: Sequence[tuple[float, float]],
    texts: Sequence[str],
    *,
    obstacles: Sequence[Box],
    bounds: Box,
) -> list[Label]:
    """Give each text the place that covers least, near places first.

    Args:
        anchors: Points the texts belong to, (x, y).
        texts: One a point.
        obstacles: What may not be covered: markers, intervals.
        bounds: What may not be left.
    """
    placed: list[Label] = []
    for (x, y), text in zip(anchors, texts, strict=True):
        width = CHARACTER_PX * len(text)
        options = [_at(x, y, width, dx, dy, bounds) for dx, dy in _OFFSETS]
        taken = [*obstacles, *(label.box for label in placed)]
        costs = [
            sum(box.overlap(other) for other in taken) + 4 * _outside(box, bounds) + 2.0 * rank
            for rank, box in enumerate(options)
        ]
        best = min(range(len(options)), key=lambda index: costs[index])
        placed.append(Label(options[best], is_far=best >= _N_NEAR))
    return placed


# Right, left, above, below, then farther out; dx of 0 centers the text.
_NEAR = [(12, 0), (-12, 0), (0, -17), (0, 17), (10, -14), (10, 14), (-10, -14), (-10, 14)]
_FAR = [(dx, dy) for dy in (-30, 30, -46, 46, -62, 62) for dx in (14, -14, 0)]
_OFFSETS = _NEAR + _FAR
_N_NEAR = len(_NEAR)


def _at(x: float, y: float, width: float, dx: float, dy: float, bounds: Box) -> Box:
    left = x + dx if dx > 0 else x + dx - width if dx < 0 else x - width / 2
    if abs(dy) > LINE_PX:  # clear of the point's own line: it may slide to stay inside
        left = min(max(left, bounds.x0), bounds.x1 - width)
    return Box(left, y + dy - LINE_PX / 2, left + width, y + dy + LINE_PX / 2)


def _outside(box: Box, bounds: Box) -> float:
    whole = (box.x1 - box.x0) * (box.y1 - box.y0)
    return whole - box.overlap(bounds)
