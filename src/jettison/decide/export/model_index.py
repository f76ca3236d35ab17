"""Scores as `model-index` in the front matter of a model card, each with its interval in name and `args`.

Source: huggingface/hub-docs, `modelcard.md`.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from jettison.decide.export.evaluation import Evaluation, Figure, in_words
from jettison.errors import InvalidInput
from jettison.files import write_atomic

KINDS = {
    "classify": "text-classification",
    "choose": "multiple-choice",
    "generate": "text-generation",
    "extract": "text-generation",
    "rank": "text-ranking",
    "embed": "sentence-similarity",
}
"""Kind of task → what hubs call it."""
_BLOCK = re.compile(r"^model-index:.*\n(?:(?:[ \t-].*)?\n)*", re.MULTILINE)
_FRONT = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*$\n?", re.DOTALL | re.MULTILINE)


def write_model_index(path: Path, evaluation: Evaluation) -> Path:
    """Put the scores into a model card; whatever else stands in it stays, letter for letter.

    Args:
        path: A Markdown file; made where there is none.
        evaluation: Whose scores they are.

    Raises:
        InvalidInput: The name has another ending, the file is no text, or there is no score.
        CannotWrite: The file cannot be written.
    """
    if path.suffix != ".md":
        raise InvalidInput(f"a model card must end in .md, got {path}.")
    evaluation.figure()
    try:
        before = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"a model card must be readable text, got {path}: {error}.") from error
    block = yaml.safe_dump(model_index(evaluation), sort_keys=False, allow_unicode=True, width=1000)
    front = _FRONT.match(before.replace("\r\n", "\n"))
    if front is None:
        write_atomic(path, f"---\n{block}---\n{before}")
        return path
    kept = _BLOCK.sub("", front[1])
    write_atomic(path, f"---\n{kept}{block}---\n{before.replace(chr(13), '')[front.end() :]}")
    return path


def model_index(evaluation: Evaluation) -> dict[str, Any]:
    """The one entry of the front matter."""
    kind = KINDS.get(evaluation.kind or "", "text-classification" if _has_labels(evaluation) else "other")
    dataset = {"name": evaluation.task, "type": evaluation.task, "split": _split(evaluation)}
    if evaluation.revision:
        dataset["revision"] = evaluation.revision
    result = {
        "task": {"type": kind, "name": evaluation.task},
        "dataset": dataset,
        "metrics": [_metric(figure) for figure in evaluation.figures],
    }
    return {"model-index": [{"name": evaluation.model, "results": [result]}]}


def _metric(figure: Figure) -> dict[str, Any]:
    args: dict[str, Any] = {"slice": figure.slice, "n": figure.n, "n_unscored": figure.n_unscored}
    if figure.low is not None:
        args |= {"low": figure.low, "high": figure.high, "confidence": figure.confidence}
    if (d := figure.difference) is not None:
        args |= {"difference": d.value, "difference_low": d.low, "difference_high": d.high}
    name = f"{figure.metric} ({figure.slice}), {in_words(figure)}"
    return {"type": figure.metric, "value": round(figure.value, 6), "name": name, "args": args}


def _has_labels(evaluation: Evaluation) -> bool:
    return "label" in evaluation.scorers


def _split(evaluation: Evaluation) -> str:
    return evaluation.records[0].split
