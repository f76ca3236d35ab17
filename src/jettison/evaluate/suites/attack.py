"""Tier `adversarial`: a bounded black-box search for a small change that turns a right answer wrong.

The attacker sees labels and confidences, as any client does, and pays for each question it asks. First
each word is left out once, to find those the answer hangs on; then, from the most telling one on,
slips, look-alikes and swaps with a neighbor are tried, and the most harmful is kept. It stops at the
first wrong answer, at the limit of changed words, or when the budget is spent.

Source: Jin et al. 2020 (TextFooler) for the word ranking; Gao et al. 2018 (DeepWordBug) and Pruthi et
al. 2019 for changes that people still read. Words are never replaced by other words, and no slip makes
another common English word and no negation is moved, so that the right answer stays.
"""

import re
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from jettison.backends.ask import ask
from jettison.errors import InvalidInput
from jettison.evaluate.scorers import Scorer
from jettison.evaluate.suites.perturbations import LEAST_LETTERS, lookalikes, slip
from jettison.evaluate.suites.tier import in_tier, rng_of
from jettison.model import Model, Output, softmax
from jettison.record import Record
from jettison.task import Example

CODE_VERSION = 2
"""Of the search: attacks that another version found are not taken for this one's."""
BUDGET = 60
"""Questions for one example."""
CHANGED_SHARE = 0.2
"""Share of the words that may be changed, at least one."""
ROBUST = "robust"
"""Scorer name of the outcome: 1 where the answer was right and the search found nothing, else 0."""
NEGATIONS = frozenset(("not", "no", "never", "without", "nor", "neither", "hardly", "only"))
"""Words that are not moved: what stands after them is what they deny."""
_TRIES = 6
"""Changes tried for one word."""
Progress = Callable[[str, float | None], None]


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """The search on one example."""

    example: Example
    """As it is in the task."""
    text: str
    """The worst text found; the example's own where it was wrong from the start."""
    was_right: bool
    succeeded: bool
    """Whether a right answer was turned wrong."""
    n_queries: int
    n_changed: int
    """Words changed in `text`."""
    answer: str | None
    """What the model says to `text`."""

    @property
    def robust(self) -> float:
        return float(self.was_right and not self.succeeded)


def attack_all(
    model: Model,
    examples: Sequence[Example],
    scorer: Scorer,
    *,
    budget: int = BUDGET,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Attack, ...]:
    """Attack a model on every example; the same seed and model give the same outcome.

    Args:
        model: Asked only; at most `budget` times for each example.
        examples: With right answers, and no choices of their own.
        scorer: Says whether an answer is right (score of at least 1).
        budget: Questions for one example, at least 2.
        seed: Of the changes tried.
        progress: Called with a phrase and the share done in 0-1.

    Raises:
        InvalidInput: The budget is under 2, or an example brings its own choices.
    """
    if budget < 2:
        raise InvalidInput(f"an attack's budget must be at least 2 questions an example, got {budget}.")
    found = []
    for i, example in enumerate(examples):
        if example.choices:
            raise InvalidInput(
                f"an attack needs one text an example, got one with choices at {example.id}."
            )
        found.append(_Search(model, example, scorer, budget, seed).run())
        if progress is not None:
            progress("attacking", (i + 1) / len(examples))
    return tuple(found)


def attacked_examples(attacks: Sequence[Attack], *, victim: str, seed: int) -> tuple[Example, ...]:
    """The successful attacks as examples with their right answers, for any other model.

    The victim is wrong on each by construction: judge another model on them, or all models by `robust`.
    """
    return tuple(
        in_tier(
            msgspec.structs.replace(one.example, input=one.text),
            "adversarial",
            name=f"attack-{victim}",
            source=f"{one.example.id} attacked on {victim}, {one.n_queries} questions, seed {seed}",
            slices={"attacked": victim},
            made=True,
        )
        for one in attacks
        if one.succeeded
    )


def attack_records(attacks: Sequence[Attack], *, digest: str, split: str = "test") -> tuple[Record, ...]:
    """One record an example with the score `robust`; it pairs with another model's under its own attack."""
    return tuple(
        Record(
            candidate=digest,
            example_id=one.example.id,
            split=split,
            output=one.answer,
            expected=one.example.expected,
            scores={ROBUST: one.robust},
            slices={**one.example.slices, "attack": "searched"},
            group=one.example.group,
            weight=one.example.weight,
        )
        for one in attacks
    )


