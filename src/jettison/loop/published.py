"""What `jettison export` is pointed at, opened: a release, a run, a decision or a file of predictions."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from jettison.candidate import MANIFEST, Candidate
from jettison.decide.export.evaluation import Evaluation
from jettison.decide.prediction_lm_eval import lm_eval_run_of
from jettison.decide.predictions import complete, is_prediction_file, read_predictions
from jettison.decide.render import JSON_NAME, read_decision
from jettison.decision import CandidateReport, Decision
from jettison.errors import InvalidInput
from jettison.evaluate.recalibrate import recalibrated, uncalibrated
from jettison.evaluate.slices import Slicer
from jettison.files import read_json
from jettison.loop.config import RunConfig
from jettison.record import Record, read_records
from jettison.release import open_release
from jettison.release import read_decision as read_released_decision
from jettison.release.types import EVIDENCE_FOLDER, RELEASE_FILE
from jettison.task import Example, Task, read_task

RUN_FILE = "run.json"
TASK_SUFFIXES = (".toml", ".yaml", ".yml")


def decision_of(source: Path) -> Decision:
    """The decision of a release or a run, or the `decision.json` itself.

    Raises:
        InvalidInput: There is none.
    """
    if source.is_dir() and not (source / JSON_NAME).is_file():
        raise InvalidInput(
            f"{source} must hold a {JSON_NAME}, as the folder of a run or a release does, got none. "
            "Two files of predictions are judged by `jettison compare A B --junit FILE`."
        )
    if not source.is_dir() and source.suffix != ".json":
        raise InvalidInput(
            f"a decision must be a run, a release or a {JSON_NAME}, got {source}. "
            "Two files of predictions are judged by `jettison compare A B --junit FILE`."
        )
    if (source / RELEASE_FILE).is_file():
        return read_released_decision(open_release(source))
    return read_decision(source)


def task_of(source: Path) -> Task:
    """The task that a task file is, or that a run was of.

    Raises:
        InvalidInput: There is none, or it breaks a rule of tasks.
    """
    if source.suffix in TASK_SUFFIXES:
        return read_task(source)
    found = _task_of_run(source)
    if found is None:
        raise InvalidInput(
            f"a task must be a task.toml, a task file of lm-eval or the folder of a run, got {source}."
        )
    return found


def evaluation_of(
    source: Path,
    *,
    candidate: str | None = None,
    task_file: Path | None = None,
    model: str | None = None,
    name: str | None = None,
    columns: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> Evaluation:
    """One model's records, with what is known of them.

    Args:
        source: A release, the folder of a run, or predictions of any kind that `jettison compare` reads.
        candidate: Of a run or release; None takes the one that was chosen.
        task_file: Gives texts, right answers and slices by example id. A run knows its own.
        model: What the model is called; None takes the candidate's name, or the file's.
        name: What the task is called; None takes its own name, or the file's.
        columns: Role → column of a plain table.
        clock: Dates predictions that bear no time.

    Raises:
        InvalidInput: The source is none of these, or there are no records of that candidate.
        BrokenArtifact: A file of it is damaged.
    """
    if is_prediction_file(str(source)):
        if candidate is not None:
            raise InvalidInput(
                f"--candidate must come with a run or a release, got it with the file {source}."
            )
        return _of_predictions(source, task_file, model, name, columns or {}, clock)
    decision = decision_of(source)
    report = _report(decision, candidate)
    task = read_task(task_file) if task_file is not None else _task_of_run(source)
    records = _records(source, report)
    examples = {} if task is None else _examples(task, {record.split for record in records})
    return Evaluation(
        model=model or report.name,
        task=name or decision.task,
        created=decision.created.replace("Z", "+00:00"),
        records=complete(records, examples),
        examples=examples,
        kind=None if task is None else task.kind,
        revision=decision.test_digest,
        licence=_licence(source, report),
        decision=decision,
        report=report,
    )


def _of_predictions(
    source: Path,
    task_file: Path | None,
    model: str | None,
    name: str | None,
    columns: Mapping[str, str],
    clock: Callable[[], float],
) -> Evaluation:
    records = read_predictions(source, columns=columns).records
    task = None if task_file is None else read_task(task_file)
    examples = {} if task is None else _examples(task, set())
    strangers = [r.example_id for r in records if r.example_id not in examples] if examples else []
    if task is not None and strangers:
        raise InvalidInput(
            f"predictions must be of the examples of task {task.name!r}, got {len(strangers)} of others at "
            f"{strangers[0]!r} in {source}. Is it another task's file?"
        )
    times = [record.time for record in records if record.time is not None]
    moment = datetime.fromtimestamp(max(times) if times else clock(), UTC)
    known_as = source.stem
    if (run := lm_eval_run_of(source)) is not None:
        known_as, moment = run[0], run[1].astimezone(UTC)
    return Evaluation(
        model=model or source.stem,
        task=name or (known_as if task is None else task.name),
        created=moment.isoformat(timespec="seconds"),
        records=complete(records, examples),
        examples=examples,
        kind=None if task is None else task.kind,
        revision=None if task is None else task.test_digest,
    )


def _report(decision: Decision, wanted: str | None) -> CandidateReport:
    """What the decision says of a candidate."""
    names = [report.name for report in decision.candidates]
    name = wanted or decision.chosen
    if name is None:
        raise InvalidInput(
            f"--candidate must name whom to tell of, among {names}: this decision chose none. "
            f"{decision.headline}"
        )
    found = next((report for report in decision.candidates if report.name == name), None)
    if found is None:
        raise InvalidInput(f"--candidate must be one of {names}, got {name!r}.")
    return found


def _records(source: Path, report: CandidateReport) -> list[Record]:
    """The records that a decision was made on; a language model's are kept uncalibrated."""
    places = (source / EVIDENCE_FOLDER, source / "cache" / "records")
    digests = {report.digest: None, **_uncalibrated(source, report)}
    for path in sorted(path for place in places for path in place.glob("*.parquet")):
        if source.joinpath(RELEASE_FILE).is_file() or path.name.startswith("test-"):
            records = read_records(path)
            if records and records[0].candidate in digests:
                raw = digests[records[0].candidate]
                return records if raw is None else recalibrated(records, raw)
    raise InvalidInput(
        f"{source} must hold the records of candidate {report.name!r}, got none. A run's are in its "
        "`cache`; a release has those of its own candidate and of the incumbent."
    )


