"""Runs one candidate over examples: one record each, kept on disk as they finish."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from jettison.backends.ask import Asked, ask, ask_batches, check_answered
from jettison.backends.machine import answering_machine, describe_machine
from jettison.backends.open import open_model
from jettison.candidate import Candidate, library_versions
from jettison.errors import BrokenArtifact, InvalidInput, JettisonError
from jettison.evaluate.example_costs import ExampleCosts
from jettison.evaluate.replay import Replay
from jettison.evaluate.scorers import (
    Score,
    Scorer,
    Scorers,
    close_scorers,
    open_scorers,
    score_all,
    with_settings,
)
from jettison.files import value_sha256
from jettison.model import Model, Output
from jettison.record import Cost, Record, read_records, write_records
from jettison.task import Example, Input

CODE_VERSION = 2
"""Raised when the same candidate and examples would give other records: old files are then not reused."""

FLUSH_AFTER_S = 2.0
"""Records wait in memory this long at most before they are put on disk; a kill loses no more."""
BATCH = 256
"""Inputs handed to a backend at once."""
FEW = 16
"""Inputs handed at once to what answers for seconds: it shows progress, and killed it loses little."""
ONE_BY_ONE = ("llamacpp", "onnx_genai", "openvino_causal")
"""Backends that answer one request after another, however many they are handed."""
WRITERS = ("hf_causal", "hf_seq2seq")
"""Backends that take seconds where answers are written, and not where labels or choices are weighed."""

Progress = Callable[[str, float | None], None]
Opener = Callable[[Candidate], Model]


def evaluate(
    candidate: Candidate,
    examples: Sequence[Example],
    *,
    split: str,
    scorers: Scorers = ("label",),
    folder: Path | None = None,
    keep_logits: bool = False,
    keep_unanswered: bool = False,
    batch_size: int | None = None,
    progress: Progress | None = None,
    opener: Opener = open_model,
    workers: int = 1,
) -> list[Record]:
    """Ask a candidate every example and judge its answers.

    An example on which the backend fails gets a record with `error`; the rest of its
    batch is asked again one by one, and the failed one in the next evaluation. An answer that
    was lost on the way to or from a server is not judged, and an evaluation that lacks one is
    never kept as finished. `Record.cost` holds what could be measured of each answer
    (`jettison.evaluate.example_costs`).

    Args:
        candidate: Opened as it stands on disk, with its calibration.
        examples: Each with an id of its own.
        split: Name of the split the examples are of, kept on each record.
        scorers: Names of scorer plugins, or names with settings (`jettison.evaluate.Scorers`).
        folder: Where finished evaluations are kept and found again; None keeps nothing.
        keep_logits: Put the raw logits on the records.
        keep_unanswered: Return records of lost answers, marked `unanswered`, instead of refusing.
        batch_size: Inputs handed to the backend at once, at least 1; None is 256, and few of a local
            language model that takes seconds for an answer.
        progress: Called with a phrase and the share done in 0-1.
        opener: Opens the candidate, where records that are not kept must be asked for. Another than
            the default must answer as the saved artifact does.
        workers: Models opened to answer batches side by side, for backends that leave Python while
            they compute. Each batch is answered by one of them, so the records do not change.

    Returns:
        One record per example, in the examples' order.

    Raises:
        InvalidInput: Two examples share an id, or the batch size is under 1.
        UnknownName: A scorer or the backend is not installed.
        BrokenArtifact: The candidate does not open, or answers with too few or too many outputs.
        CannotWrite: The folder cannot be written.
        Unanswered: Some answers were lost on the way; the others are kept where the backend keeps them.
    """
    batch_size = usual_batch(candidate) if batch_size is None else batch_size
    if batch_size < 1:
        raise InvalidInput(f"batch_size must be at least 1, got {batch_size}.")
    _check_ids(examples)
    judges = open_scorers(scorers, out_of_scope=candidate.out_of_scope)
    if folder is None:
        found = list(
            _records(candidate, examples, split, judges, keep_logits, batch_size, progress, opener, workers)
        )
        return found if keep_unanswered else _whole(found, candidate)
    path = evaluation_file(
        folder, candidate, examples, split=split, scorers=scorers, keep_logits=keep_logits
    )
    if (finished := _read_whole(path, examples)) is not None:
        failed = [e for e, record in zip(examples, finished, strict=True) if record.error is not None]
        if not failed:
            return finished
        again = _records(
            candidate, failed, split, judges, keep_logits, batch_size, progress, opener, workers
        )
        now = {record.example_id: record for record in again}
        found = [now.get(record.example_id, record) for record in finished]
        if any(record.unanswered for record in found):
            return found if keep_unanswered else _whole(found, candidate)
        write_records(path, found, meta=_meta(candidate, split, judges, found))
        return found
    parts = _Parts(path.with_suffix(".parts"))
    done = parts.read(examples)
    left = examples[len(done) :]
    rest = _records(candidate, left, split, judges, keep_logits, batch_size, progress, opener, workers)
    for record in rest:
        done.append(record)
        parts.add(record)
    if any(record.unanswered for record in done):
        parts.flush()
        return done if keep_unanswered else _whole(done, candidate)
    write_records(path, done, meta=_meta(candidate, split, judges, done))
    parts.remove()
    return done


def usual_batch(candidate: Candidate) -> int:
    """Inputs that `evaluate` hands to a candidate at once."""
    writes = candidate.settings.get("kind") in ("generate", "extract")
    is_slow = candidate.backend in ONE_BY_ONE or (candidate.backend in WRITERS and writes)
    return FEW if is_slow else BATCH


def _whole(records: list[Record], candidate: Candidate) -> list[Record]:
    check_answered(records, candidate.name)
    return records


def predict_all(
    model: Model,
    inputs: Sequence[Input],
    *,
    batch_size: int = BATCH,
    progress: Progress | None = None,
    beside: Sequence[Model] = (),
    asked: Asked = ask,
) -> Iterator[Output]:
    """Outputs in the inputs' order, batch by batch; an input on which the model fails gets an error.

    Args:
        model: The one that answers.
        inputs: What it is asked.
        batch_size: Inputs handed to a model at once.
        progress: Called with a phrase and the share done.
        beside: Further models of the same candidate, which answer batches at the same time.
        asked: Asks one batch, as `jettison.backends.ask.ask` does.

    Raises:
        BrokenArtifact: A model answers with too few or too many outputs.
    """
    starts = range(0, len(inputs), batch_size)
    batches = (inputs[start : start + batch_size] for start in starts)
    for start, outputs in zip(starts, ask_batches((model, *beside), batches, asked=asked), strict=True):
        yield from outputs
        if progress is not None:
            progress("evaluating", min(1.0, (start + batch_size) / len(inputs)))


def evaluation_file(
    folder: Path,
    candidate: Candidate,
    examples: Sequence[Example],
    *,
    split: str,
    scorers: Scorers = ("label",),
    keep_logits: bool = False,
) -> Path:
    """Where `evaluate` keeps these records: a name made of everything that they depend on.

    Precision and threads are the candidate's own settings; processor and runtimes are this machine's.
    """
    key = value_sha256(
        {
            "candidate": candidate.digest,
            "examples": value_sha256(list(examples)),
            "split": split,
            "scorers": _key_of(scorers),
            "keep_logits": keep_logits,
            "machine": answering_machine(),
            "code": CODE_VERSION,
        }
    )
    return folder / f"{split}-{key[:20]}.parquet"


def _records(
    candidate: Candidate,
    examples: Sequence[Example],
    split: str,
    judges: dict[str, Scorer],
    keep_logits: bool,
    batch_size: int,
    progress: Progress | None,
    opener: Opener,
    workers: int,
) -> Iterator[Record]:
    """Open the candidate, if there is anything to ask, and yield records batch by batch."""
    if not examples:
        return
    models = [opener(candidate)]
    try:
        while len(models) < min(workers, -(-len(examples) // batch_size)):
            models.append(opener(candidate))
        inputs = [example.asked for example in examples]
        costs = ExampleCosts(candidate, is_alone=len(models) == 1)
        outputs = predict_all(
            models[0],
            inputs,
            batch_size=batch_size,
            progress=progress,
            beside=models[1:],
            # Answers given again say what they took when they were made.
            asked=ask if isinstance(models[0], Replay) else costs.ask,
        )
        pairs = zip(examples, outputs, strict=True)
        while batch := list(islice(pairs, batch_size)):
            judged = {name: score_all(judge, batch) for name, judge in judges.items()}
            for i, (example, output) in enumerate(batch):
                scores = {name: found[i] for name, found in judged.items()}
                yield _record(candidate, example, output, split, scores, keep_logits)
    finally:
        for model in models:
            model.close()
        close_scorers(judges)


def _record(
    candidate: Candidate,
    example: Example,
    output: Output,
    split: str,
    judged: Mapping[str, Score],
    keep_logits: bool,
) -> Record:
    failed = output.error is not None
    logits = output.logits if keep_logits else None
    # Whatever a scorer makes of an error, what nobody has seen is not judged.
    scores = {name: score.value for name, score in judged.items()}
    return Record(
        candidate=candidate.digest,
        example_id=example.id,
        split=split,
        output=None if failed else output.label,
        expected=example.expected,
        confidence=None if failed else output.confidence,
        in_scope=output.in_scope,
        flagged=None if failed or output.in_scope is None else output.flagged,
        abstained=output.abstained,
        logits=None if logits is None else tuple(logits.tolist()),
        logprob=output.logprob,
        scores=dict.fromkeys(scores) if output.unanswered else scores,
        slices=example.slices,
        group=example.group,
        weight=example.weight,
        arm=output.arm,
        escalated=output.escalated,
        cost=output.cost or Cost(),
        error=output.error,
        unanswered=output.unanswered,
        time=time.time(),
    )


class _Parts:
    """The records of an evaluation that is not finished: numbered files, each whole."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[Record] = []
        self._n_written = 0
        self._has_gap = False
        self._flushed = time.monotonic()

    def read(self, examples: Sequence[Example]) -> list[Record]:
        """Records of the run that was killed, as far as they follow the examples without a gap."""
        found: list[Record] = []
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                part = read_records(path)
            except JettisonError:
                break
            ids = [example.id for example in examples[len(found) : len(found) + len(part)]]
            if path.stem != f"{len(found):09d}" or [record.example_id for record in part] != ids:
                break
            found += part
        self._n_written = len(found)
        return found

    def add(self, record: Record) -> None:
        """Keep one more record, and put them on disk when they have waited long enough.

        What follows a lost answer is not kept: the next run asks from there.
        """
        self._has_gap = self._has_gap or record.unanswered
        if self._has_gap:
            return
        self._waiting.append(record)
        if time.monotonic() - self._flushed >= FLUSH_AFTER_S:
            self.flush()

    def flush(self) -> None:
        """Put on disk what waits."""
        if not self._waiting:
            return
        write_records(self._folder / f"{self._n_written:09d}.parquet", self._waiting)
        self._n_written += len(self._waiting)
        self._waiting = []
        self._flushed = time.monotonic()

    def remove(self) -> None:
        """Forget the parts: the whole is on disk."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _key_of(scorers: Scorers) -> Any:
    """What the name of an evaluation's file takes of the scorers."""
    settings = with_settings(scorers)
    return settings if any(settings.values()) else sorted(settings)


def _read_whole(path: Path, examples: Sequence[Example]) -> list[Record] | None:
    """The finished evaluation, unless its file is damaged, which is then made again."""
    if not path.is_file():
        return None
    try:
        found = read_records(path)
    except BrokenArtifact:
        return None
    same = [record.example_id for record in found] == [example.id for example in examples]
    return found if same else None


def _check_ids(examples: Sequence[Example]) -> None:
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise InvalidInput(f"ids of examples must be all different, got {example.id!r} twice.")
        seen.add(example.id)


def _meta(
    candidate: Candidate, split: str, judges: Mapping[str, Scorer], records: Sequence[Record]
) -> dict[str, Any]:
    """Facts for the file's footer: who answered, where, and how often it failed."""
    return {
        "candidate": {"name": candidate.name, "digest": candidate.digest, "backend": candidate.backend},
        "split": split,
        "scorers": list(judges),
        "scorer_facts": {name: judge.facts() for name, judge in judges.items() if hasattr(judge, "facts")},
        "n_examples": len(records),
        "n_errors": sum(record.error is not None for record in records),
        "code_version": CODE_VERSION,
        "versions": library_versions("numpy"),
        "machine": describe_machine(),
    }
