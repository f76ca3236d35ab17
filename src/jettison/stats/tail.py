"""A percentile of latencies with an interval that holds under queueing, or an honest refusal.

Under load one slow answer makes the next ones slow: samples are correlated, and the interval from
order statistics of independent samples covers far less than it says. Here the run is cut, in the
order of time, into batches; how much their shares beyond the percentile differ says how wide the
ranks must be.
"""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData

N_BATCHES = 20
METHOD = f"order statistics, ranks widened by {N_BATCHES} batch means"


@dataclass(frozen=True, kw_only=True)
class TailInterval:
    """A percentile and what the run can certify of it; values in the samples' units."""

    share: float
    """Which percentile, as a share: 0.99 is p99."""
    value: float
    """The sample's percentile; infinite when so many failed that it lies among them."""
    low: float
    high: float | None
    """None: not certifiable from this run, or beyond every answer that came."""
    n: int
    n_missing: int | None = None
    """With no upper bound: at least so many more samples are needed; None where more would not help."""
    confidence: float = 0.95
    method: str = METHOD

    @property
    def words(self) -> str:
        """Why there is no upper bound; empty when there is one."""
        if self.high is not None:
            return ""
        name = f"p{100 * self.share:g}"
        if self.n_missing is None:
            return f"{name} lies among the requests that failed."
        return f"{name} not certifiable from this run: at least {self.n_missing:,} more."


def percentile_interval(
    samples: ArrayLike,
    share: float,
    *,
    confidence: float = 0.95,
    n_batches: int = N_BATCHES,
    n_inputs: int | None = None,
) -> TailInterval:
    """Estimate a percentile of correlated samples.

    Args:
        samples: In the order of time, shape (n,), such as latencies counted from the scheduled
            arrival; infinite where a request failed or timed out.
        share: Which percentile, in (0, 1).
        confidence: Two-sided coverage, in (0, 1).
        n_batches: Batches the run is cut into, 10 or more; each should be long against the
            time in which a queue empties.
        n_inputs: Different inputs among them, where the same ones came again and again: of the inputs to
            come no more is known than so many can tell. None: each sample is of another.

    Returns:
        The percentile (inverted CDF) with its interval; without an upper bound where the ranks
        pass the last sample.

    Raises:
        InvalidInput: A sample is NaN, or an argument is out of range.
        NotEnoughData: Fewer than 2 samples a batch.

    Source:
        Batch means of the indicator of exceeding the percentile; L. Schruben 1983, "Confidence
        interval estimation using standardized time series"; Law, "Simulation Modeling and
        Analysis", 9.5.3. Floored at the variance of independent inputs, p(1 - p) / n.
    """
    found = np.asarray(samples, float)
    if found.ndim != 1 or np.isnan(found).any():
        raise InvalidInput(f"samples must be numbers of shape (n,), got shape {found.shape} or a NaN.")
    if not 0 < share < 1 or not 0 < confidence < 1 or n_batches < 10:
        raise InvalidInput(
            f"share and confidence must be in (0, 1) and n_batches 10 or more, got {share}, "
            f"{confidence} and {n_batches}."
        )
    n = len(found)
    if n < 2 * n_batches:
        raise NotEnoughData(f"a percentile's interval needs {2 * n_batches} samples or more, got {n}.")
    ordered = np.sort(found)
    value = float(ordered[_rank(share, n)])
    n_known = n if n_inputs is None else min(n, n_inputs)
    half = _half_width(found > value, share, confidence, n_batches, n_known)
    low = float(ordered[max(0, floor((share - half) * n) - 1)])
    upper = ceil((share + half) * n)
    high = float(ordered[upper - 1]) if upper <= n else np.inf
    n_missing: int | None = None
    if not np.isfinite(high) and np.isfinite(ordered[-1]):
        n_missing = max(1, ceil(n_known * (half / (1 - share)) ** 2) - n_known)
    return TailInterval(
        share=share,
        value=value,
        low=low,
        high=high if np.isfinite(high) else None,
        n=n,
        n_missing=n_missing,
        confidence=confidence,
        method=METHOD if n_batches == N_BATCHES else METHOD.replace(str(N_BATCHES), str(n_batches)),
    )


def percentile(samples: ArrayLike, share: float) -> float:
    """The sample's percentile: the smallest value that at least `share` of the samples do not exceed."""
    ordered = np.sort(np.asarray(samples, float))
    return float(ordered[_rank(share, len(ordered))])


def _rank(share: float, n: int) -> int:
    # The small step back keeps 0.95 x 20 at rank 19, whatever floats make of it.
    return min(n, max(1, ceil(share * n - 1e-9))) - 1


def _half_width(
    exceeds: np.ndarray, share: float, confidence: float, n_batches: int, n_known: int
) -> float:
    """Half the width of the interval, in shares of the samples."""
    means = [batch.mean() for batch in np.array_split(exceeds.astype(float), n_batches)]
    variance = max(float(np.var(means, ddof=1)) / n_batches, share * (1 - share) / n_known)
    return float(stats.t.ppf((1 + confidence) / 2, n_batches - 1) * np.sqrt(variance))
