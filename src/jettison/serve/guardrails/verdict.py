"""What a guardrail says of one text, and what every guardrail is and can be told."""

from collections.abc import Iterable
from typing import Literal, Protocol

import msgspec

Where = Literal["input", "output"]
Action = Literal["pass", "flag", "redact", "escalate", "block"]
ACTIONS: tuple[Action, ...] = ("pass", "flag", "redact", "escalate", "block")
"""From mild to severe."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one guardrail says of one text."""

    action: Action
    """`pass`: go on. `flag`: go on, and say so. `redact`: go on with `text`. `escalate`: let the stronger
    route answer. `block`: go no further."""
    guardrail: str
    reason: str | None = None
    """Why, in words that never hold what was found. With `pass`: why the guardrail could not tell."""
    text: str | None = None
    """With `redact`: the text to go on with."""
    score: float | None = None
    """How sure the guardrail is, in 0-1; None where it does not say."""


class GuardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every guardrail can be told; one with settings of its own derives from it."""

    action: Literal["flag", "redact", "escalate", "block"] = "block"
    """What to do with a text that the guardrail is there to catch."""
    on_error: Literal["open", "closed"] = "closed"
    """When the guardrail crashes or is too late: `open` lets the text pass, `closed` blocks it."""
    timeout_s: float | None = None
    """Seconds that a check may take. None asks in the caller's own thread and waits; a limit costs a
    thread for each check, some 0.1 ms. A check that keeps Python's lock cannot be overtaken."""
    where: tuple[Where, ...] = ("input", "output")
    """Which texts are looked at; others pass."""
    most_chars: int = 1_000_000
    """A longer text counts as a check that failed."""


class Guardrail(Protocol):
    """Checks one text. All that a plugin of `jettison.guardrails` must give, with a constructor that takes
    its settings: an instance of its class attribute `Settings`, a `GuardSettings`.

    One whose finds lie in one place each may also have `cut(text, start) -> int`: the last place at or
    after `start` where `text` may be cut in two that can be checked each for itself, whatever follows; 0 if
    there is none. Outputs that are streamed are then held back up to there alone. It must then block,
    redact or flag by those finds alone, and its redacted parts joined must be the redacted whole.

    One that judges messages and answers as such, their form or their length, may say so by a class
    attribute `is_for_answers = True`: it is then not asked of reasoning, refusals, calls of tools and
    descriptions of tools.
    """

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text. May raise; may be called from several threads at once."""


def worst(verdicts: Iterable[Verdict]) -> Action:
    """The severest action among verdicts; none at all is `pass`."""
    return max((verdict.action for verdict in verdicts), key=ACTIONS.index, default="pass")
