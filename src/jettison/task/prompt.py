"""How a language model is asked: part of the task, hashed into the evidence, open to slimming.

A `Prompt` is a record. `messages` and `text` render it; what is the same for every input comes
first, so that an engine can compute it once.
"""

import math
import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from jettison.files import value_sha256

Role = Literal["system", "user", "assistant"]
_PIECE = re.compile(r"[^\W\d_]+|\S|\n\s*")


def most_tokens(text: str) -> int:
    """Tokens that a text may take where its tokenizer is not at hand; estimated, and rather too many.

    A token for every two bytes of a word, for every digit and for every sign: some tokenizers part numbers
    into digits, and texts that are not Latin into little more than characters.
    """
    return sum(math.ceil(len(piece.encode("utf-8", "replace")) / 2) for piece in _PIECE.findall(text))


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a chat."""

    role: Role
    content: str


class Shot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A worked example shown before the question."""

    input: str
    answer: str
    choices: tuple[str, ...] = ()


class Prompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that is said to a language model besides the input itself."""

    template: str = "{input}"
    """One question. `{input}` is the text, `{choices}` the choices as a lettered list, `{labels}` the
    task's labels joined by commas. Other braces stand for themselves."""
    system: str = ""
    """Instruction before everything; a system message where the chat template has one."""
    shots: tuple[Shot, ...] = ()
    answer_prefix: str = ""
    """How the answer begins, as `Answer:`; in plain text it ends the question."""
    between: str = "\n\n"
    """Between system, shots and question, in plain text."""
    after_system: str | None = None
    """Between system and what follows, in plain text; None is the same as `between`."""
    before_answer: str = " "
    """Between question and answer, in plain text."""
    normalise: Literal["none", "length", "unconditional"] = "none"
    """What the likelihood of a choice is set against: nothing, its length in characters, or its
    likelihood without the question."""
    alone: str | None = None
    """What choices follow to be weighed without the question: None is the answer prefix, or `Answer:`
    where there is none; an empty text is nothing at all, as in lm-eval."""
    chat: bool | None = None
    """Whether the model's chat template is used; None uses it where there is one."""
    words: dict[str, str] = msgspec.field(default_factory=dict)
    """Label → how it is said; a label that is not here is said as it is written."""
    max_tokens: int = 64
    """Longest answer, in tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end an answer."""

    @property
    def digest(self) -> str:
        """Identity of everything said: equal prompts have equal digests."""
        # Not of `self`: whether a string is left out as a default goes by identity in msgspec.
        facts = msgspec.structs.asdict(self)
        if facts["alone"] is None:  # younger than prompts that evidence names
            del facts["alone"]
        return value_sha256(facts)

    def word(self, label: str) -> str:
        """How a label is said."""
        return self.words.get(label, label)

    def question(self, text: str, choices: Sequence[str] = (), labels: Sequence[str] = ()) -> str:
        """The template with one input, its choices and the task's labels filled in."""
        lettered = "\n".join(f"{chr(65 + i)}. {choice}" for i, choice in enumerate(choices))
        said = ", ".join(self.word(label) for label in labels)
        # The input goes in last, so that braces in it are left alone.
        filled = self.template.replace("{labels}", said).replace("{choices}", lettered)
        return filled.replace("{input}", text)

    def messages(
        self, text: str, choices: Sequence[str] = (), labels: Sequence[str] = ()
    ) -> tuple[Message, ...]:
        """The chat that asks one question: system, shots as earlier turns, the question."""
        found = [Message(role="system", content=self.system)] if self.system else []
        for shot in self.shots:
            asked = self.question(shot.input, shot.choices, labels)
            found.append(Message(role="user", content=asked))
            found.append(Message(role="assistant", content=self.word(shot.answer)))
        return (*found, Message(role="user", content=self.question(text, choices, labels)))

    def text(self, text: str, choices: Sequence[str] = (), labels: Sequence[str] = ()) -> str:
        """The same as plain text, for a model without a chat template; it ends where the answer begins."""
        parts: list[str] = []
        for shot in self.shots:
            asked = self.question(shot.input, shot.choices, labels)
            parts.append(f"{asked}{self.answer_prefix}{self.before_answer}{self.word(shot.answer)}")
        asked = self.between.join([*parts, f"{self.question(text, choices, labels)}{self.answer_prefix}"])
        after = self.between if self.after_system is None else self.after_system
        return f"{self.system}{after}{asked}" if self.system else asked
