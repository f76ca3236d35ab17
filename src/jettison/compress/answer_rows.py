"""Examples as a language model reads them: the rendered prompt, then the answer, as token ids.

The prompt is rendered and cut into tokens as the engine does it, so that what is learned is what
is asked later.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from jettison.backends.language_tokens import LanguageTokens, apply_template, load_language_tokenizer
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact
from jettison.task import Example, Input, Question, TaskKind
from jettison.task.prompt import Prompt

NAMED = ("classify", "choose", "rank")
"""Kinds whose answers are words of the prompt, and not free text."""


@dataclass(frozen=True, kw_only=True)
class TopTokens:
    """What a teacher finds likely after each of the last tokens of a row."""

    ids: np.ndarray
    """Shape (n_places, k), int32."""
    logprobs: np.ndarray
    """Shape (n_places, k), float32, natural log at the teacher's temperature."""


@dataclass(frozen=True, kw_only=True)
class AnswerRows:
    """Prompts with their answers, tokenized."""

    ids: Sequence[Sequence[int]]
    """Prompt and answer in one, not padded."""
    n_answer: np.ndarray
    """How many tokens at the end of each row are the answer, shape (n,), int64."""
    teacher: Sequence[TopTokens] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_scored(self) -> int:
        """The most places of a row that get logits: its answer, or what its teacher taught."""
        taught = (len(top.ids) for top in self.teacher or ())
        return max(1, int(self.n_answer.max(initial=0)), *taught)

    def take(self, index: np.ndarray) -> "AnswerRows":
        """The rows at these places."""
        teacher = None if self.teacher is None else [self.teacher[i] for i in index]
        return AnswerRows(ids=[self.ids[i] for i in index], n_answer=self.n_answer[index], teacher=teacher)


class PromptTokens:
    """Renders a candidate's prompt and cuts it into tokens.

    Args:
        candidate: A causal checkpoint with its tokenizer.
        max_tokens: Longest row; longer prompts lose their beginning.
    """

    def __init__(self, candidate: Candidate, max_tokens: int) -> None:
        settings = candidate.settings
        self.tokenizer: Any = load_language_tokenizer(candidate)
        self.max_tokens = max_tokens
        self._kind = str(settings.get("kind", "classify"))
        self._labels = candidate.labels
        self._tokens = LanguageTokens(
            self.tokenizer, add_bos=settings.get("add_bos"), max_context=max_tokens
        )
        try:
            self.prompt = msgspec.convert(settings.get("prompt", {}), Prompt)
        except msgspec.ValidationError as error:
            raise BrokenArtifact(
                f"settings.prompt of {candidate.path} must be a prompt: {error}."
            ) from error
        has_template = bool(getattr(self.tokenizer, "chat_template", None))
        self.is_chat = self.prompt.chat is not False and has_template

    @property
    def pad_id(self) -> int:
        """Token that fills short rows; it is masked, so any will do."""
        return self._tokens.pad

    def context(self, asked: Input) -> str:
        """What the model reads before it answers."""
        text, choices = (asked.text, asked.choices) if isinstance(asked, Question) else (asked, ())
        if self.is_chat:
            messages = self.prompt.messages(text, choices, self._labels)
            return apply_template(self.tokenizer, messages) + self.prompt.answer_prefix
        return self.prompt.text(text, choices, self._labels)

    def answer(self, said: str) -> str:
        """An answer as it follows the context."""
        word = self.prompt.word(said) if self._kind in NAMED else said
        at_once = self.is_chat and not self.prompt.answer_prefix
        return word if at_once else f"{self.prompt.before_answer}{word}"

    def row(self, asked: Input, said: str, *, ends: bool = True) -> tuple[list[int], int]:
        """Ids of prompt and answer, and how many of them are the answer.

        Args:
            asked: The input.
            said: The answer: a label, a choice, a text.
            ends: Whether the token that ends an answer belongs to it.
        """
        context = self.context(asked)
        bare = context.rstrip()
        before, whole = self._tokens.encode([bare, context + self.answer(said)])
        if not before:
            before, whole = [self._tokens.start], [self._tokens.start, *whole]
        answer = whole[len(before) :]
        if ends and self.tokenizer.eos_token_id is not None:
            answer = [*answer, int(self.tokenizer.eos_token_id)]
        answer = answer[: max(1, self.max_tokens - 1)]
        return [*before[-max(1, self.max_tokens - len(answer)) :], *answer], len(answer)

    def rows(self, pairs: Sequence[tuple[Input, str]], *, ends: bool = True) -> AnswerRows:
        """Inputs with their answers, in order."""
        made = [self.row(asked, said, ends=ends) for asked, said in pairs]
        return AnswerRows(ids=[ids for ids, _ in made], n_answer=np.array([n for _, n in made], np.int64))


def known_pairs(examples: Sequence[Example], kind: TaskKind | str) -> list[tuple[Input, str]]:
    """Inputs whose right answer somebody has said, with it."""
    found: list[tuple[Input, str]] = []
    for example in examples:
        said = known_answer(example, kind)
        if said is not None:
            found.append((example.asked, said))
    return found


def known_answer(example: Example, kind: TaskKind | str) -> str | None:
    """The right answer of an example; of a ranking, its most relevant choice. None: nobody has said."""
    if kind == "rank" and example.relevance and example.choices:
        return example.choices[int(np.argmax(example.relevance))]
    return example.expected


def answer_said(label: str, asked: Input, kind: TaskKind | str) -> str:
    """An output's label as an answer to learn; of a ranking, the choice put first."""
    if kind != "rank" or not isinstance(asked, Question):
        return label
    try:
        order = msgspec.json.decode(label.encode(), type=list[int])
        return asked.choices[order[0]]
    except (msgspec.MsgspecError, IndexError):
        return label
