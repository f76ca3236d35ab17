"""A comparison that may stop at any example: valid however often one looks.

Two capitals bet on the paired differences, one that the loss is under the margin, one that it is over;
a capital of 1/alpha settles it (Ville's inequality). Examples must come in random order.
"""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from jettison.errors import InvalidInput
from jettison.stats.betting_sequence import BettingSequence

CAP = 0.9
"""Largest share of the capital staked on one example: near all, since a clear case has next to no flips."""


class MarginSequence:
    """Judges a mean difference of scores in [0, 1] against minus the margin, example by example.

    Args:
        margin: Loss that still counts as not worse, in (0, 1).
        alpha: Probability, over all looks, of SHIP where the loss is the margin or more; and of BLOCK
            where it is the margin or less.
    """

    def __init__(self, *, margin: float, alpha: float = 0.025) -> None:
        if not 0 < margin < 1:
            raise InvalidInput(f"margin must be in (0, 1), got {margin}.")
        if not 0 < alpha < 0.5:
            raise InvalidInput(f"alpha must be in (0, 0.5), got {alpha}.")
        self.margin, self.alpha = margin, alpha
        self._bets = BettingSequence(alpha_low=alpha, alpha_high=alpha, means=[(1 - margin) / 2], cap=CAP)

    @property
    def n(self) -> int:
        """Examples seen."""
        return self._bets.n

    def update(self, difference: ArrayLike) -> None:
        """Take in differences candidate minus incumbent, each in [-1, 1], in the order they came."""
        d = np.atleast_1d(np.asarray(difference, float))
        if not (np.abs(d) <= 1).all():
            raise InvalidInput("differences must be of scores in [0, 1].")
        self._bets.update((d + 1) / 2)

    @property
    def verdict(self) -> Literal["SHIP", "BLOCK"] | None:
        """What is certain by now; None while neither is."""
        if bool(self._bets.is_below[0]):
            return "SHIP"
        return "BLOCK" if bool(self._bets.is_above[0]) else None
