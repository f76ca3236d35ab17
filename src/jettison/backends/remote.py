"""Which candidates run elsewhere: their CPU time is not to be seen from here."""

from jettison.candidate import MANIFEST, Candidate

REMOTE = ("openai", "vllm")
"""Backends that run elsewhere and are paid by the answer."""


def is_remote(candidate: Candidate) -> bool:
    """Whether answers come from elsewhere: of a cascade, from any of its arms."""
    if candidate.backend != "cascade":
        return candidate.backend in REMOTE
    arms = [p.parent for p in candidate.path.glob(f"*/{MANIFEST}")]
    return any(is_remote(Candidate.at(arm)) for arm in arms)
