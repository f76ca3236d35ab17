"""Test records of a candidate, a release or a model folder, for `jettison compare`."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from jettison.candidate import MANIFEST, Candidate
from jettison.compress.incumbent import take_in
from jettison.errors import NotEnoughData
from jettison.evaluate.calibrate import LEAST_EXAMPLES, calibrate
from jettison.evaluate.run import Progress, evaluate
from jettison.evaluate.scorers import check_right_answers, close_scorers, open_scorers, score_all
from jettison.evaluate.slices import Slicer
from jettison.loop.workspace import asked_once
from jettison.model import Output
from jettison.record import Record
from jettison.release import open_release
from jettison.release.read import read_candidate
from jettison.route import candidate_folders
from jettison.task import Example, Task

RELEASE = "release.json"


def records_of(
    sources: Sequence[str],
    task: Task,
    *,
    purpose: str,
    watch: Callable[[str], Progress] | None = None,
    opening: Callable[[str], None] = lambda source: None,
) -> list[list[Record]]:
    """Answer the test split of a task with each source and return the records.

    All are opened before the split is read: a path mistyped must not cost a reading.

    Args:
        sources: Folders of candidates or releases, or whatever `take_in` takes.
        task: Its test split is read.
        purpose: What the test split is read for; one purpose counts once.
        watch: Told which source answers now; returns what is called with a phrase and the share done.
        opening: Told which source is opened, and calibrated on dev, now.

    Raises:
        JettisonError: A source cannot be opened.
    """
    with tempfile.TemporaryDirectory() as cache:
        candidates = []
        for index, source in enumerate(sources):
            opening(source)
            candidates.append(candidate_of(source, task, cache=Path(cache) / str(index)))
        reading = task.read_test(purpose=purpose)
        examples = Slicer.fit(task.development).apply(reading.examples)
        return [
            evaluate(
                candidate,
                examples,
                split="test",
                scorers=task.scoring,
                progress=None if watch is None else watch(source),
            )
            for source, candidate in zip(sources, candidates, strict=True)
        ]


def judged_by_task(
    records: Sequence[Record], known: Mapping[str, Example], task: Task
) -> tuple[Record, ...]:
    """Records of a file with what the task's scorers say of their answers, but for those scored already.

    Args:
        records: As read; one that a file brings a score for stays as it is.
        known: Test examples by id.
        task: Its scorers judge.

    Raises:
        InvalidInput: A scorer lacks right answers to judge by.
    """
    new = {
        record.example_id: _output_of(record)
        for record in records
        if record.example_id in known and set(record.scores) <= {"label"} and not record.unanswered
    }
    pairs = [(known[example], output) for example, output in new.items()]
    scorers = open_scorers(task.scoring, out_of_scope=task.out_of_scope)
    try:
        check_right_answers(scorers, list(known.values()))
        found = {name: [one.value for one in score_all(scorer, pairs)] for name, scorer in scorers.items()}
    finally:
        close_scorers(scorers)
    scores = {example: {name: found[name][i] for name in found} for i, example in enumerate(new)}
    return tuple(
        msgspec.structs.replace(record, scores=scores.get(record.example_id, record.scores))
        for record in records
    )


def _output_of(record: Record) -> Output:
    if record.output is None:
        return Output(label="", confidence=0.0, error=record.error or "no answer")
    return Output(label=record.output, confidence=record.confidence or 0.0, error=record.error)


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
    if sum(example.is_judged for example in fit) < LEAST_EXAMPLES:
        return taken
    records = evaluate(taken, fit, split="dev", scorers=task.scoring, keep_logits=True)
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
