"""Which arms of a search are worth joining in a cascade, by their costs and dev scores."""

from collections.abc import Sequence

from jettison.loop.search import STUDENTS, cost_ratio
from jettison.loop.workspace import Contender

LEANER = 0.5
"""Cost of the arm in front over the cost of the one behind, at most."""
LEANER_TWIN = 0.75
"""The same where both are transformers: they agree on so much that few inputs are passed on."""
SAME_HARM = 0.005
"""Share of dev answers by which two arms count as equally often worse than the incumbent."""


def cascade_pairs(
    arms: Sequence[Contender], incumbent: Contender, scorer: str
) -> list[tuple[Contender, Contender]]:
    """Pairs of a lean arm and a fallback worth joining, of arms in order of cost.

    An arm that another beats by a hundredth on dev at no greater cost is no use in front; one
    that another equals for less than half, or for clearly less and no oftener worse than the incumbent, is
    no use behind: of two models that are right equally often at like cost, the gate wants the one that
    changes fewer answers. A fallback need not be better than the lean arm overall: their errors differ,
    and the mean of both is often better than either.
    """
    front = [
        a for a in arms if not any(cost_ratio(o) <= cost_ratio(a) and _gain(o, a) > 0.01 for o in arms)
    ]
    transformers = [o for o in arms if o.recipe.family not in STUDENTS]
    harm = {a.name: _harm(a, incumbent, scorer) for a in arms}

    def is_equalled(arm: Contender) -> bool:
        return any(
            _gain(o, arm) > -0.0005
            and (
                cost_ratio(o) < LEANER * cost_ratio(arm)
                or (cost_ratio(o) < 0.9 * cost_ratio(arm) and harm[o.name] <= harm[arm.name] + SAME_HARM)
            )
            for o in transformers
        )

    behind = [arm for arm in arms if not is_equalled(arm)]
    return [
        (lean, fallback)
        for lean in front
        for fallback in behind
        if cost_ratio(lean) < _leaner(lean, fallback, incumbent) * cost_ratio(fallback)
        and _gain(fallback, lean) > -0.02
    ]


def _leaner(lean: Contender, fallback: Contender, incumbent: Contender) -> float:
    """How much leaner the arm in front must be; with the incumbent behind, always much."""
    are_twins = lean.recipe.family not in STUDENTS and fallback.name != incumbent.name
    return LEANER_TWIN if are_twins else LEANER


def _gain(one: Contender, other: Contender) -> float:
    """Dev score of one over the other's."""
    return (one.dev_score or 0.0) - (other.dev_score or 0.0)


def _harm(arm: Contender, incumbent: Contender, scorer: str) -> float:
    """Share of dev examples on which an arm scores lower than the incumbent, in 0-1."""
    n_worse = n_scored = 0
    for ours, theirs in zip(arm.records, incumbent.records, strict=True):
        our, their = ours.scores.get(scorer), theirs.scores.get(scorer)
        if our is not None and their is not None:
            n_scored += 1
            n_worse += our < their
    return n_worse / max(1, n_scored)
