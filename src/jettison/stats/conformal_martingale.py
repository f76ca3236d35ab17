"""Tests at every look whether scores still come as they used to: a conformal test martingale.

Each new score is ranked among the reference and all scores before it. While nothing has changed the
ranks are uniform and independent, so that no gambler who bets on them can expect to win: a capital of
1/alpha at any time is an error of probability at most alpha (Ville's inequality). The capital is spread
over bets and over the time at which a change may begin, so that a long quiet time costs little. Most bets
are on what drift of traffic looks like: that a share of the scores comes from a distribution that is moved
up or down. Bets on the outermost hundredths see what falls outside of all that was known.

Source: Vovk, Nouretdinov & Gammerman 2003 (conformal test martingales); Vovk 2021, "Testing randomness
online"; the spread over starting times is Herbster & Warmuth's (1998) switching from a sleeping expert.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from jettison.errors import InvalidInput

SHIFTS = ((0.1, 1.5), (0.1, 2.5), (0.3, 1.0), (0.3, 2.0), (0.6, 0.5), (0.6, 1.5))
"""Share of the scores that come from elsewhere, and by how many standard deviations they are moved."""
TAILS = ((0.01, 0.1), (0.03, 0.1))
"""Shares of the ranks, at either end, and the part of a bet's capital that is staked on each."""
FIRST_START = 1000.0
"""How slowly capital starts to bet: after n scores, 1 of n + 1000 parts of what still sleeps."""
_LARGEST = 4096
"""Scores taken in at once: bounds memory."""


class ConformalMartingale:
    """Capital of a gambler against "nothing has changed", score by score; batches may be cut anywhere.

    Args:
        reference: How often each score came in the reference, shape (n_scores,): scores are numbered
            0, 1, ... in their order (bins of a histogram). Where all are 0, the first scores
            are the reference.
        alpha: Probability of an alarm, ever, while nothing changes.
        seed: Of the coins that break ties.

    Raises:
        InvalidInput: A count is negative, there are no bins, or alpha is not in (0, 1).
    """

    def __init__(self, reference: ArrayLike, *, alpha: float = 0.01, seed: int = 0) -> None:
        counts = np.asarray(reference, np.int64)
        if counts.ndim != 1 or not len(counts) or (counts < 0).any():
            raise InvalidInput("reference must be counts of at least one score, none negative.")
        if not 0 < alpha < 1:
            raise InvalidInput(f"alpha must be in (0, 1), got {alpha}.")
        self.alpha, self.seed = alpha, seed
        self.n = 0
        """Scores seen beside the reference."""
        self._counts = counts.copy()
        self._asleep = 0.0
        self._active = np.full(len(IS_LARGE), -np.inf)
        self._most = 0.0

    def update(self, scores: ArrayLike) -> None:
        """Take in scores, shape (n,), oldest first, as their numbers.

        Raises:
            InvalidInput: A number is out of range.
        """
        x = np.asarray(scores, np.int64).ravel()
        if len(x) and (x.min() < 0 or x.max() >= len(self._counts)):
            raise InvalidInput(f"scores must be in 0-{len(self._counts) - 1}, got {x.min()} and {x.max()}.")
        for start in range(0, len(x), _LARGEST):
            self._bet(self.ranks(x[start : start + _LARGEST]))

    def ranks(self, scores: np.ndarray) -> np.ndarray:
        """Share, in (0, 1), of all scores so far that are larger, ties by coins; takes the scores in."""
        is_here = np.zeros((len(scores), len(self._counts)), np.int64)
        is_here[np.arange(len(scores)), scores] = 1
        counts = self._counts + np.cumsum(is_here, axis=0)
        rows = np.arange(len(scores))
        equal = counts[rows, scores]
        not_larger = np.cumsum(counts, axis=1)[rows, scores]
        total = counts.sum(axis=1)
        coins = uniform_at(self.n + rows, seed=self.seed)
        if len(scores):
            self._counts = counts[-1]
        return np.asarray((total - not_larger + coins * equal) / total)

    def _bet(self, ranks: np.ndarray) -> None:
        growth = log_growth(ranks)
        n_bets = growth.shape[1]
        # Capital is carried in logarithms, one score after the other: cutting the stream changes no digit.
        for row in growth:
            started = 1.0 / (self.n + FIRST_START)
            woken = self._asleep + np.log(started / n_bets)
            self._active = np.logaddexp(self._active, woken) + row
            self._asleep += float(np.log1p(-started))
            self.n += 1
            self._most = max(self._most, self.log_e)

    @property
    def log_e(self) -> float:
        """Logarithm of the capital now."""
        high = max(self._asleep, float(self._active.max()))
        return high + float(np.log(np.exp(self._asleep - high) + np.exp(self._active - high).sum()))

    @property
    def most_log_e(self) -> float:
        """Logarithm of the largest capital so far."""
        return self._most

    @property
    def limit(self) -> float:
        """Of `most_log_e`, from which something has changed."""
        return float(-np.log(self.alpha))

    @property
    def alarm(self) -> bool:
        """Whether something has changed; it stays so."""
        return self._most >= self.limit

    @property
    def is_low(self) -> bool | None:
        """Whether the scores that came more often are small ones; None before any bet has won."""
        best = int(self._active.argmax())
        return None if self._active[best] <= self._asleep else not bool(IS_LARGE[best])

    def state(self) -> dict[str, Any]:
        """Everything it knows, JSON-like; `from_state` goes on from it to the last digit."""
        return {
            "counts": self._counts.tolist(),
            "alpha": self.alpha,
            "seed": self.seed,
            "n": self.n,
            "asleep": self._asleep,
            "active": [None if value == -np.inf else value for value in self._active.tolist()],
            "most": self._most,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Go on where `state` was taken."""
        found = cls(state["counts"], alpha=state["alpha"], seed=state["seed"])
        found.n, found._asleep, found._most = state["n"], state["asleep"], state["most"]
        found._active = np.array([-np.inf if value is None else value for value in state["active"]])
        return found


IS_LARGE = np.repeat([True, False], len(SHIFTS) + len(TAILS))
"""Of each bet, whether it is on large scores."""


def log_growth(ranks: np.ndarray) -> np.ndarray:
    """What each bet multiplies its capital by, in logarithms, shape (n, n_bets).

    Each is a density on (0, 1) at the rank: its mean under uniform ranks is 1.
    """
    share, shift = np.array(SHIFTS).T
    tail, stake = np.array(TAILS).T
    found = []
    # A small rank is a large score.
    for rank in (ranks[:, None], 1 - ranks[:, None]):
        normal = -special.ndtri(np.clip(rank, 1e-12, 1 - 1e-12))
        found += [
            np.log1p(share * np.expm1(shift * normal - shift**2 / 2)),
            np.log1p(stake * ((rank <= tail) / tail - 1)),
        ]
    return np.hstack(found)


def uniform_at(places: ArrayLike, *, seed: int) -> np.ndarray:
    """Uniform numbers in (0, 1), a fixed function of place and seed: a restart draws the same.

    Source:
        SplitMix64 (Steele, Lea & Flood 2014), the finaliser applied to a counter.
    """
    with np.errstate(over="ignore"):
        z = (np.asarray(places, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = z + np.uint64(seed & (2**64 - 1)) * np.uint64(0xD1342543DE82EF95)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(11)).astype(float) + 0.5) / 2.0**53
