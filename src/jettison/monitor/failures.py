"""Requests of a traffic log, and what speaks against the answer of each.

Where a reference came in (an audit, an escalation, a shadow, feedback) an answer can be *bad*; where none
did, it can only be *doubtful*.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jettison.record import Record
from jettison.traffic import Feedback

BAD = ("wrong", "disagreement", "error")
"""Somebody said so, the incumbent answers otherwise, or there was no answer."""
DOUBTFUL = ("guardrail", "out_of_scope", "escalated", "low_confidence")
REASONS = (*BAD, *DOUBTFUL)


MOST_COMPARED = 64
"""Characters of an answer above which two are not compared: free text differs without being wrong."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One live request whose text was kept."""

    id: str
    time: float
    text: str
    output: str | None
    """What was returned; None where nothing was."""
    lean: str | None
    """What the lean model answered, where it is known which model that is."""
    incumbent: str | None
    """What the incumbent answered, where it was asked as well."""
    label: str | None
    """The right answer, where feedback says it."""
    reasons: tuple[str, ...]
    """Of `REASONS`; empty where nothing speaks against the answer."""
    slices: dict[str, str]

    @property
    def severity(self) -> float:
        """1 for a bad answer, 0.5 for a doubtful one, 0 for neither."""
        if any(reason in BAD for reason in self.reasons):
            return 1.0
        return 0.5 if self.reasons else 0.0

    @property
    def right_answer(self) -> tuple[str | None, str | None]:
        """The best that is known of the right answer, and who says so: `feedback` or `incumbent`."""
        if self.label is not None:
            return self.label, "feedback"
        return (self.incumbent, "incumbent") if self.incumbent is not None else (None, None)


def requests_of(
    records: Iterable[Record], feedback: Iterable[Feedback], *, low_confidence: float = 0.5
) -> tuple[Request, ...]:
    """Group a log's rows by request, oldest first; requests without a text are left out.

    Args:
        records: In any order.
        feedback: In the order in which it came; the last of each kind counts.
        low_confidence: An answer below it is doubtful, in 0-1.
    """
    rows: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        rows[record.example_id].append(record)
    said: dict[str, list[Feedback]] = defaultdict(list)
    for one in feedback:
        said[one.request_id].append(one)
    found = [_request(mine, said.get(name, ()), low_confidence) for name, mine in rows.items()]
    kept = [one for one in found if one is not None]
    return tuple(sorted(kept, key=lambda one: (one.time, one.id)))


def _request(rows: Sequence[Record], said: Sequence[Feedback], low: float) -> Request | None:
    by_role: dict[str, Record] = {}
    for row in rows:
        by_role[row.role or "answer"] = row
    answer = by_role.get("answer") or by_role.get("lean")
    text = next((row.input for row in rows if row.input), None)
    if answer is None or text is None or text.startswith("sha256:"):
        return None
    lean, audit, shadow = (by_role.get(role) for role in ("lean", "audit", "shadow"))
    # Of an escalated request the answer is the fallback's; of an audited one the audit is.
    if lean is not None:
        pair = (lean.output, answer.output)
    elif audit is not None:
        pair = (answer.output, audit.output)
    elif shadow is not None:
        pair = (shadow.output, answer.output)
    else:
        pair = (None, None)
    label = next((one.label for one in reversed(said) if one.label is not None), None)
    score = next((one.score for one in reversed(said) if one.score is not None), None)
    first = lean or answer
    holds = {
        "wrong": (label is not None and answer.error is None and label != answer.output)
        or (label is None and score is not None and score < 0.5),
        "disagreement": _differ(*pair),
        "error": answer.error is not None and not answer.unanswered,
        "guardrail": any(row.guardrails for row in rows),
        "out_of_scope": bool(first.flagged),
        "escalated": answer.escalated,
        "low_confidence": first.confidence is not None and first.confidence < low,
    }
    return Request(
        id=answer.example_id,
        time=answer.time or 0.0,
        text=text,
        output=answer.output,
        lean=pair[0],
        incumbent=pair[1],
        label=label,
        reasons=tuple(reason for reason in REASONS if holds[reason]),
        slices=dict(answer.slices),
    )


def _differ(one: str | None, other: str | None) -> bool:
    """Whether two answers are known and short enough to compare, and not the same."""
    if one is None or other is None or max(len(one), len(other)) > MOST_COMPARED:
        return False
    return one.strip().casefold() != other.strip().casefold()
