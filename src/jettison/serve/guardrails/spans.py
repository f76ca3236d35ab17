"""Turns finds that lie in one place each into a verdict: blocked, or masked by their kind."""

from collections import Counter
from collections.abc import Sequence

from jettison.serve.guardrails.verdict import GuardSettings, Verdict
from jettison.task.pii import Found


def verdict_of_finds(name: str, settings: GuardSettings, text: str, found: Sequence[Found]) -> Verdict:
    """One verdict on all finds of a text.

    Args:
        name: Of the guardrail.
        settings: Says what to do.
        text: What was looked at.
        found: In order of place, not overlapping.
    """
    if not found:
        return Verdict(action="pass", guardrail=name)
    kinds = Counter(one.kind for one in found)
    reason = "found " + ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items()))
    masked = _masked(text, found) if settings.action == "redact" else None
    return Verdict(action=settings.action, guardrail=name, reason=reason, text=masked)


def _masked(text: str, found: Sequence[Found]) -> str:
    """With `[EMAIL]` and the like; unnumbered, so that parts of a stream need not know each other."""
    parts, done = [], 0
    for kind, start, end in found:
        parts += [text[done:start], f"[{kind.upper()}]"]
        done = end
    return "".join((*parts, text[done:]))
