"""A comparison that may stop at any example: valid however often one looks.

Two capitals bet on the paired differences, one that the loss is under the margin, one that it is over;
a capital of 1/alpha settles it (Ville's inequality). Examples must come in random order.

Each capital is spread over fixed stakes: half on a bold one, which settles a clear case with next to no
flips soonest, half on smaller ones, which are near the best where many answers flip. Their sum counts, so
that nothing need be known of the flips beforehand. Median examples to SHIP two equals at a margin of 3
points and alpha 5 %: 123, 430 and 1,810 at 0.5, 2 and 10 % flips each way.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from jettison.errors import InvalidInput

STAKES = np.append(0.95, np.geomspace(0.03, 0.8, 7))
"""Share of each part of the capital that the worst example takes."""
_LOG_SHARES = np.log(np.append(0.5, np.full(7, 0.5 / 7)))
_LARGEST = 100_000
"""Examples taken in at once: bounds memory."""


class MarginSequence:
    """Judges a mean difference of scores in [0, 1] against minus the margin, example by example.

    Args:
        margin: Loss that still counts as not worse, in (0, 1).
        alpha: Probability, over all looks, of SHIP where the loss is the margin or more; and of BLOCK
            where it is the margin or less.
        ceiling: Largest difference that may come, 1 or more: where an example is told only with some
            chance, its difference comes divided by that chance, and else as 0.

    Source:
        A mixture of the capitals of Waudby-Smith & Ramdas 2024, JRSS B 86:1, each with a fixed bet.
    """

    def __init__(self, *, margin: float, alpha: float = 0.025, ceiling: float = 1.0) -> None:
        if not 0 < margin < 1:
            raise InvalidInput(f"margin must be in (0, 1), got {margin}.")
        if not 0 < alpha < 0.5:
            raise InvalidInput(f"alpha must be in (0, 0.5), got {alpha}.")
        if not 1 <= ceiling < np.inf:
            raise InvalidInput(f"ceiling must be 1 or more, got {ceiling}.")
        self.margin, self.alpha, self.ceiling = margin, alpha, ceiling
        self.n = 0
        """Examples seen."""
        self._logs = np.tile(_LOG_SHARES, (2, 1))
        self._most = np.zeros(2)

    def update(self, difference: ArrayLike) -> None:
        """Take in differences candidate minus incumbent, from -1 to the ceiling, in the order they came."""
        d = np.atleast_1d(np.asarray(difference, float))
        if not ((d >= -1) & (d <= self.ceiling)).all():
            raise InvalidInput("differences must be of scores in [0, 1].")
        for start in range(0, len(d), _LARGEST):
            self._bet(d[start : start + _LARGEST])

    def _bet(self, d: np.ndarray) -> None:
        # The worst example of either bet, a fall of 1 or the largest gain, takes just its stake.
        excess = (d + self.margin) / (1 - self.margin), -(d + self.margin) / (self.ceiling + self.margin)
        for side, worth in enumerate(excess):
            growth = np.log1p(np.outer(worth, STAKES))
            path = np.add.accumulate(np.concatenate([self._logs[side][None], growth]), axis=0)
            self._logs[side] = path[-1]
            self._most[side] = max(self._most[side], float(np.logaddexp.reduce(path, axis=1).max()))
        self.n += len(d)

    @property
    def is_settled(self) -> tuple[bool, bool]:
        """Whether SHIP and whether BLOCK was ever certain."""
        ship, block = (self._most >= -np.log(self.alpha)).tolist()
        return ship, block

    @property
    def verdict(self) -> Literal["SHIP", "BLOCK"] | None:
        """What is certain by now; None while neither is."""
        ship, block = self.is_settled
        if ship:
            return "SHIP"
        return "BLOCK" if block else None