def _uncalibrated(source: Path, report: CandidateReport) -> dict[str, Candidate]:
    """Digest before calibration → the calibrated candidate, where it is at hand."""
    for file in _manifests(source):
        candidate = Candidate.at(file.parent)
        if candidate.digest == report.digest and (raw := uncalibrated(candidate)) is not None:
            return {raw.digest: candidate}
    return {}


def _licence(source: Path, report: CandidateReport) -> str | None:
    for file in _manifests(source):
        candidate = Candidate.at(file.parent)
        if candidate.digest == report.digest:
            return candidate.licence
    return None


def _manifests(source: Path) -> Iterable[Path]:
    for place in (
        source / "candidates",
        source / "release" / "candidates",
        source / "cache" / "calibrated",
    ):
        yield from sorted(place.glob(f"*/{MANIFEST}"))


def _task_of_run(source: Path) -> Task | None:
    if not (source / RUN_FILE).is_file():
        return None
    return read_task(read_json(source / RUN_FILE, RunConfig).task)


def _examples(task: Task, splits: set[str]) -> dict[str, Example]:
    """Every example by id, with its computed slices: to tell what was asked, not to ask it again."""
    slicer = Slicer.fit(task.development)
    parts = {"train": task.train, "dev": task.dev, "test": task.test_for_inspection()}
    chosen = [part for split, part in parts.items() if not splits or split in splits]
    return {example.id: example for part in chosen for example in slicer.apply(part)}


__all__ = ["decision_of", "evaluation_of", "task_of"]
