"""Asks a model a batch so that a failure stays with the input that caused it."""

from collections.abc import Sequence

from jettison.errors import BrokenArtifact, Unanswered
from jettison.model import Model, Output
from jettison.task import Input


def ask(model: Model, inputs: Sequence[Input]) -> list[Output]:
    """One output per input; where the whole batch fails, each input is asked by itself.

    Raises:
        BrokenArtifact: The model answers with too few or too many outputs.
    """
    try:
        outputs = model.predict(inputs)
    except Unanswered:
        raise  # the network's fault, not the model's: whoever asked may ask again
    except Exception as error:  # noqa: BLE001 - a foreign runtime may raise anything
        if len(inputs) == 1:
            return [Output(label="", confidence=0.0, error=f"{type(error).__name__}: {error}")]
        return [output for text in inputs for output in ask(model, [text])]
    if len(outputs) != len(inputs):
        raise BrokenArtifact(
            f"a model must give one output per input, got {len(outputs)} for {len(inputs)} inputs. "
            "Check the backend with `jettison.testing.check_backend`."
        )
    return outputs
