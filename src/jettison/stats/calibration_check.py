"""Whether answers refute the confidences they came with, and whether two models mean the same by theirs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.binomial import wilson
from jettison.stats.calibration import calibration_error, debiased_gap, equal_bins
from jettison.stats.clustered import mean_difference_ci
from jettison.stats.group_jackknife import Bounds, number_groups
from jettison.stats.grouped_rightness import p_if_true_in_groups
from jettison.stats.interval import Interval

LEAST_ANSWERS = 40
"""Fewer tell nothing of an error of calibration."""
N_DRAWS = 999
MOST_BINS = 15
ALPHA = 0.05
TAILS = 0.02
"""Share of the draws left out, both sides together: the error's interval then covers 95 %, as simulated."""
_CHUNK = 4_000_000
"""Numbers drawn at a time."""


@dataclass(frozen=True, kw_only=True)
class CalibrationCheck:
    """What answers say of the confidences they came with."""

    n: int
    ece: Interval
    """Debiased, in 0-1. It reaches down to 0 where the answers could be those of true confidences."""
    gap: Interval
    """Mean confidence minus share of right answers: above 0 is too sure."""
    p_value: float
    """Chance of an error or a mean gap at least as large if every confidence were true."""


@dataclass(frozen=True, kw_only=True)
class CalibrationDifference:
    """One model's error of calibration and gap minus another's, on the same examples."""

    ece: Interval
    gap: Interval


@dataclass(frozen=True, kw_only=True)
class ConfidenceBand:
    """Answers of about one confidence, and how many of them are right."""

    confidence: float
    """Mean, in 0-1."""
    right: Interval
    n: int


def check_calibration(
    confidence: ArrayLike, right: ArrayLike, *, groups: ArrayLike | None = None, seed: int = 0
) -> CalibrationCheck:
    """Test whether confidences are true, and say how far they are off.

    Args:
        confidence: That the answer is right, shape (n_answers,).
        right: 1 where it is, else 0, shape (n_answers,).
        groups: Of each answer, shape (n_answers,), where some depend on each other. None: none do.
        seed: Of the draws.

    Returns:
        The p-value holds for any number of independent answers: rightness is drawn from the confidences
        themselves 999 times, and the expected calibration error (in at most 15 bins of equally many
        answers) and the mean gap are compared, at half of alpha each. With groups it is drawn as dependent
        inside them as the answers may be (`grouped_rightness`): simulated with 20 to 500 groups, alone or
        nearly copies, true confidences are refuted in 2 to 6.4 % of draws.
        The error's interval is a basic bootstrap within the bins; where the test does not refute the
        confidences at 5 %, it begins at 0, since a bootstrap alone lies above an error of 0 too often. It
        ends no lower than the mean gap may be, which is never larger than the error.

    Raises:
        InvalidInput: Shapes differ, or a value is out of range.
        NotEnoughData: Under 40 answers.

    Source:
        Consistency resampling: Bröcker & Smith 2007, "Increasing the reliability of reliability
        diagrams". With groups see `jettison.stats.grouped_rightness`.
    """
    p, y = _checked(confidence, right)
    group_of = number_groups(groups, len(p))
    rng = np.random.default_rng(seed)
    bins = _Bins.of(p)
    p_value = _p_if_true(p, y, bins, group_of, rng)
    value = calibration_error(p, y, n_bins=MOST_BINS)
    sure = float(p.mean())
    gap = mean_difference_ci(p, y, groups=groups, bounds=Bounds(low=sure - 1, high=sure))
    draws, plain = bins.error_draws(p, y, group_of, rng)
    low, high = np.quantile(draws, [TAILS / 2, 1 - TAILS / 2])
    ece = Interval(
        value=value,
        low=0.0 if p_value > ALPHA else max(0.0, min(value, value + plain - float(high))),
        high=min(1.0, max(value, value + plain - float(low), abs(gap.low), abs(gap.high))),
        method="basic bootstrap in bins, from 0 unless refuted",
    )
    return CalibrationCheck(n=len(p), ece=ece, gap=gap, p_value=p_value)


