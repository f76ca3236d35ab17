"""A small verifier: the chance that a free answer is right, by how it came about and what it looks like.

It is a logistic function of ten numbers, fitted on dev by step `verify`; it lies beside the weights in
`verifier.json`, and `PromptedModel` takes its word for the answer's confidence.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from jettison.errors import BrokenArtifact
from jettison.language import Completion

FILE = "verifier.json"
FEATURES = (
    "mean_logprob",
    "least_logprob",
    "first_logprob",
    "n_logprobs",
    "agreement",
    "ended",
    "input_characters",
    "answer_characters",
    "answer_words_in_input",
    "digit_share",
)
"""What it sees of an answer, in this order; sizes as logarithms."""
FURTHEST = 4.0
"""Standard deviations from dev's mean that a feature counts at most: beyond, nothing was learned."""


class Verifier(msgspec.Struct, frozen=True, kw_only=True):
    """Weights of the logistic function; each list is as long as `FEATURES`."""

    center: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def chance(self, features: np.ndarray) -> float:
        """Probability that an answer of these features is right."""
        z = float(self.standardized(features) @ np.array(self.weights)) + self.bias
        return 1.0 / (1.0 + math.exp(-min(max(z, -30.0), 30.0)))

    def standardized(self, features: np.ndarray) -> np.ndarray:
        """Features, shape (..., n_features), in dev's standard deviations from its mean."""
        apart = (np.asarray(features, float) - np.array(self.center)) / np.array(self.scale)
        return np.asarray(np.clip(apart, -FURTHEST, FURTHEST))


def read_verifier(folder: Path) -> Verifier | None:
    """The verifier beside a candidate's weights; None where there is none.

    Raises:
        BrokenArtifact: The file is no verifier.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Verifier)
    except msgspec.DecodeError as error:
        raise BrokenArtifact(f"{path} must be a verifier, got: {error}.") from error
    lengths = {len(one) for one in (found.center, found.scale, found.weights)}
    if lengths != {len(FEATURES)} or min(found.scale) <= 0:
        raise BrokenArtifact(f"{path} must hold {len(FEATURES)} weights, centers and scales above 0.")
    return found


def answer_features(asked: str, answers: Sequence[Completion], label: str) -> np.ndarray:
    """What a verifier sees of an answer, shape (n_features,).

    Args:
        asked: The input's text.
        answers: What came back, one or several samples; of several the first tells the log-probabilities.
        label: The answer that was read out of them.
    """
    logprobs = answers[0].token_logprobs or (0.0,)
    words = label.split()
    shared = set(asked.casefold().split())
    n_agree = sum(answer.text.strip() == label for answer in answers)
    return np.array(
        [
            sum(logprobs) / len(logprobs),
            min(logprobs),
            logprobs[0],
            math.log(len(logprobs)),
            n_agree / len(answers),
            float(answers[0].finish == "stop"),
            math.log1p(len(asked)),
            math.log1p(len(label)),
            sum(word.casefold() in shared for word in words) / max(1, len(words)),
            sum(c.isdigit() for c in label) / max(1, len(label)),
        ]
    )
