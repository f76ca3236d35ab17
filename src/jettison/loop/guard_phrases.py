"""Puts sentences together at random from phrases: what a guard is to catch, and ordinary look-alikes."""

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal

Kind = Literal["attacks", "toxic", "ordinary"]
_SLOT = re.compile(r"\{(\w+)\}")
_MOST_DEEP = 8


class Phrases:
    """The sentence forms of both kinds, by family.

    Args:
        rng: Draws forms and words.
        file: Of this package.
        words: Slots besides those of the file.
    """

    def __init__(
        self,
        rng: random.Random,
        file: str = "guard_phrases.toml",
        *,
        words: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        text = files("jettison.loop").joinpath(file).read_text(encoding="utf-8")
        self._forms: dict[str, Any] = tomllib.loads(text)
        self._forms["slots"] |= {name: list(own) for name, own in (words or {}).items()}
        self._rng = rng

    def families(self, kind: Kind) -> tuple[str, ...]:
        """Names of the families of one kind."""
        return tuple(self._forms[kind])

    def draw(self, kind: Kind, family: str) -> str:
        """One text of a family."""
        text = self._filled(self._rng.choice(self._forms[kind][family]))
        text = re.sub(r" {2,}", " ", text).strip()
        return text[:1].upper() + text[1:] if self._rng.random() < 0.8 else text

    def _filled(self, text: str) -> str:
        for _ in range(_MOST_DEEP):
            if not _SLOT.search(text):
                break
            text = _SLOT.sub(self._word, text)
        return text

    def _word(self, slot: re.Match[str]) -> str:
        name = slot.group(1)
        if name == "n":
            return str(self._rng.choice((2, 3, 5, 7, 10, 12, 20, 48, 100, 250, 1000)))
        return str(self._rng.choice(self._forms["slots"][name]))
