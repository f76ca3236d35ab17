"""Whether a subgroup loses more than the rest: exact, given all losses seen, by who is in it."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import InvalidInput

N_DRAWS = 4_999


def subgroup_p(loss: ArrayLike, member: ArrayLike, *, seed: int = 0) -> float:
    """One-sided p-value of "the members lose no more than anyone else".

    The losses are held fixed and membership is shuffled. Losses of -1, 0 and 1 (answers lost and gained)
    are counted out exactly; graded ones are drawn `N_DRAWS` times.

    Args:
        loss: Incumbent's score minus candidate's, shape (n_units,); units are independent.
        member: Whether each is in the subgroup, shape (n_units,), fixed without looking at these losses.
        seed: Of the draws.

    Raises:
        InvalidInput: The shapes differ, or a loss is not finite.
    """
    d, m = np.asarray(loss, float), np.asarray(member, bool)
    if d.shape != m.shape or d.ndim != 1:
        raise InvalidInput(f"loss and member must share one shape (n_units,), got {d.shape} and {m.shape}.")
    if not np.isfinite(d).all():
        raise InvalidInput("losses must be finite.")
    n, size = len(d), int(m.sum())
    if size in (0, n):
        return 1.0
    seen = float(d[m].sum())
    if np.isin(d, (-1.0, 0.0, 1.0)).all():
        return _counted(int((d == 1).sum()), int((d == -1).sum()), n, size, round(seen))
    rng = np.random.default_rng(seed)
    drawn = np.array([d[rng.choice(n, size, replace=False)].sum() for _ in range(N_DRAWS)])
    return float((1 + (drawn >= seen - 1e-9).sum()) / (1 + N_DRAWS))


def _counted(lost: int, gained: int, n: int, size: int, seen: int) -> float:
    """P(losses - gains among the members >= seen), for a random subgroup of that size."""
    gains = np.arange(max(0, size - (n - gained)), min(gained, size) + 1)
    share = stats.hypergeom.pmf(gains, n, gained, size)
    # Given the gains, the members' other places are drawn from all that are no gains.
    tail = stats.hypergeom.sf(seen + gains - 1, n - gained, lost, size - gains)
    return float(min(1.0, max(0.0, (share * tail).sum())))
