"""How many examples a verdict needs, and how likely a candidate is to pass."""

import math

import numpy as np
from scipy import stats

from jettison.errors import InvalidInput
from jettison.stats.exact import exact_p, nuisance_error
from jettison.stats.paired import FEW_FLIPS, tango_z

RARE = 1e-4
"""Tables of flips less likely than this are left out of a power, and count as not shipped."""


def n_needed(
    flip_share: float,
    *,
    margin: float,
    difference: float = 0.0,
    alpha: float = 0.025,
    power: float = 0.8,
) -> int | None:
    """Examples with which a candidate ships with the power wanted.

    Args:
        flip_share: Share of examples on which one of the two is right and the other wrong.
        margin: Loss that still counts as not worse.
        difference: True difference, candidate minus baseline.
        alpha: One-sided error probability.
        power: Probability of SHIP, in (0, 1).

    Returns:
        The number, never under what zero harmful flips would need; None when the true
        difference is at or below minus the margin, where no number is enough.
    """
    gap = difference + margin
    if gap <= 0:
        return None
    z = float(stats.norm.isf(alpha) + stats.norm.isf(1 - power))
    variance = max(flip_share - difference**2, 0.0)
    floor = smallest_passing_n(margin, alpha=alpha) if margin > 0 else 1
    return max(math.ceil(z**2 * variance / gap**2 - 1e-9), floor if difference <= 0 else 1)


