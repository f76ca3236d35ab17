"""Test records of a candidate, a release or a model folder, for `jettison compare`."""

import tempfile
from pathlib import Path

from jettison.candidate import MANIFEST, Candidate
from jettison.compress.incumbent import take_in
from jettison.errors import NotEnoughData
from jettison.evaluate.calibrate import calibrate
from jettison.evaluate.run import evaluate
from jettison.evaluate.slices import Slicer
from jettison.loop.workspace import asked_once
from jettison.record import Record
from jettison.release import open_release
from jettison.release.read import read_candidate
from jettison.route import candidate_folders
from jettison.task import Task
from jettison.task.read import read_task

RELEASE = "release.json"


def records_of(source: str, task_path: str | Path, *, purpose: str) -> list[Record]:
    """Answer the test split of a task and return the records.

    Args:
        source: Folder of a candidate or release, or whatever `take_in` takes.
        task_path: `task.toml`.
        purpose: What the test split is read for; one purpose counts once.

    Raises:
        JettisonError: The source cannot be opened, or the task cannot be read.
    """
    task = read_task(task_path)
    with tempfile.TemporaryDirectory() as cache:
        candidate = candidate_of(source, task, cache=Path(cache))
        reading = task.read_test(purpose=purpose)
        examples = Slicer.fit(task.development).apply(reading.examples)
        return evaluate(candidate, examples, split="test", scorers=task.scoring)


def candidate_of(source: str, task: Task, *, cache: Path) -> Candidate:
    """The candidate or release in a folder as it is; any other model taken in and calibrated on dev.

    Where dev has too few examples for it, confidences of a language model or an embedder stay as they
    come: they decide no comparison.

    Raises:
        JettisonError: The source cannot be opened.
    """
    found = _opened(Path(source))
    if found is not None:
        return found
    taken = take_in(
        source,
        labels=task.labels,
        out_of_scope=task.out_of_scope,
        cache=cache,
        seed=0,
        data=task.development,
    )
    if not asked_once(taken):
        return calibrate(taken, task.development, cache=cache, scope_rule="max_probability")
    fit = task.development.dev_fit
    records = evaluate(taken, fit, split="dev", scorers=task.scoring, keep_logits=True) if fit else ()
    try:
        return calibrate(
            taken,
            task.development,
            cache=cache,
            scope_rule="max_probability",
            records=records,
            scorer=task.scorers[0],
        )
    except NotEnoughData:
        return taken


def _opened(folder: Path) -> Candidate | None:
    """The candidate or release in a folder; None where there is neither."""
    if (folder / MANIFEST).exists():
        return Candidate.at(folder)
    if (folder / RELEASE).exists():
        release = open_release(folder)
        return read_candidate(release, candidate_folders(release.route)[0])
    return None