def calibration_difference(
    confidence: ArrayLike,
    right: ArrayLike,
    other_confidence: ArrayLike,
    other_right: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> CalibrationDifference:
    """The first model's error and gap minus the second's, paired by example, with 95 % intervals.

    Args:
        confidence: Of the first model, shape (n_answers,).
        right: Of the first model, 0 or 1, shape (n_answers,).
        other_confidence: Of the second, on the same examples in the same order.
        other_right: Of the second.
        groups: Of each example, where some depend on each other.
        seed: Of the draws.

    Returns:
        An estimated error is above 0 even where the true one is 0, so the interval of the difference lets
        each error that the answers do not refute be 0, as far as the two do not vary together. Without that
        it held the truth in 86 to 90 % of simulated draws where one of the two models had none.

    Raises:
        InvalidInput: Shapes differ, or a value is out of range.
        NotEnoughData: Under 40 answers.
    """
    p, y = _checked(confidence, right)
    q, z = _checked(other_confidence, other_right)
    if p.shape != q.shape:
        raise InvalidInput(
            f"both models must have answered the same examples, got {p.shape} and {q.shape}."
        )
    group_of = number_groups(groups, len(p))
    sides = ((p, y, _Bins.of(p)), (q, z, _Bins.of(q)))
    value = calibration_error(p, y, n_bins=MOST_BINS) - calibration_error(q, z, n_bins=MOST_BINS)
    plain = sides[0][2].error(p, y) - sides[1][2].error(q, z)
    drawn = np.concatenate(
        [
            np.stack([bins.errors_of(counts, a, b, group_of) for a, b, bins in sides], axis=1)
            for counts in _group_draws(int(group_of.max()) + 1, np.random.default_rng(seed))
        ]
    )
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], [TAILS / 2, 1 - TAILS / 2])
    apart = 1 - _correlation(drawn)
    rng = np.random.default_rng((seed, 1))
    ours, theirs = (
        apart * _to_spare(a, b, bins, group_of, rng) if apart > 0 else 0.0 for a, b, bins in sides
    )
    ece = Interval(
        value=value,
        low=max(-1.0, min(value, value + plain - float(high)) - ours),
        high=min(1.0, max(value, value + plain - float(low)) + theirs),
        method="basic bootstrap by group, each error down to 0 unless refuted",
    )
    surer = float((p - q).mean())
    bounds = Bounds(low=surer - 1, high=surer + 1)
    gap = mean_difference_ci(p - y, q - z, groups=groups, bounds=bounds)
    return CalibrationDifference(ece=ece, gap=gap)


def _correlation(drawn: np.ndarray) -> float:
    """Of two models' errors over the draws, shape (n_draws, 2), in 0-1."""
    spread = drawn.std(axis=0)
    if not (spread > 0).all():
        return 1.0 if np.array_equal(drawn[:, 0], drawn[:, 1]) else 0.0
    return float(np.clip(np.corrcoef(drawn.T)[0, 1], 0.0, 1.0))


def _to_spare(
    p: np.ndarray, y: np.ndarray, bins: "_Bins", group_of: np.ndarray, rng: np.random.Generator
) -> float:
    """How much of a model's error may be none: all of it where its confidences may be true."""
    value = calibration_error(p, y, n_bins=MOST_BINS)
    return value if value > 0 and _p_if_true(p, y, bins, group_of, rng) > ALPHA else 0.0


def right_near(
    confidence: ArrayLike, right: ArrayLike, at: float, *, reach: float = 0.05
) -> ConfidenceBand | None:
    """Share of right answers among those of about one confidence; None where there are fewer than ten.

    Args:
        confidence: That the answer is right, shape (n_answers,).
        right: 1 where it is, else 0, shape (n_answers,).
        at: The confidence asked about, in 0-1.
        reach: How far from it an answer's may be.
    """
    p, y = np.asarray(confidence, float), np.asarray(right, float)
    near = np.abs(p - at) <= reach
    if near.sum() < 10:
        return None
    n = int(near.sum())
    return ConfidenceBand(confidence=float(p[near].mean()), right=wilson(int(y[near].sum()), n), n=n)


