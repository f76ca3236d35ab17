"""What tests of the torch steps share: a trained tiny incumbent and a context to work on it."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.task import Development
from tiny import make_tiny_development, tiny_candidate, train_tiny_bert


@cache
def trained() -> tuple[Candidate, Development]:
    """A tiny BERT that is right on most of dev, made once for all tests of a process."""
    development = make_tiny_development()
    folder = train_tiny_bert(Path(mkdtemp()) / "incumbent", development)
    return tiny_candidate(folder, development, n_layers=4), development


def context_in(folder: Path, **changes: object) -> StepContext:
    """A context for the trained incumbent that keeps its files under `folder`."""
    incumbent, development = trained()
    given = {"data": development, "incumbent": incumbent, "workspace": folder / "workspace", **changes}
    return StepContext(folder=folder, **given)  # type: ignore[arg-type]


def make(folder: Path, candidate: Candidate, step: dict[str, object], **changes: object) -> Candidate:
    """Apply one step."""
    return apply_step(step_from(step), candidate, context_in(folder, **changes), cache=folder / "cache")


def accuracy(candidate: Candidate) -> float:
    """Share of dev right."""
    _, development = trained()
    outputs = open_model(candidate).predict([example.input for example in development.dev])
    right = [o.label == e.expected for o, e in zip(outputs, development.dev, strict=True)]
    return sum(right) / len(right)