def n_needed_as_seen(
    beneficial_share: float,
    harmful_share: float,
    *,
    margin: float,
    alpha: float = 0.025,
    power: float = 0.8,
    most: int = 1_000_000,
) -> int | None:
    """As `n_needed`, for flips whose shares on both sides are known, by the test that the gate uses.

    `n_needed` takes the variance at the true difference; the score test takes it at the margin, where
    it is larger, and of few flips the exact test asks for more still: with 1 harmful flip in 117, a
    margin of 5 points and alpha 0.0125 it names 86 examples, with which the gate hardly ever ships.

    Args:
        beneficial_share: Share of examples with only the candidate right.
        harmful_share: Share of examples with only the baseline right.
        margin: As in `n_needed`, or below zero for a gain that has to be shown.
        alpha: One-sided error probability.
        power: Probability of SHIP, in (0, 1).
        most: More than so many are not looked for.

    Returns:
        The number, or None where no number, or more than `most`, would be enough.

    Source:
        Nam 1997, Biometrics 53:1422-1430: the sample size of the score test.
    """
    flip_share, difference = beneficial_share + harmful_share, beneficial_share - harmful_share
    first = n_needed(flip_share, margin=margin, difference=difference, alpha=alpha, power=power)
    if first is None or first > most:
        return None
    by_score = _n_of_score_test(flip_share, harmful_share, margin=margin, alpha=alpha, power=power)
    if flip_share * by_score >= FEW_FLIPS:
        return max(by_score, first) if max(by_score, first) <= most else None

    def is_enough(n: int) -> bool:
        return _power(beneficial_share, harmful_share, n, margin=margin, alpha=alpha) >= power

    low, high = first - 1, first
    while not is_enough(high):
        low, high = high, math.ceil(1.05 * high)
        if high > most:
            return None
    while high - low > max(1, low // 100):  # power is a saw: one of the first teeth that are enough
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _n_of_score_test(
    flip_share: float, harmful_share: float, *, margin: float, alpha: float, power: float
) -> int:
    """Nam's sample size, for a true difference above minus the margin."""
    difference = flip_share - 2 * harmful_share
    linear = -flip_share - margin * (2 - difference)
    root = math.sqrt(max(linear**2 - 8 * harmful_share * margin * (1 + margin), 0.0))
    at_margin = max((root - linear) / 2 - margin * (1 + margin), 0.0)
    at_truth = max(flip_share - difference**2, 0.0)
    spread = stats.norm.isf(alpha) * math.sqrt(at_margin) + stats.norm.isf(1 - power) * math.sqrt(at_truth)
    return math.ceil((float(spread) / (difference + margin)) ** 2)


def _power(beneficial_share: float, harmful_share: float, n: int, *, margin: float, alpha: float) -> float:
    """Probability that the gate ships n pairs whose flips have these shares."""
    rest = max(1.0 - beneficial_share - harmful_share, 0.0)
    most = int(stats.binom.isf(RARE, n, min(beneficial_share + harmful_share, 1.0))) + 1
    b, c = (flips.ravel() for flips in np.meshgrid(np.arange(most + 1), np.arange(most + 1), indexing="ij"))
    b, c = b[b + c <= n], c[b + c <= n]
    tables = np.stack([b, c, n - b - c], axis=-1)
    chance = stats.multinomial.pmf(tables, n, [beneficial_share, harmful_share, rest])
    likely = chance > RARE
    return float(chance[likely] @ gate_passes(b[likely], c[likely], n, margin=margin, alpha=alpha))


def smallest_passing_n(margin: float, *, alpha: float = 0.025) -> int:
    """Smallest slice that can pass when no answer changes; a smaller one passes only by a gain.

    Every test at `alpha` needs so many, and the gate's own takes some more at other alphas than 0.025,
    since it also weighs tables with flips both ways: 2 % at 0.02, up to 8 % at 0.005 and less.
    """
    if not 0 < margin < 1:
        raise InvalidInput(f"margin must be in (0, 1), got {margin}.")
    return math.ceil(math.log(alpha) / math.log1p(-margin))


def smallest_certifiable_margin(n: int, *, alpha: float = 0.025) -> float:
    """Smallest margin that n examples with no flips can certify."""
    if n < 1:
        raise InvalidInput(f"n must be at least 1, got {n}.")
    return float(-math.expm1(math.log(alpha) / n))


def pass_probability(
    n_beneficial: int,
    n_harmful: int,
    n_dev: int,
    *,
    n_test: int,
    margin: float,
    alpha: float = 0.025,
    n_draws: int = 2000,
    seed: int = 0,
) -> float:
    """Probability that a candidate passes the gate on test, given its flips on dev.

    The true flip rates are drawn from their posterior (Dirichlet, Jeffreys prior), the test
    flips from those rates, and the gate's own test judges each draw: the uncertainty of
    both splits is in the answer. A dev split that was searched over flatters its winner.

    Args:
        n_beneficial: Dev examples with only the candidate right.
        n_harmful: Dev examples with only the incumbent right.
        n_dev: Dev examples.
        n_test: Test examples.
        margin: Loss that still counts as not worse.
        alpha: One-sided error probability the gate will spend.
        n_draws: Simulated test splits.
        seed: Of the simulation.
    """
    if n_beneficial < 0 or n_harmful < 0 or n_dev < 1 or n_beneficial + n_harmful > n_dev:
        raise InvalidInput(
            f"flips must be counts that sum to at most n_dev = {n_dev}, "
            f"got {n_beneficial} beneficial and {n_harmful} harmful."
        )
    if n_test < 1:
        return 0.0
    rng = np.random.default_rng(seed)
    posterior = (n_beneficial + 0.5, n_harmful + 0.5, n_dev - n_beneficial - n_harmful + 0.5)
    counts = rng.multinomial(n_test, rng.dirichlet(posterior, n_draws))[:, :2]
    return float(gate_passes(counts[:, 0], counts[:, 1], n_test, margin=margin, alpha=alpha).mean())


def gate_passes(
    beneficial: np.ndarray, harmful: np.ndarray, n: int, *, margin: float, alpha: float
) -> np.ndarray:
    """Whether `paired_test` ships, for many tables at once; shape of the counts, bool."""
    b, c = np.asarray(beneficial), np.asarray(harmful)
    passed = np.asarray(tango_z(b, c, n, -margin) >= stats.norm.isf(alpha))
    few = np.unique(np.stack([b, c], axis=-1)[b + c < FEW_FLIPS].reshape(-1, 2), axis=0)
    nuisance = nuisance_error(alpha)
    for some_b, some_c in few.tolist():
        p_value = exact_p(some_b, some_c, n, -margin, nuisance=nuisance)
        passed[(b == some_b) & (c == some_c)] = p_value <= alpha
    return passed
