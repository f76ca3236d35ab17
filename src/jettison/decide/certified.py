"""The list "on these slices the candidate is not worse", which must be right as a whole.

Shipping needs every slice, so that each is tested at full alpha. Who picks slices out of the table instead
(to route only those to the lean model, say) makes several claims at once, of which one is wrong far more
often than alpha says. Holm's correction of the gate's own p-values keeps the whole list at alpha.
"""

from collections.abc import Callable, Sequence

import numpy as np

from jettison.decide.words import count
from jettison.decision import GateResult
from jettison.stats.multiplicity import holm

MOST_NAMED = 20


def certified_slices(results: Sequence[GateResult]) -> tuple[GateResult, ...]:
    """Results of one candidate's slices whose losses are all under their margins at once.

    Args:
        results: Of one candidate; a slice without a p-value counts as one that shows nothing.

    Returns:
        In the order given; with probability 1 - alpha none of them is wrong.
    """
    judged = [r for r in results if r.gate == "not_worse"]
    alphas = [r.alpha for r in judged if r.alpha is not None]
    if not alphas:
        return ()
    adjusted = holm(np.array([1.0 if r.p_value is None else r.p_value for r in judged]))
    return tuple(r for r, p in zip(judged, adjusted.tolist(), strict=True) if p <= min(alphas))


def certified_words(results: Sequence[GateResult], *, written: Callable[[str], str] = str) -> str | None:
    """A sentence on them; None where there are not several slices, and so no list.

    Args:
        results: Of one candidate.
        written: How the page writes a slice.
    """
    judged = [r for r in results if r.gate == "not_worse"]
    alphas = [r.alpha for r in judged if r.alpha is not None]
    if len(judged) < 2 or not alphas:
        return None
    found = certified_slices(results)
    sure = f"{100 * (1 - min(alphas)):.4g} % confidence for the list as a whole (Holm)"
    if not found:
        return f"On none of {count(len(judged), 'slice')} is the loss under its margin with {sure}."
    several = len({r.metric for r in judged}) > 1
    names = [written(r.slice or "all") + (f" ({r.metric})" if several else "") for r in found[:MOST_NAMED]]
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    if len(found) == len(judged):
        return f"On all {count(len(judged), 'slice')} the loss is under its margin with {sure}."
    of = f"{len(found)} of {count(len(judged), 'slice')}"
    return f"On {of} the loss is under its margin with {sure}: {', '.join(names)}{more}."
