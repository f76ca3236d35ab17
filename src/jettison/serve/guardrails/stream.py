"""Guards an output that comes in pieces, holding back no more of it than its guardrails need."""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from jettison.serve.guardrails.opened import Opened
from jettison.serve.guardrails.verdict import Action, Verdict, worst

MOST_HELD_CHARS = 65_536
"""Of one guardrail; one that needs more of the text to decide has failed."""
ENDING: tuple[Action, ...] = ("escalate", "block")
_LOOK_BACK = 64
"""Characters looked at again with the next piece: a cut may depend on what follows it."""


class Stage(Protocol):
    """One guardrail's part in one streamed output. A plugin may give its own by a method `stage()`."""

    def take(self, piece: str, *, last: bool) -> tuple[str, list[Verdict]]:
        """Take a piece, `last` at the end of the output; give what may go on, and what there is to say."""


class StreamGuard:
    """Feeds a streamed output through guardrails, one after the other.

    However the output is cut into pieces, what goes through is what the guardrails make of the whole text,
    and so is the action. A guardrail with `cut` holds back the last word or so; one without sees the text
    only when it is whole, and holds all of it back, unless all that it does is flag.

    A block or an escalation ends the output. What stood before its place may have gone through by then
    (how much depends on the pieces), the find itself never has. Where two guardrails would end it, the one
    that comes first in the text does.

    Args:
        guardrails: Opened ones, as `read_guardrails` gives; those that do not look at outputs are left out.
        most_held_chars: That one guardrail may hold back. Past it the guardrail has failed: with `on_error`
            closed the output is blocked, with open what was held goes on unchecked.
    """

    def __init__(self, guardrails: Sequence[Opened], *, most_held_chars: int = MOST_HELD_CHARS) -> None:
        self._stages = [
            _stage(one, most_held_chars) for one in guardrails if "output" in one.settings.where
        ]
        self._verdicts: list[Verdict] = []
        self.ended_by: Verdict | None = None
        """The verdict, `block` or `escalate`, that ended the output; nothing goes through any more."""

    def feed(self, piece: str) -> str:
        """Take one piece of the output, give what may be sent now."""
        return self._through(piece, last=False)

    def finish(self) -> str:
        """Give the rest that may be sent, once the output has ended."""
        return self._through("", last=True)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What was said so far, plain passes left out; redacted parts are left out of them too."""
        return tuple(dict.fromkeys(self._verdicts))

    @property
    def action(self) -> Action:
        """The severest so far."""
        return worst(self._verdicts)

    def _through(self, piece: str, *, last: bool) -> str:
        for stage in self._stages:
            if self.ended_by is not None or not (piece or last):
                return ""
            piece, verdicts = stage.take(piece, last=last)
            for verdict in verdicts:
                if verdict.action != "pass" or verdict.reason is not None:
                    self._verdicts.append(msgspec.structs.replace(verdict, text=None))
                if verdict.action in ENDING and self.ended_by is None:
                    self.ended_by = verdict
        return "" if self.ended_by is not None else piece


class _Cutting:
    """Checks what stands before a safe cut, and holds the rest."""

    def __init__(self, opened: Opened, most_held_chars: int) -> None:
        self._opened, self._most = opened, most_held_chars
        self._cut: Callable[[str, int], int] = opened.guardrail.cut  # type: ignore[attr-defined]
        self._held, self._looked_at = "", 0

    def take(self, piece: str, *, last: bool) -> tuple[str, list[Verdict]]:
        self._held += piece
        try:
            at = len(self._held) if last else self._cut(self._held, max(0, self._looked_at - _LOOK_BACK))
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises, the output has an end
            return self._give_up(type(error).__name__)
        self._looked_at = len(self._held) - at
        if at == 0:
            if len(self._held) > self._most:
                return self._give_up(f"no place to cut in {self._most} characters")
            return "", []
        part, self._held = self._held[:at], self._held[at:]
        return _outcome(self._opened, part)

    def _give_up(self, why: str) -> tuple[str, list[Verdict]]:
        part, self._held, self._looked_at = self._held, "", 0
        return part, [self._opened.failed(why)]


class _Whole:
    """Checks the output when it has ended; lets it by at once where all the guardrail does is flag."""

    def __init__(self, opened: Opened, most_held_chars: int) -> None:
        flags = opened.settings.action == "flag"
        self._opened, self._by = opened, flags
        self._most = opened.settings.most_chars if flags else most_held_chars
        self._parts: list[str] = []
        self._n_chars = 0
        self._gave_up = False

    def take(self, piece: str, *, last: bool) -> tuple[str, list[Verdict]]:
        if self._gave_up:
            return piece, []
        self._parts.append(piece)
        self._n_chars += len(piece)
        if self._n_chars > self._most:
            self._gave_up = True
            held = piece if self._by else "".join(self._parts)
            self._parts.clear()
            return held, [self._opened.failed(f"the output has more than {self._most} characters")]
        if not last:
            return (piece if self._by else ""), []
        text = "".join(self._parts)
        if not self._by:
            return _outcome(self._opened, text)
        return piece, [self._opened.check(text, where="output")]


def _stage(opened: Opened, most_held_chars: int) -> Stage:
    own: Callable[[], Stage] | None = getattr(opened.guardrail, "stage", None)
    if own is not None:
        return own()
    if hasattr(opened.guardrail, "cut"):
        return _Cutting(opened, most_held_chars)
    return _Whole(opened, most_held_chars)


def _outcome(opened: Opened, part: str) -> tuple[str, list[Verdict]]:
    verdict = opened.check(part, where="output")
    redacted = verdict.action == "redact" and verdict.text is not None
    return str(verdict.text) if redacted else part, [verdict]
