"""What the incumbent answers to texts, computed once and kept for every student."""

import hashlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from jettison.backends.ask import check_answered
from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.compress.checkpoint import bfloat16_is_fast
from jettison.compress.deadline import Deadline
from jettison.compress.step import StepContext
from jettison.errors import OutOfTime, StepFailed
from jettison.files import write_atomic
from jettison.model import Output

CHUNK = 512
"""Texts a file; a killed run loses at most so many."""
UNSAID = 0.95
"""Confidence of a teacher that gives none: high, but open to being outvoted by known labels."""


def teacher_logits(context: StepContext, texts: Sequence[str]) -> np.ndarray:
    """The incumbent's logits of texts, shape (n_texts, n_labels), float32, in the order of its labels.

    Texts answered before, by this or an earlier run, are read from `context.workspace`.

    Raises:
        StepFailed: The incumbent fails on a text.
    """
    return np.stack(_rows(context, texts, until=None)) if texts else np.empty((0, 0), np.float32)


def teacher_logits_in_time(context: StepContext, texts: Sequence[str]) -> np.ndarray:
    """The same before the context's deadline, where it has one.

    Raises:
        OutOfTime: It is over before all texts are answered; what was is kept for the next run.
        StepFailed: The incumbent fails on a text.
    """
    found = teacher_logits_until(context, texts, context.deadline)
    if len(found) < len(texts):
        raise OutOfTime(
            f"a teacher must answer {len(texts)} texts before the deadline, got {len(found)} answers."
        )
    return found


def teacher_logits_until(context: StepContext, texts: Sequence[str], until: Deadline | None) -> np.ndarray:
    """The same for as many of the first texts as there is time for before `until`."""
    rows = _rows(context, texts, until=until)
    return np.stack(rows) if rows else np.empty((0, len(context.incumbent.labels)), np.float32)


def keep_answers(workspace: Path, incumbent: Candidate, texts: Sequence[str], logits: np.ndarray) -> None:
    """Keep logits that the incumbent gave on another occasion, so that a student's teacher is not asked.

    Args:
        workspace: As of the context that students will be made in.
        incumbent: Who gave them; calibrated or not, its logits are the same.
        texts: What it was asked, shape (n_texts,).
        logits: Shape (n_texts, n_labels), in the order of its labels.

    Raises:
        CannotWrite: The disk is full or the folder is read-only.
    """
    folder = _folder(workspace, _as_teacher(incumbent, threads=1))
    known = _read(folder, len(incumbent.labels))
    rows = {text_digest(text): np.asarray(row, np.float32) for text, row in zip(texts, logits, strict=True)}
    new = {digest: row for digest, row in rows.items() if digest not in known}
    if new:
        _write(folder, new)


def _folder(workspace: Path, teacher: Candidate) -> Path:
    """Where its answers are kept: the same before and after it is calibrated, which changes no logit."""
    last = teacher.lineage[-1] if teacher.lineage else None
    digest = last.parents[0] if last is not None and last.step == "calibrate" else teacher.digest
    return workspace / "teacher" / f"{digest[:20]}-{teacher.settings.get('dtype', 'as-is')}"


def _rows(context: StepContext, texts: Sequence[str], until: Deadline | None) -> list[np.ndarray]:
    """Logits of the texts, or of the first of them where time ran out."""
    teacher = _as_teacher(context.incumbent, context.threads)
    folder = _folder(context.workspace, teacher)
    known = _read(folder, len(context.incumbent.labels))
    digests = [text_digest(text) for text in texts]
    wanted = {d: t for d, t in zip(digests, texts, strict=True) if d not in known}
    if wanted:
        for chunk in _answers(teacher, context, wanted, until):
            _write(folder, chunk)
            known.update(chunk)
    found: list[np.ndarray] = []
    for digest in digests:
        if digest not in known:
            break
        found.append(known[digest])
    return found


def _answers(
    teacher: Candidate, context: StepContext, wanted: dict[bytes, str], until: Deadline | None
) -> Iterator[dict[bytes, np.ndarray]]:
    """Ask the incumbent chunk by chunk; the model sorts each by length."""
    model = open_model(teacher)
    digests = list(wanted)
    try:
        for start in range(0, len(digests), CHUNK):
            if until is not None and until.is_over():
                return
            chunk = digests[start : start + CHUNK]
            outputs = model.predict([wanted[digest] for digest in chunk])
            check_answered(outputs, context.incumbent.name)
            failed = next((output.error for output in outputs if output.error is not None), None)
            if failed is not None:
                raise StepFailed(
                    f"a teacher must answer every text, got an error from {context.incumbent.name} "
                    f"(backend {context.incumbent.backend!r}): {failed}. What it answered before is kept."
                )
            yield {d: _row(o, teacher.labels) for d, o in zip(chunk, outputs, strict=True)}
            context.progress("asking the teacher", min(1.0, (start + CHUNK) / len(digests)))
    finally:
        model.close()


def _row(output: Output, labels: Sequence[str]) -> np.ndarray:
    """Logits of one answer, shape (n_labels,); of a label alone, those that give it its confidence.

    An endpoint that says a label and nothing more is taken to be `UNSAID` sure of it; an answer that
    is none of the labels teaches nothing: all labels are alike.
    """
    if output.logits is not None:
        return np.asarray(output.logits, np.float32)
    row = np.zeros(len(labels), np.float32)
    if output.label in labels:
        sure = float(np.clip(output.confidence or UNSAID, 1.5 / len(labels), 0.99))
        row[labels.index(output.label)] = np.log(sure * (len(labels) - 1) / (1.0 - sure))
    return row


def _as_teacher(incumbent: Candidate, threads: int) -> Candidate:
    """The incumbent in batches, on the threads this step may use, in bfloat16 where that is faster.

    Rounding moves a logit by about one part in a hundred, which a student cannot tell.
    """
    settings = {**incumbent.settings, "threads": threads, "batch_size": 64}
    if incumbent.backend == "hf" and "dtype" not in settings:
        settings["dtype"] = "bfloat16" if bfloat16_is_fast() else "float32"
    return msgspec.structs.replace(incumbent, settings=settings)


def text_digest(text: str) -> bytes:
    """Identity of a text, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _write(folder: Path, chunk: dict[bytes, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez(
        buffer,
        digests=np.frombuffer(b"".join(chunk), np.uint8).reshape(-1, 16),
        logits=np.stack(list(chunk.values())),
    )
    name = hashlib.blake2b(b"".join(chunk), digest_size=10).hexdigest()
    write_atomic(folder / f"{name}.npz", buffer.getvalue())


def _read(folder: Path, n_labels: int) -> dict[bytes, np.ndarray]:
    """Every answer kept; a damaged file is dropped and its texts are asked again."""
    known: dict[bytes, np.ndarray] = {}
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                digests, logits = stored["digests"], stored["logits"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
            continue
        if logits.shape != (len(digests), n_labels):
            path.unlink(missing_ok=True)
            continue
        known.update({row.tobytes(): logit for row, logit in zip(digests, logits, strict=True)})
    return known
