"""Whether confidences are true where the answers of a group are right or wrong together."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

DEPENDENCES = np.array([0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.88, 0.96, 0.999])
"""Latent correlations tried, from answers that stand alone to copies of one answer."""
_N_TRIES = 99
"""Draws that tell what a correlation leads to."""
_CHUNK = 400_000
"""Numbers drawn at a time."""
_SAME = 1e-5
"""Relative distance under which two sums are one: hits are weighed in single precision."""


def p_if_true_in_groups(
    confidence: np.ndarray,
    right: np.ndarray,
    *,
    bin_of: np.ndarray,
    group_of: np.ndarray,
    n_draws: int,
    rng: np.random.Generator,
) -> float:
    """Chance of gaps as rare as seen, were the confidences true, however much a group's answers depend.

    Rightness is drawn from the confidences through a Gaussian copula: one latent correlation for every two
    answers of a group. Products of two residuals of one group, summed, say how strong it is, and each draw
    takes another one that they do not refute: first draws at eleven correlations tell how often each leads
    to a larger sum than seen. The gaps, of the bins and of all, are divided by the deviation that the same
    sum gives the mean gap, so that their distribution hardly depends on the correlation.

    Args:
        confidence: That the answer is right, shape (n_answers,).
        right: 1 where it is, else 0, shape (n_answers,).
        bin_of: Bin of each answer, from 0 on, shape (n_answers,).
        group_of: Group of each answer, from 0 on, shape (n_answers,).
        n_draws: Draws to compare with.
        rng: Of the draws.

    Source:
        Binary variates of a Gaussian copula: Emrich & Piedmonte 1991, "A method for generating
        high-dimensional multivariate binary variates". Generalized p-values, which let the nuisance
        parameter run over what the data leave open: Tsui & Weerahandi 1989. Dividing by a deviation of the
        same draw: Hall & Wilson 1991, "Two guidelines for bootstrap hypothesis testing".
    """
    answers = _Answers.of(confidence, bin_of, group_of)
    seen = answers.sums(right[answers.order][None].astype(np.float32))
    likely = _likely_dependences(answers, float(seen.pairs[0]), n_draws, rng)
    apart, together = seen.sizes(answers.variance)
    as_large = np.zeros(2, int)
    done = 0
    for rows in _blocks(n_draws, len(confidence)):
        found = answers.drawn(*answers.noise(rows, rng), likely[done : done + rows]).sizes(answers.variance)
        as_large += [(found[0] >= apart * (1 - _SAME)).sum(), (found[1] >= together * (1 - _SAME)).sum()]
        done += rows
    return min(1.0, 2 * (1 + int(as_large.min())) / (n_draws + 1))


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Of some draws of rightness."""

    gaps: np.ndarray
    """Confidence minus hits of each bin, shape (n_draws, n_bins)."""
    pairs: np.ndarray
    """Products of the residuals of every two answers of one group, shape (n_draws,)."""

    def sizes(self, variance: float) -> tuple[np.ndarray, np.ndarray]:
        """Of the gaps, in deviations of the mean gap: all alike, and summed up; each shape (n_draws,)."""
        scale = np.sqrt(np.maximum(variance + np.maximum(self.pairs, 0.0), 1e-12))
        return np.abs(self.gaps).sum(axis=1) / scale, np.abs(self.gaps.sum(axis=1)) / scale


@dataclass(frozen=True, kw_only=True)
class _Answers:
    """Answers in the order of their groups, prepared for all draws."""

    order: np.ndarray
    sure: np.ndarray
    starts: np.ndarray
    """First answer of each group."""
    weights: np.ndarray
    """Columns: which bin each answer is in, then what a hit adds to the squared residual."""
    variance: float
    """Of the summed gap, if answers stand alone."""

    @classmethod
    def of(cls, confidence: np.ndarray, bin_of: np.ndarray, group_of: np.ndarray) -> "_Answers":
        order = np.argsort(group_of, kind="stable")
        sure, groups = confidence[order], group_of[order]
        in_bin = bin_of[order][:, None] == np.arange(int(bin_of.max()) + 1)
        return cls(
            order=order,
            sure=sure,
            starts=np.flatnonzero(np.diff(groups, prepend=-1)),
            weights=np.column_stack([in_bin, 1 - 2 * sure]).astype(np.float32),
            variance=float((sure * (1 - sure)).sum()),
        )

    def sums(self, hits: np.ndarray) -> _Sums:
        """Of hits, shape (n_draws, n_answers), in single precision."""
        weighed = (hits @ self.weights).astype(float)
        of_group = np.add.reduceat(self.sure, self.starts) - np.add.reduceat(hits, self.starts, axis=1)
        squares = (self.sure**2).sum() + weighed[:, -1]
        sure_of_bin = self.sure @ self.weights[:, :-1]
        return _Sums(gaps=sure_of_bin - weighed[:, :-1], pairs=(of_group**2).sum(axis=1) - squares)

    def noise(self, n_draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Of each answer and of each group, shapes (n_draws, n_answers) and (n_draws, n_groups)."""
        own = rng.standard_normal((n_draws, len(self.sure)), dtype=np.float32)
        return own, rng.standard_normal((n_draws, len(self.starts)), dtype=np.float32)

    def drawn(self, own: np.ndarray, common: np.ndarray, dependence: np.ndarray) -> _Sums:
        """Rightness of noise, mixed at one latent correlation for each draw, shape (n_draws,)."""
        shared = np.sqrt(dependence, dtype=np.float32)[:, None] * common
        latent = np.sqrt(1 - dependence, dtype=np.float32)[:, None] * own
        latent += np.repeat(shared, np.diff(self.starts, append=len(self.sure)), axis=1)
        return self.sums((latent < ndtri(self.sure).astype(np.float32)).astype(np.float32))


def _likely_dependences(
    answers: _Answers, pairs: float, n_draws: int, rng: np.random.Generator
) -> np.ndarray:
    """A latent correlation for each draw: as spread as the pairs seen leave them open."""
    least = pairs + _SAME * (abs(pairs) + answers.variance)
    more = np.zeros(len(DEPENDENCES), int)
    for rows in _blocks(_N_TRIES, len(answers.sure)):
        own, common = answers.noise(rows, rng)
        found = [answers.drawn(own, common, np.full(rows, one)).pairs for one in DEPENDENCES]
        more += (np.array(found) > least).sum(axis=1)
    share = np.maximum.accumulate(more / _N_TRIES) + np.arange(len(more)) * 1e-9
    # Under the share of the weakest it is the weakest; over that of the strongest, the strongest.
    return np.asarray(np.interp((np.arange(n_draws) + 0.5) / n_draws, share, DEPENDENCES))


def _blocks(n_draws: int, n: int) -> list[int]:
    """Draws to make at a time where each holds n numbers."""
    rows = max(1, min(n_draws, _CHUNK // n))
    return [min(rows, n_draws - done) for done in range(0, n_draws, rows)]
