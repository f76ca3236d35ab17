"""What every guardrail must hold, whatever it looks for: `check_guardrail(name, settings, caught=…)`."""

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jettison.errors import InvalidInput
from jettison.serve.guardrails import Opened, StreamGuard, Verdict, Where, open_guardrail
from jettison.serve.guardrails.verdict import ACTIONS
from jettison.testing.backend import AWKWARD_TEXTS

_TOLD = 8
"""Characters of a caught text in a row that a reason must not repeat."""
_ENDING = ("block", "escalate")


def check_guardrail(
    use: str,
    settings: Mapping[str, Any] | None = None,
    *,
    caught: Sequence[str],
    passed: Sequence[str],
    where: Where | None = None,
    seed: int = 0,
) -> None:
    """Check that a guardrail keeps the promises of `jettison.serve.guardrails.Guardrail`.

    Args:
        use: Name of the plugin, registered or declared.
        settings: To make it with; it is asked with every action that it takes.
        caught: Texts that it must catch.
        passed: Texts that it must let pass.
        where: What the texts are; None takes the first that the guardrail looks at.
        seed: Of the places where streamed outputs are cut.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    given = dict(settings or {})
    guards = _for_each_action(use, given)
    _check_settings(use, given)
    rng = random.Random(seed)
    for guard in guards:
        side = where or guard.settings.where[0]
        for text in (*caught, *passed, *AWKWARD_TEXTS):
            _check_verdict(guard, text, side)
        for text in caught:
            _check_caught(guard, text, side)
        for text in passed:
            verdict = guard.check(text, where=side)
            _hold(verdict.action == "pass", f"{text[:40]!r} must pass, got {verdict.action}")
        _check_threads(guard, [*caught, *passed], side)
        if "output" in guard.settings.where:
            for text in (*caught, *passed, " ".join((*passed, *caught, *passed)), *AWKWARD_TEXTS[:-1]):
                _check_stream(guard, text, rng)


def _for_each_action(use: str, settings: dict[str, Any]) -> list[Opened]:
    made = []
    for action in ACTIONS[1:]:
        try:
            made.append(open_guardrail(use, settings | {"action": action, "on_error": "closed"}))
        except InvalidInput as error:
            _hold("action" in str(error), f"settings must be taken with every action, got {error}")
    _hold(bool(made), "at least one of flag, redact, escalate and block must be taken as action")
    return made


def _check_settings(use: str, settings: dict[str, Any]) -> None:
    for name, value in (("no_such_setting", 1), ("on_error", "sometimes"), ("timeout_s", -1.0)):
        try:
            open_guardrail(use, settings | {name: value})
        except InvalidInput:
            continue
        raise AssertionError(f"a bad setting must raise InvalidInput, got none for {name} = {value!r}")


def _check_verdict(guard: Opened, text: str, where: Where) -> None:
    at = f"on {text[:40]!r}"
    verdict = guard.guardrail.check(text, where=where)  # itself, so that what it raises is seen
    _hold(isinstance(verdict, Verdict), f"check must give a Verdict, got {type(verdict).__name__} {at}")
    _hold(verdict.action in ACTIONS, f"action must be one of {ACTIONS}, got {verdict.action!r} {at}")
    _hold(
        verdict.score is None or 0.0 <= verdict.score <= 1.0,
        f"score must be in 0-1 or None, got {verdict.score} {at}",
    )
    _hold(
        (verdict.action == "redact") == (verdict.text is not None),
        f"text must be given with redact and with nothing else, got {verdict.action} {at}",
    )
    again = guard.guardrail.check(text, where=where)
    _hold(verdict == again, f"the same text must get the same verdict {at}")


def _check_caught(guard: Opened, text: str, where: Where) -> None:
    verdict = guard.check(text, where=where)
    allowed = {guard.settings.action} | ({"block"} if guard.settings.action == "redact" else set())
    at = f"on {text[:40]!r}"
    _hold(verdict.action in allowed, f"action must be {guard.settings.action}, got {verdict.action} {at}")
    reason = verdict.reason or ""
    _hold(bool(reason), f"a caught text must be given a reason, got none {at}")
    told = [text[i : i + _TOLD] for i in range(len(text) - _TOLD + 1)]
    repeated = next((run for run in told if run in reason), None)
    _hold(repeated is None, f"a reason must not repeat what was caught, got {repeated!r} {at}")
    if verdict.text is not None:
        after = guard.check(verdict.text, where=where)
        _hold(after.action == "pass", f"a redacted text must pass, got {after.action} {at}")


def _check_threads(guard: Opened, texts: Sequence[str], where: Where) -> None:
    alone = [guard.check(text, where=where) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: guard.check(text, where=where), list(texts) * 8))
    _hold(together == alone * 8, "verdicts must be the same from several threads at once")


def _check_stream(guard: Opened, text: str, rng: random.Random) -> None:
    """Cut anywhere, an output comes to what it comes to as a whole."""
    whole = guard.check(text, where="output")
    for size in (1, 3, 1 + len(text)):
        stream = StreamGuard([guard])
        sent, start = "", 0
        while start < len(text) and stream.ended_by is None:
            end = start + (size if size != 3 else rng.randint(1, 12))
            sent += stream.feed(text[start:end])
            start = end
        sent += stream.finish()
        at = f"of {text[:40]!r} in pieces of about {size}"
        _hold(stream.action == whole.action, f"the action {at} must be {whole.action}, got {stream.action}")
        if whole.action in _ENDING:
            _hold(
                text.startswith(sent) and (sent != text or not text),
                f"what goes through {at} must stop before the find",
            )
            continue
        wanted = text if whole.text is None else whole.text
        _hold(sent == wanted, f"what goes through {at} must be {wanted[:80]!r}, got {sent[:80]!r}")


def _hold(rule: bool, message: str) -> None:
    if not rule:
        raise AssertionError(message)
