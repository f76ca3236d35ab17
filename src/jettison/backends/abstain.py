"""Abstaining: an input that looks out of scope is answered by the out-of-scope label, and said so."""

from collections.abc import Sequence
from typing import Any

import msgspec

from jettison.candidate import Candidate
from jettison.model import Model, Output

WHEN_OUT_OF_SCOPE = "when_out_of_scope"
"""Setting of a candidate: `abstain`, or absent."""


class Abstaining:
    """A model that withholds what it would have said of inputs that it flags."""

    def __init__(self, inner: Model, outside: str) -> None:
        self.labels = inner.labels
        self._inner = inner
        self._outside = outside

    def predict(self, inputs: Sequence[Any]) -> list[Output]:
        """One output per input; of a flagged one, the out-of-scope label."""
        return [_withheld(output, self._outside) for output in self._inner.predict(inputs)]

    def close(self) -> None:
        """Close the model within."""
        self._inner.close()


def abstains(candidate: Candidate) -> bool:
    """Whether a candidate was made to abstain; without an out-of-scope label it cannot."""
    return candidate.out_of_scope is not None and candidate.settings.get(WHEN_OUT_OF_SCOPE) == "abstain"


def as_told(outputs: Sequence[Output], candidate: Candidate) -> list[Output]:
    """What a candidate of these outputs says: with abstentions where it was made to abstain."""
    if candidate.out_of_scope is None or not abstains(candidate):
        return list(outputs)
    return [_withheld(output, candidate.out_of_scope) for output in outputs]


def _withheld(output: Output, outside: str) -> Output:
    if output.error is not None or not (output.flagged or output.label == outside):
        return output
    return msgspec.structs.replace(output, label=outside, abstained=True)
