"""One thing that a look at drift compares: counts of a score, or of a category."""

from collections import Counter

import msgspec
import numpy as np

from jettison.stats.two_samples import counts_differ

FEWEST = 30


class DriftTest(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at."""

    name: str
    """A score or category; `words` (MMD) and `classifier` look at all of the inputs together."""
    slice: str
    """`all`, or `name=value`."""
    side: str
    """`input` or `answer`."""
    n: int
    p_value: float
    p_adjusted: float
    """After Holm over all tests of the look."""
    moved: float
    """Share of the distribution that moved (total variation), in 0-1; of `words` and `classifier` how much
    better than chance they tell the two apart (twice the area under their curve, less 1)."""
    has_drifted: bool
    reason: str
    changed: tuple[tuple[str, float], ...] = ()
    """Of a classifier what it tells live from reference by, with its part in 0-1, largest first."""


def drift_test(
    name: str, n: int, p: float, moved: float, reason: str, *, side: str, of: str = "all"
) -> DriftTest:
    """A test that is not judged yet."""
    return DriftTest(
        name=name,
        slice=of,
        side=side,
        n=n,
        p_value=p,
        p_adjusted=1.0,
        moved=moved,
        has_drifted=False,
        reason=reason,
    )


def counts_test(
    name: str,
    reference: np.ndarray,
    counts: np.ndarray,
    *,
    side: str,
    of: str = "all",
    is_ordered: bool = True,
) -> DriftTest:
    """Counts of a score in its bins, or of a category's values, against the reference's."""
    found = counts_differ(reference, counts, is_ordered=is_ordered)
    reason = f"{name}: {found.distance:.1%} moved (PSI {found.psi:.2f}, p = {found.p_value:.2g})"
    return drift_test(name, int(counts.sum()), found.p_value, found.distance, reason, side=side, of=of)


def category_test(name: str, reference: dict[str, int], live: Counter[str], *, side: str) -> DriftTest:
    """A category, saying which value moved most."""
    values = sorted(set(reference) | set(live))
    before = np.array([reference.get(value, 0) for value in values])
    now = np.array([live.get(value, 0) for value in values])
    test = counts_test(name, before, now, side=side, is_ordered=False)
    moves = now / now.sum() - before / before.sum()
    most = int(np.abs(moves).argmax())
    was, is_now = before[most] / before.sum(), now[most] / now.sum()
    said = f"{name}: {values[most]} went from {was:.1%} to {is_now:.1%} (p = {test.p_value:.2g})"
    return msgspec.structs.replace(test, reason=said)
