"""Who answers a request: plans as plain records, combined by nesting."""

from typing import Literal, Union

import msgspec


class Single(msgspec.Struct, frozen=True, kw_only=True, tag="single"):
    """One candidate answers."""

    candidate: str
    """Folder of the candidate, relative to the record that holds this route."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """What a cascade's threshold was proved to hold, and on what."""

    epsilon: float
    """Largest share of inputs on which the lean answer stands, is wrong, and the reference is right."""
    delta: float
    """Probability, over draws of the certifying examples, that the bound does not hold. It is that of one
    cascade by itself, and larger where the best of several was taken on the same examples."""
    n_examples: int
    n_harmful: int
    """Examples answered by the lean arm, wrongly, that the reference gets right."""
    data_digest: str
    reference: str | None = None
    """Digest of the candidate harm is counted against: the incumbent. None is the fallback."""
    method: str = "learn-then-test, exact binomial tail, fixed sequence"


class Cascade(msgspec.Struct, frozen=True, kw_only=True, tag="cascade"):
    """The lean route answers when its confidence reaches the threshold, else the fallback does."""

    lean: "Route"
    fallback: "Route"
    threshold: float
    """Least confidence of the lean arm, in 0-1, at which its answer stands; above 1 escalates all."""
    certificate: Certificate | None = None
    combine: Literal["fallback", "average"] = "fallback"
    """What answers an escalated input: the fallback alone, or the mean of both arms' logits."""
    escalate_below: float | None = None
    """Inputs whose `in_scope` by the lean arm is under it are escalated, however confident it is."""
    decline_below: float | None = None
    """Inputs whose `in_scope` by the lean arm is under it are not escalated: the lean arm's answer
    stands, flagged as out of scope."""


class Shadow(msgspec.Struct, frozen=True, kw_only=True, tag="shadow"):
    """The main route answers; a share of the inputs is also shown to another, whose answers are logged."""

    main: "Route"
    shadow: "Route"
    shadow_share: float


class Split(msgspec.Struct, frozen=True, kw_only=True, tag="split"):
    """A share of the keys goes to treatment, the rest to control; one key always to one arm."""

    control: "Route"
    treatment: "Route"
    treatment_share: float
    salt: str


class Guarded(msgspec.Struct, frozen=True, kw_only=True, tag="guarded"):
    """Guardrails look at the request before, and at the reply after, the inner route."""

    inner: "Route"
    guardrails: tuple[str, ...]


Route = Union[Single, Cascade, Shadow, Split, Guarded]


def parts_of(route: Route) -> tuple[Route, ...]:
    """Routes directly within a route, first asked first."""
    match route:
        case Single():
            return ()
        case Cascade():
            return (route.lean, route.fallback)
        case Shadow():
            return (route.main, route.shadow)
        case Split():
            return (route.control, route.treatment)
        case Guarded():
            return (route.inner,)


def candidate_folders(route: Route) -> tuple[str, ...]:
    """Folders of all candidates a route may ask, first asked first, each once."""
    if isinstance(route, Single):
        return (route.candidate,)
    return tuple(dict.fromkeys(folder for part in parts_of(route) for folder in candidate_folders(part)))


def guardrails_of(route: Route) -> frozenset[str]:
    """Names of all guardrails that a route may ask."""
    own = frozenset(route.guardrails) if isinstance(route, Guarded) else frozenset[str]()
    return own.union(*(guardrails_of(part) for part in parts_of(route)))
