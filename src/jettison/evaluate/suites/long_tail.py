"""Tier `long_tail`: what the model saw seldom, marked on the test examples themselves.

Its examples are of the domain, so that they stay in it and are marked in columns: `long_tail` (yes or
no), and the reasons `tail_class`, `tail_density`, `tail_tokens`, `tail_length`. Every limit is fixed on
train and dev, none on what a model answers. What is near is told by the vectors of an embedder where one is
given, else by characters in common.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from jettison.backends.embedder import open_embedder
from jettison.errors import NotEnoughData
from jettison.evaluate.features import TextFeatures, nearness
from jettison.evaluate.suites.tier import rng_of
from jettison.task import Development, Example

COLUMN = "long_tail"
REASONS = ("tail_class", "tail_density", "tail_tokens", "tail_length")
TAIL_SHARE = 0.1
"""Share of dev beyond each limit."""
MOST_REFERENCES = 4000


class LongTail:
    """Says of an example whether it is of the long tail, and why."""

    def __init__(self, development: Development, *, embedder: Path | None = None, seed: int = 0) -> None:
        seen = development.train or development.unlabelled or development.dev
        if not seen:
            raise NotEnoughData("a long tail needs examples to tell rare from common, got none.")
        dev = development.dev or seen
        labelled = [e.expected for e in development.train or development.dev if e.expected is not None]
        counts = Counter(labelled)
        average = len(labelled) / max(1, len(counts))
        self._rare = {label for label, n in counts.items() if n < average / 2}
        self._known = frozenset(counts) if development.kind == "classify" else None
        self._out_of_scope = development.out_of_scope
        self._seen_in = Counter(word for e in seen for word in set(_words(e.input)))
        texts = [e.input for e in seen]
        if len(texts) > MOST_REFERENCES:
            chosen = rng_of(seed, COLUMN).choice(len(texts), MOST_REFERENCES, replace=False)
            texts = [texts[i] for i in sorted(chosen.tolist())]
        self._features = TextFeatures(texts) if embedder is None else _Embedded(texts, embedder)
        near = nearness(
            self._features.of([e.input for e in dev]), self._features.rows, skip_best=dev is seen
        )
        self._density = float(np.quantile(near, TAIL_SHARE))
        self._rarity = float(np.quantile([self._rarity_of(e.input) for e in dev], 1 - TAIL_SHARE))
        lengths = [len(e.input) for e in seen]
        self._lengths = np.quantile(lengths, [TAIL_SHARE / 2, 1 - TAIL_SHARE / 2]).tolist()

    def mark(self, examples: Sequence[Example]) -> tuple[Example, ...]:
        """The examples with their columns, in order; what is out of scope is of no tail, and has none."""
        inside = [e for e in examples if self._out_of_scope is None or e.expected != self._out_of_scope]
        if not inside:
            return tuple(examples)
        near = nearness(self._features.of([e.input for e in inside]), self._features.rows)
        marked = {
            example.id: self._marked(example, float(value))
            for example, value in zip(inside, near, strict=True)
        }
        return tuple(marked.get(example.id, example) for example in examples)

    def _marked(self, example: Example, near: float) -> Example:
        short, long = self._lengths
        found = {
            "tail_class": self._is_rare(example.expected),
            "tail_density": near < self._density,
            "tail_tokens": self._rarity_of(example.input) > self._rarity,
            "tail_length": not short <= len(example.input) <= long,
        }
        slices = {name: "yes" if is_so else "no" for name, is_so in found.items()}
        slices[COLUMN] = "yes" if any(found.values()) else "no"
        return msgspec.structs.replace(example, slices={**example.slices, **slices})

    def _is_rare(self, label: str | None) -> bool:
        if self._known is None or label is None:
            return False
        return label in self._rare or label not in self._known

    def _rarity_of(self, text: str) -> float:
        """Mean of -log of each word's share of all words seen; an unseen one counts half."""
        words = _words(text)
        n = max(1, self._seen_in.total())
        return float(np.mean([-np.log((self._seen_in[w] or 0.5) / n) for w in words])) if words else 0.0


class _Embedded:
    """Texts as vectors of an embedder, as `TextFeatures` makes them of characters."""

    def __init__(self, texts: Sequence[str], folder: Path) -> None:
        self._embedder = open_embedder(folder)
        self.rows = self.of(texts)

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows, shape (n_texts, width)."""
        return self._embedder.embed(list(texts))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
