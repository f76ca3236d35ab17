"""Makes guardrails of settings, and keeps their promises when they crash or are too late."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import msgspec

from jettison import registry
from jettison.errors import InvalidInput, UnknownName
from jettison.serve.guardrails.verdict import Guardrail, GuardSettings, Verdict, Where

_MOST_LATE = 16
"""Checks of one guardrail that may hang at once; further ones fail without being tried."""


class Opened:
    """A guardrail that always answers: settings say which texts it sees and what its failure means.

    Args:
        name: What verdicts call it.
        guardrail: The plugin itself.
        settings: Its settings.
    """

    def __init__(self, name: str, guardrail: Guardrail, settings: GuardSettings) -> None:
        self.name = name
        self.guardrail = guardrail
        self.settings = settings
        self.is_for_answers: bool = getattr(guardrail, "is_for_answers", False)
        self._hanging = threading.BoundedSemaphore(_MOST_LATE)
        self._pass = Verdict(action="pass", guardrail=name)

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text; never raises."""
        settings = self.settings
        if where not in settings.where:
            return self._pass
        if len(text) > settings.most_chars:
            return self.failed(f"{len(text)} characters, over most_chars {settings.most_chars}")
        try:
            if settings.timeout_s is None:
                found = self.guardrail.check(text, where=where)
            else:
                found = self._in_time(text, where, settings.timeout_s)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises, the request has an answer
            # Not its message, which may hold the text.
            return self.failed(type(error).__name__)
        if found.guardrail != self.name:
            return msgspec.structs.replace(found, guardrail=self.name)
        return found

    def failed(self, why: str) -> Verdict:
        """What a check that gave no verdict comes to."""
        action: Literal["pass", "block"] = "pass" if self.settings.on_error == "open" else "block"
        return Verdict(action=action, guardrail=self.name, reason=f"could not check: {why}")

    def _in_time(self, text: str, where: Where, timeout_s: float) -> Verdict:
        if not self._hanging.acquire(blocking=False):
            raise TimeoutError
        box: list[Verdict | Exception] = []
        done = threading.Event()

        def work() -> None:
            try:
                box.append(self.guardrail.check(text, where=where))
            except Exception as error:  # noqa: BLE001 - raised again where it was asked
                box.append(error)
            finally:
                self._hanging.release()
                done.set()

        # A daemon: a check that hangs for ever must not keep the process from ending.
        threading.Thread(target=work, name=f"guardrail-{self.name}", daemon=True).start()
        if not done.wait(timeout_s):
            raise TimeoutError
        if isinstance(box[0], Exception):
            raise box[0]
        return box[0]


def open_guardrail(
    use: str,
    settings: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    place: str | None = None,
) -> Opened:
    """Make a guardrail by the name of its plugin.

    Args:
        use: Entry point of the group `jettison.guardrails`.
        settings: Its settings; what is not given has the plugin's default.
        name: What verdicts call it; None takes `use`.
        place: Where the settings stand, for messages.

    Raises:
        UnknownName: There is no such guardrail.
        MissingExtra: It needs a library that is not installed.
        InvalidInput: A setting is unknown or out of its range.
        BrokenArtifact: A model that it needs does not load.
    """
    plugin = registry.load("guardrails", use)
    where = place or f"guardrails.{name or use}"
    try:
        read = msgspec.convert(dict(settings or {}), plugin.Settings)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{where}: {error}. See docs/guardrails.md.") from error
    _check_common(read, where)
    with _said_where(where):
        return Opened(name or use, plugin(read), read)


def read_guardrails(table: Mapping[str, Any], *, place: str = "guardrails") -> tuple[Opened, ...]:
    """Guardrails of a configuration, in its order.

    Args:
        table: Settings by name, as TOML's `[guardrails.NAME]` gives them. `use` names the plugin where
            the name does not, so that one plugin can stand there twice.
        place: Where the table stands, for messages.

    Raises:
        As `open_guardrail`.
    """
    opened = []
    for name, given in table.items():
        if not isinstance(given, Mapping):
            raise InvalidInput(f"{place}.{name} must be a table of settings, got {given!r}.")
        settings = dict(given)
        use = settings.pop("use", name)
        if not isinstance(use, str) or use not in registry.names("guardrails"):
            raise UnknownName(
                f"{place}.{name} must be, or name with `use`, one of "
                f"{list(registry.names('guardrails'))}, got {use!r}."
            )
        opened.append(open_guardrail(use, settings, name=name, place=f"{place}.{name}"))
    return tuple(opened)


def _check_common(settings: GuardSettings, where: str) -> None:
    if settings.timeout_s is not None and not 0 < settings.timeout_s <= 600:
        raise InvalidInput(f"{where}.timeout_s must be above 0 and at most 600, got {settings.timeout_s}.")
    if settings.most_chars < 1:
        raise InvalidInput(f"{where}.most_chars must be at least 1, got {settings.most_chars}.")
    if not settings.where:
        raise InvalidInput(f"{where}.where must hold `input`, `output` or both, got none.")


@contextmanager
def _said_where(where: str) -> Iterator[None]:
    """Put the place before what a plugin finds wrong with its settings."""
    try:
        yield
    except InvalidInput as error:
        raise type(error)(f"{where}: {error}") from error
