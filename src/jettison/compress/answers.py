"""Answers of any engine to inputs, asked once and kept: what a black box can teach."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from jettison.backends.ask import ask, check_answered
from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.compress.step import StepContext
from jettison.files import value_sha256, write_json
from jettison.model import Output
from jettison.task import Input, Question
from jettison.task.similar import near_duplicates

CHUNK = 64
"""Inputs a file; a killed run loses at most so many answers."""


class TaughtAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a teacher said."""

    answer: str
    confidence: float
    """In 0-1; 0 is not known."""
    by_agreement: bool
    """Whether the confidence is the share of several samples that say the same."""
    error: str | None = None


def taught_answers(
    teacher: Candidate, context: StepContext, inputs: Sequence[Input], *, samples: int
) -> list[TaughtAnswer]:
    """One answer an input, in their order; those given before are read from `context.workspace`.

    Args:
        teacher: Any candidate that can be opened: an endpoint, a GGUF file, a checkpoint, a classifier.
        context: For its workspace, threads and progress.
        inputs: What is asked.
        samples: Answers an input whose agreement is the confidence; 1 is one greedy answer. A teacher that
            weighs labels by their likelihood has no need of more.

    Raises:
        Unanswered: A server elsewhere does not answer; what it said before is kept.
    """
    settings = {**teacher.settings, **({"samples": samples} if samples > 1 else {})}
    if "threads" in settings:
        settings["threads"] = context.threads
    ready = msgspec.structs.replace(teacher, settings=settings)
    folder = context.workspace / "teacher-answers" / f"{teacher.digest[:20]}-{samples}"
    known = _read(folder)
    keys = [value_sha256(msgspec.to_builtins(one))[:24] for one in inputs]
    wanted = {key: one for key, one in zip(keys, inputs, strict=True) if key not in known}
    if wanted:
        model = open_model(ready)
        todo = list(wanted)
        try:
            for start in range(0, len(todo), CHUNK):
                chunk = todo[start : start + CHUNK]
                outputs = ask(model, [wanted[key] for key in chunk])
                found = {k: _taught(o, samples) for k, o in zip(chunk, outputs, strict=True)}
                # A failure is not kept: it may be over by the next run.
                kept = {key: one for key, one in found.items() if one.error is None}
                if kept:
                    write_json(folder / f"{value_sha256(chunk)[:20]}.json", kept)
                check_answered(outputs, teacher.name)
                known |= found
                context.progress("asking the teacher", min(1.0, (start + CHUNK) / len(todo)))
        finally:
            model.close()
    return [known[key] for key in keys]


def distinct(inputs: Sequence[Input], away_from: Sequence[Input]) -> list[int]:
    """Places of the inputs to keep: the first of every set of near duplicates, none near `away_from`.

    Args:
        inputs: What may be taught.
        away_from: What the result is judged on.
    """
    texts = [_plain(one) for one in (*away_from, *inputs)]
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        first.setdefault(text, place)
    unique = list(first)
    dropped: set[int] = set()
    for pair in sorted(near_duplicates(unique), key=lambda p: (p.second, p.first)):
        if pair.first not in dropped or pair.first < len(away_from):
            dropped.add(pair.second)
    n = len(away_from)
    return [first[text] - n for i, text in enumerate(unique) if first[text] >= n and i not in dropped]


def _taught(output: Output, samples: int) -> TaughtAnswer:
    return TaughtAnswer(
        answer=output.label,
        confidence=output.confidence,
        by_agreement=samples > 1 and output.logits is None,
        error=output.error,
    )


def _plain(asked: Input) -> str:
    parts = (asked.text, *asked.choices) if isinstance(asked, Question) else (asked,)
    return " ".join(" ".join(parts).casefold().split())


def _read(folder: Path) -> dict[str, TaughtAnswer]:
    """Every answer kept; a damaged file is dropped and its inputs are asked again."""
    known: dict[str, TaughtAnswer] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            known |= msgspec.json.decode(path.read_bytes(), type=dict[str, TaughtAnswer])
        except (OSError, msgspec.DecodeError):
            path.unlink(missing_ok=True)
    return known