class _Search:
    """One example under attack."""

    def __init__(self, model: Model, example: Example, scorer: Scorer, budget: int, seed: int) -> None:
        self._model, self._example, self._scorer = model, example, scorer
        self._left = budget
        self._budget = budget
        self._rng = rng_of(seed, "attack", example.id)

    def run(self) -> Attack:
        text = self._example.input
        ((right, trust, answer),) = self._ask([text])
        if not right:
            return self._attack(text, answer, was_right=False)
        words = [m.span() for m in re.finditer(r"\w+", text)]
        most = max(1, int(CHANGED_SHARE * len(words)))
        pieces = _pieces(text, words)
        order = self._telling(pieces, trust)
        n_changed = 0
        for at in order:
            if n_changed == most or self._left == 0:
                break
            tries = self._changes(pieces, at)[: self._left]
            if not tries:
                continue
            judged = self._ask(["".join(one) for one in tries])
            for one, (still, _, said) in zip(tries, judged, strict=True):
                if not still:
                    return self._attack(
                        "".join(one), said, was_right=True, n_changed=n_changed + 1, won=True
                    )
            worst = min(range(len(tries)), key=lambda i: judged[i][1])
            if judged[worst][1] < trust:
                pieces, trust, answer, n_changed = (
                    tries[worst],
                    judged[worst][1],
                    judged[worst][2],
                    n_changed + 1,
                )
        return self._attack("".join(pieces), answer, was_right=True, n_changed=n_changed)

    def _telling(self, pieces: list[str], trust: float) -> list[int]:
        """Places of words, by how far trust falls without each; asks half the budget at most."""
        places = list(range(1, len(pieces), 2))
        if len(places) > max(1, self._left // 2):
            places = sorted(self._rng.choice(places, max(1, self._left // 2), replace=False).tolist())
        without = ["".join((*pieces[:p], *pieces[p + 1 :])) for p in places]
        if len(places) < 2 or not all(text.strip() for text in without):
            return places
        falls = [trust - one[1] for one in self._ask(without)]
        return [places[i] for i in np.argsort(falls, kind="stable")[::-1].tolist()]

    def _changes(self, pieces: list[str], at: int) -> list[list[str]]:
        """Ways to change the word at a place, all different."""
        word = pieces[at]
        made: dict[str, list[str]] = {}
        if len(word) >= LEAST_LETTERS and word.isalpha():
            for _ in range(_TRIES - 2):
                changed = slip(word, self._rng)
                made.setdefault(changed, [*pieces[:at], changed, *pieces[at + 1 :]])
        if (alike := lookalikes(word, self._rng)) is not None:
            made.setdefault(alike, [*pieces[:at], alike, *pieces[at + 1 :]])
        if at + 2 < len(pieces) and pieces[at + 1].isspace() and _may_swap(word, pieces[at + 2]):
            swapped = [*pieces[:at], pieces[at + 2], pieces[at + 1], word, *pieces[at + 3 :]]
            made.setdefault("\0swap", swapped)
        return list(made.values())

    def _ask(self, texts: list[str]) -> list[tuple[bool, float, str | None]]:
        """Whether each is answered rightly, how far the right answer is trusted, and the answer."""
        self._left -= len(texts)
        judged = []
        for output in ask(self._model, texts):
            value = self._scorer.score(self._example, output).value
            right = value is None or value >= 1.0  # what cannot be judged is no success
            judged.append((right, self._trust(output, right), None if output.error else output.label))
        return judged

    def _trust(self, output: Output, right: bool) -> float:
        labels = self._model.labels
        if output.logits is not None and self._example.expected in labels:
            row = softmax(np.asarray(output.logits, float)[None])[0]
            return float(row[labels.index(self._example.expected)])
        return output.confidence if right else 1.0 - output.confidence

    def _attack(
        self, text: str, answer: str | None, *, was_right: bool, n_changed: int = 0, won: bool = False
    ) -> Attack:
        return Attack(
            example=self._example,
            text=text,
            was_right=was_right,
            succeeded=won,
            n_queries=self._budget - self._left,
            n_changed=n_changed,
            answer=answer,
        )


def _may_swap(word: str, following: str) -> bool:
    return word != following and not {word.casefold(), following.casefold()} & NEGATIONS


def _pieces(text: str, words: Sequence[tuple[int, int]]) -> list[str]:
    """Text cut at its words: what is between them at even places, words at odd ones."""
    pieces, end = [], 0
    for start, stop in words:
        pieces += [text[end:start], text[start:stop]]
        end = stop
    return [*pieces, text[end:]]