@dataclass(frozen=True, kw_only=True)
class _Bins:
    """Bins of about equally many answers, least sure first, ties never parted; kept for all draws."""

    bin_of: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, p: np.ndarray) -> "_Bins":
        parts = equal_bins(p, MOST_BINS)
        bin_of = np.empty(len(p), int)
        for k, part in enumerate(parts):
            bin_of[part] = k
        return cls(bin_of=bin_of, sizes=np.array([len(part) for part in parts]))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Of values of each answer, shape (n_bins,)."""
        return np.bincount(self.bin_of, weights=values, minlength=len(self.sizes))

    def error(self, p: np.ndarray, y: np.ndarray) -> float:
        """Mean distance of confidence and rightness, not debiased."""
        return float(np.abs(self.sums(p - y)).sum() / len(p))

    def by_group(self, values: np.ndarray, group_of: np.ndarray) -> np.ndarray:
        """Sums of values, shape (n_groups, n_bins)."""
        k = len(self.sizes)
        found = np.bincount(
            group_of * k + self.bin_of, weights=values, minlength=k * (int(group_of.max()) + 1)
        )
        return found.reshape(-1, k)

    def error_draws(
        self, p: np.ndarray, y: np.ndarray, group_of: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """Debiased errors of answers drawn anew, and the plain error of what they were drawn from."""
        if int(group_of.max()) + 1 < len(p):
            drawn = [
                self.errors_of(counts, p, y, group_of)
                for counts in _group_draws(int(group_of.max()) + 1, rng)
            ]
            return np.concatenate(drawn), self.error(p, y)
        mean = self.sums(p) / self.sizes
        # One answer more in each bin, as its confidence says: a bin of right answers alone has noise too.
        share = (self.sums(y) + mean) / (self.sizes + 1)
        hits = rng.binomial(self.sizes, share, (N_DRAWS, len(share)))
        weights = self.sizes / len(p)
        return debiased_gap(hits / self.sizes, mean, self.sizes, weights), float(
            np.abs(share - mean) @ weights
        )

    def errors_of(
        self, counts: np.ndarray, p: np.ndarray, y: np.ndarray, group_of: np.ndarray
    ) -> np.ndarray:
        """Debiased error of each draw of groups, shape (n_draws,) of counts (n_draws, n_groups)."""
        n, sure, hits = (counts @ self.by_group(values, group_of) for values in (np.ones(len(p)), p, y))
        safe = np.maximum(n, 1)
        return debiased_gap(hits / safe, sure / safe, safe, n / n.sum(axis=1, keepdims=True))


def _p_if_true(
    p: np.ndarray, y: np.ndarray, bins: _Bins, group_of: np.ndarray, rng: np.random.Generator
) -> float:
    """Chance of a plain error or a mean gap as rare as seen, were the confidences true."""
    if int(group_of.max()) + 1 < len(p):
        return p_if_true_in_groups(p, y, bin_of=bins.bin_of, group_of=group_of, n_draws=N_DRAWS, rng=rng)
    seen = bins.sums(p - y)
    as_large = np.zeros(2, int)
    order = np.argsort(bins.bin_of, kind="stable")
    sure, starts = p[order], np.cumsum(bins.sizes) - bins.sizes
    for rows in _blocks(len(p)):
        hits = np.add.reduceat(rng.random((rows, len(p))) < sure, starts, axis=1, dtype=int)
        as_large += _n_as_large(bins.sums(p) - hits, seen)
    return min(1.0, 2 * (1 + int(as_large.min())) / (N_DRAWS + 1))


def _n_as_large(drawn: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Draws whose bins' gaps are as large as seen, shape (n_draws, n_bins): all alike, and summed up."""
    apart = np.abs(drawn).sum(axis=1) >= np.abs(seen).sum() - 1e-9
    together = np.abs(drawn.sum(axis=1)) >= abs(seen.sum()) - 1e-9
    return np.array([apart.sum(), together.sum()])


def _blocks(n: int) -> list[int]:
    """Draws to make at a time where each holds n numbers."""
    rows = max(1, min(N_DRAWS, _CHUNK // n))
    return [min(rows, N_DRAWS - done) for done in range(0, N_DRAWS, rows)]


def _group_draws(n_groups: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each group is drawn, in blocks of shape (n_draws, n_groups)."""
    shares = np.full(n_groups, 1 / n_groups)
    for rows in _blocks(n_groups):
        yield rng.multinomial(n_groups, shares, rows).astype(float)


def _checked(confidence: ArrayLike, right: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(confidence, float), np.asarray(right, float)
    if p.shape != y.shape or p.ndim != 1:
        raise InvalidInput(
            f"confidence and right must share one shape (n_answers,), got {p.shape} and {y.shape}."
        )
    if len(p) < LEAST_ANSWERS:
        raise NotEnoughData(f"a check of calibration needs at least {LEAST_ANSWERS} answers, got {len(p)}.")
    if not ((p >= 0) & (p <= 1)).all() or not np.isin(y, (0.0, 1.0)).all():
        raise InvalidInput("confidences must be in 0-1, and answers right (1) or wrong (0).")
    return p, y
