"""Answers given again: a model that asks nobody, made of the records of an earlier evaluation."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.model import Decoder, Output
from jettison.record import Record
from jettison.task import Example, Input

DECODED = ("fake", "hf", "linear", "onnx", "openvino", "static")
"""Backends whose answers are their logits, decoded by `Decoder` and nothing else."""


class Replay:
    """A model whose answers are known before it is asked, by input."""

    def __init__(self, labels: Sequence[str], answers: Mapping[bytes, Output]) -> None:
        self.labels = tuple(labels)
        self._answers = answers

    def predict(self, inputs: Sequence[Input]) -> list[Output]:
        """The known output of each input."""
        return [self._answers[input_key(one)] for one in inputs]

    def close(self) -> None:
        """Nothing is open."""


def input_key(asked: Input) -> bytes:
    """What tells one input from another."""
    return msgspec.json.encode(asked) if not isinstance(asked, str) else asked.encode("utf-8", "replace")


def outputs_by_input(examples: Sequence[Example], outputs: Sequence[Output]) -> dict[bytes, Output]:
    """The output of each input; of a text that comes twice, that of the first."""
    found: dict[bytes, Output] = {}
    for example, output in zip(examples, outputs, strict=True):
        found.setdefault(input_key(example.asked), output)
    return found


def output_of(record: Record) -> Output:
    """The answer that a record was made of; raw logits only where it kept them."""
    return Output(
        label=record.output or "",
        confidence=record.confidence or 0.0,
        in_scope=record.in_scope,
        flagged=bool(record.flagged),
        abstained=record.abstained,
        logits=None if record.logits is None else np.asarray(record.logits, np.float32),
        logprob=record.logprob,
        arm=record.arm,
        escalated=record.escalated,
        error=record.error,
        unanswered=record.unanswered,
        cost=record.cost,
    )


def calibrated_outputs(records: Sequence[Record], candidate: Candidate) -> list[Output] | None:
    """Answers of a calibrated candidate, of the records that it gave before it was calibrated.

    Its backend decodes the same logits by the same rule. None where that is not known of the
    backend, so that the candidate itself must be asked.
    """
    raw = [output_of(record) for record in records]
    if candidate.backend not in DECODED:
        return None
    answered = [i for i, output in enumerate(raw) if output.error is None]
    logits = [raw[i].logits for i in answered]
    if any(row is None or len(row) != len(candidate.labels) for row in logits):
        return None
    if answered:
        decoder = Decoder(candidate.labels, candidate.out_of_scope, candidate.calibration)
        decoded = decoder.outputs(np.stack([row for row in logits if row is not None]))
        for i, output in zip(answered, decoded, strict=True):
            raw[i] = msgspec.structs.replace(
                raw[i],
                label=output.label,
                confidence=output.confidence,
                in_scope=output.in_scope,
                flagged=output.flagged,
                error=output.error,
            )
    return raw
