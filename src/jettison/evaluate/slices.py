"""Slices that every task has without asking: short and long, rare and common, dense and sparse inputs."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
from scipy.sparse import csr_matrix

from jettison.errors import NotEnoughData
from jettison.evaluate.features import N_FEATURES, gram_counts, nearness, weighted
from jettison.task import Development, Example

LENGTH, CLASS_FREQUENCY, DENSITY = "length", "class_frequency", "density"
MOST_REFERENCES = 4000
"""Train examples an input is compared with; more cost time and say little more."""
LOW_DENSITY_SHARE = 0.2
"""Share of dev that is called low density."""


class Slicer:
    """Adds the slices `length`, `class_frequency` and `density`, with limits fixed on train and dev.

    `length`: short, medium or long, by the terciles of characters in train.
    `class_frequency`: rare or common; a class with less than half the train examples of
    the average class is rare, as is one that train lacks. The only slice that looks at
    the expected label; an example without one does not get it.
    `density`: low or high; low is an input further from its nearest train examples
    (cosine of hashed character 4-grams, TF-IDF) than four fifths of dev are.
    A slice that the data already brings under one of these names is kept. Where there is no train,
    unlabelled texts stand in for it, and dev for its labels.
    """

    def __init__(
        self,
        *,
        length_limits: tuple[float, float],
        rare: frozenset[str],
        known: frozenset[str],
        idf: np.ndarray,
        reference: csr_matrix,
        density_limit: float,
    ) -> None:
        self._length_limits = length_limits
        self._rare = rare
        self._known = known
        self._idf = idf
        self._reference = reference
        self._density_limit = density_limit

    @classmethod
    def fit(cls, development: Development, *, seed: int = 0) -> "Slicer":
        """Fix the limits.

        Raises:
            NotEnoughData: There are no examples at all.
        """
        dev = development.dev
        seen = development.train or development.unlabelled or dev
        if not seen:
            raise NotEnoughData("slices need examples to tell rare from common, got none.")
        lengths = np.array([len(example.input) for example in seen])
        labelled = development.train if any(e.expected is not None for e in development.train) else dev
        counts = Counter(example.expected for example in labelled if example.expected is not None)
        texts = [example.input for example in seen]
        if len(texts) > MOST_REFERENCES:
            chosen = np.random.default_rng(seed).choice(len(texts), MOST_REFERENCES, replace=False)
            texts = [texts[i] for i in sorted(chosen)]
        grams = gram_counts(texts)
        seen_in = np.bincount(grams.indices, minlength=N_FEATURES)
        idf = np.log((1 + len(texts)) / (1 + seen_in)) + 1
        reference = weighted(grams, idf)
        # Without dev, or without anything else, texts are measured against each other, not themselves.
        near = (
            nearness(weighted(gram_counts([e.input for e in dev]), idf), reference)
            if dev and seen is not dev
            else nearness(reference, reference, skip_best=True)
        )
        return cls(
            length_limits=(float(np.quantile(lengths, 1 / 3)), float(np.quantile(lengths, 2 / 3))),
            rare=_rare_classes(counts),
            known=frozenset(counts),
            idf=idf,
            reference=reference,
            density_limit=float(np.quantile(near, LOW_DENSITY_SHARE)),
        )

    def apply(self, examples: Sequence[Example]) -> tuple[Example, ...]:
        """The examples with their slices added, in order."""
        if not examples:
            return ()
        rows = weighted(gram_counts([example.input for example in examples]), self._idf)
        low = nearness(rows, self._reference) < self._density_limit
        return tuple(
            msgspec.structs.replace(
                example,
                slices={
                    LENGTH: self._length(example.input),
                    **self._class_frequency(example.expected),
                    DENSITY: "low" if is_low else "high",
                    **example.slices,
                },
            )
            for example, is_low in zip(examples, low.tolist(), strict=True)
        )

    def _length(self, text: str) -> str:
        short, long = self._length_limits
        return "short" if len(text) <= short else "medium" if len(text) <= long else "long"

    def _class_frequency(self, label: str | None) -> dict[str, str]:
        if label is None:
            return {}
        common = label in self._known and label not in self._rare
        return {CLASS_FREQUENCY: "common" if common else "rare"}


def _rare_classes(counts: Counter[str]) -> frozenset[str]:
    """Classes with less than half the examples of the average class."""
    average = sum(counts.values()) / max(1, len(counts))
    return frozenset(label for label, count in counts.items() if count < average / 2)
