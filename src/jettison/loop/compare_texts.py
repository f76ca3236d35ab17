"""How near one language model stays to another on texts, for `jettison compare --texts`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from jettison.candidate import MANIFEST, Candidate
from jettison.compress.incumbent import take_in
from jettison.evaluate.fidelity import Fidelity, measure_fidelity
from jettison.task import Development
from jettison.task.read import read_task


def texts_of(task_file: Path) -> list[str]:
    """Inputs of a task that nobody has to have answered: those of `unlabelled`, then of dev.

    Raises:
        InvalidInput: The task cannot be read.
    """
    data = read_task(task_file).development
    return [example.input for example in (*data.unlabelled, *data.dev)]


def fidelity_of(a: str, b: str, texts: Sequence[str]) -> Fidelity:
    """Compare B with A token by token.

    Args:
        a: The incumbent: a candidate's folder, or any language model that `take_in` takes.
        b: The leaner model, the same.
        texts: Read by both, as they are.

    Raises:
        JettisonError: One cannot be opened, is no language model that tells its tokens'
            probabilities, or reads other tokens than the other.
    """
    with tempfile.TemporaryDirectory() as cache:
        incumbent, candidate = (_opened(source, Path(cache)) for source in (a, b))
        return measure_fidelity(candidate, incumbent, texts)


def _opened(source: str, cache: Path) -> Candidate:
    if (Path(source) / MANIFEST).exists():
        return Candidate.at(Path(source))
    nothing = Development(
        name="texts", kind="generate", labels=(), out_of_scope=None, train=(), dev=(), unlabelled=()
    )
    return take_in(source, labels=(), out_of_scope=None, cache=cache, seed=0, data=nothing)
