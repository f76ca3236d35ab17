"""A backend without a model: answers are a fixed function of the text, for tests and dry runs."""

import hashlib
import time
from collections.abc import Sequence

import numpy as np

from jettison.backends.text import TextClassifier
from jettison.candidate import Candidate


class FakeClassifier(TextClassifier):
    """Right on a text that names its label, by the accuracy it is told to have.

    Settings: `accuracy` (share of texts it gets right), `seed` (which ones), `latency_s`
    (CPU time burnt per text), `margin` (logit of the label chosen), `fails_on` (an IndexError is
    raised for a text that holds it).
    """

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(candidate)
        self._accuracy = float(candidate.settings.get("accuracy", 1.0))
        self._seed = int(candidate.settings.get("seed", 0))
        self._latency_s = float(candidate.settings.get("latency_s", 0.0))
        self._margin = float(candidate.settings.get("margin", 4.0))
        self._fails_on = str(candidate.settings.get("fails_on", ""))

    def logits(self, inputs: Sequence[str]) -> np.ndarray:
        """Logits, shape (n_inputs, n_labels); the same text always gives the same row."""
        if self._fails_on and any(self._fails_on in text for text in inputs):
            raise IndexError("index out of range in self")
        found = np.zeros((len(inputs), len(self.labels)), np.float32)
        for row, text in enumerate(inputs):
            draw = _uniform(f"{self._seed}:{text}")
            named = next((i for i, label in enumerate(self.labels) if label in text), 0)
            right = draw < self._accuracy
            index = named if right else (named + 1) % len(self.labels)
            found[row, index] = self._margin * (0.5 + 0.5 * _uniform(f"{self._seed}/{text}"))
            if self._latency_s:
                burn_until = time.thread_time() + self._latency_s
                while time.thread_time() < burn_until:
                    sum(range(500))  # the clock is a system call: ask it seldom
        return found


def _uniform(text: str) -> float:
    """A number in 0-1 that depends on nothing but the text."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def open_fake(candidate: Candidate) -> FakeClassifier:
    """Open a fake candidate."""
    return FakeClassifier(candidate)
