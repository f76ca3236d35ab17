"""A score as the Hub reads it from a model's `.eval_results/*.yaml`: one entry, its interval in `notes`.

The format has no field for uncertainty. Source: huggingface/hub-docs, `eval_results.yaml`.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from jettison.decide.export.evaluation import Evaluation, in_words
from jettison.errors import InvalidInput
from jettison.files import write_atomic

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def write_eval_results(
    path: Path,
    evaluation: Evaluation,
    *,
    dataset: str,
    task_id: str | None = None,
    url: str | None = None,
    scorer: str | None = None,
) -> Path:
    """Write one entry: the mean of one scorer over all examples.

    Args:
        path: Must end in `.yaml`; the Hub looks in the folder `.eval_results` of a model.
        evaluation: Whose score it is.
        dataset: `owner/name` of the benchmark on the Hub.
        task_id: Of the benchmark's `eval.yaml`; None takes the name of the task.
        url: Where the evaluation can be read about.
        scorer: None takes the first.

    Raises:
        InvalidInput: The data set is no Hub id, the name ends otherwise, or there is no such score.
        CannotWrite: The file cannot be written.
    """
    if path.suffix != ".yaml":
        raise InvalidInput(f"a file of .eval_results must end in .yaml, got {path}.")
    if not _HUB_ID.fullmatch(dataset):
        raise InvalidInput(f"--dataset must be owner/name of a data set on the Hub, got {dataset!r}.")
    figure = evaluation.figure(scorer)
    notes = (
        f"{figure.metric}, {in_words(figure)}; measured by jettison on candidate {evaluation.digest[:16]}"
    )
    entry: dict[str, Any] = {
        "dataset": {"id": dataset, "task_id": task_id or evaluation.task},
        "value": round(figure.value, 6),
        "date": evaluation.created,
        **({"source": {"url": url, "name": "jettison"}} if url else {}),
        "notes": notes,
    }
    write_atomic(path, yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, width=100))
    return path
