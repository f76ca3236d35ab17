"""Looks at a freshly written student through its own backend: what it will be is what is measured."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from jettison.backends.open import open_model
from jettison.candidate import write_candidate
from jettison.compress.step import StepContext
from jettison.compress.teacher import teacher_logits
from jettison.compress.transfer import TransferSet, gold_indices
from jettison.files import link_or_copy_folder

_TIMED = 200


def student_notes(
    context: StepContext, backend: str, settings: dict[str, Any], transfer: TransferSet
) -> dict[str, Any]:
    """Sizes, accuracy on dev_fit, agreement with the teacher and CPU time of the student's own files.

    What was not measured (no dev examples) is None.
    """
    labels, out_of_scope = context.incumbent.labels, context.data.out_of_scope
    notes: dict[str, Any] = {
        "n_train": transfer.n_train,
        "n_unlabelled": transfer.n_unlabelled,
        "n_augmented": transfer.n_augmented,
        "teacher_s": round(transfer.teacher_s, 2),
        "bytes": sum(path.stat().st_size for path in context.folder.rglob("*") if path.is_file()),
        "dev_fit_accuracy": None,
        "dev_fit_teacher_accuracy": None,
        "dev_fit_agreement": None,
        "cpu_s_per_text": None,
    }
    # In-scope examples only: scope is told by the logits' size, not by the arg-max.
    examples = [example for example in context.data.dev_fit if example.expected != out_of_scope]
    if not examples:
        return notes
    texts = [example.input for example in examples]
    taught = teacher_logits(context, texts).argmax(axis=1)
    learnt, cpu_s = _answers(context.folder, backend, labels, settings, texts)
    gold = gold_indices(examples, labels)
    known = gold >= 0
    if known.any():
        notes["dev_fit_accuracy"] = round(float((learnt == gold)[known].mean()), 4)
        notes["dev_fit_teacher_accuracy"] = round(float((taught == gold)[known].mean()), 4)
    notes["dev_fit_agreement"] = round(float((learnt == taught).mean()), 4)
    notes["cpu_s_per_text"] = round(cpu_s, 7)
    return notes


def _answers(
    folder: Path, backend: str, labels: tuple[str, ...], settings: dict[str, Any], texts: list[str]
) -> tuple[np.ndarray, float]:
    """Index of the label answered to each text, and CPU seconds per text, one at a time, words known."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        link_or_copy_folder(folder, Path(place))
        candidate = write_candidate(
            Path(place), name="student", backend=backend, labels=labels, settings=settings
        )
        model = open_model(candidate)
        answers = model.predict(texts)
        timed = texts[:_TIMED]
        for text in timed:
            model.predict([text])
        started = time.thread_time()
        for text in timed:
            model.predict([text])
        cpu_s = (time.thread_time() - started) / len(timed)
        model.close()
    numbers = {label: index for index, label in enumerate(labels)}
    return np.array([numbers[answer.label] for answer in answers]), cpu_s
