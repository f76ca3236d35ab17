"""A task written so that lm-eval runs it: one YAML file and one JSONL file for each split.

Every prompt is rendered here and stands in the data as `question`, so that lm-eval shows a model
the same letters as jettison does in plain text.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from jettison.errors import InvalidInput
from jettison.files import write_atomic
from jettison.task.prompt import Prompt
from jettison.task.types import Example, Task

_METRICS = {"none": "acc", "length": "acc_norm", "unconditional": "acc_mutual_info"}
_WEIGHED = ("classify", "choose")


def export_lm_eval(task: Task, folder: Path, *, purpose: str = "export to lm-eval") -> Path:
    """Write a task for lm-eval; run it with `lm-eval run --tasks NAME --include_path FOLDER`.

    The test examples are asked for like by any decision: the reading is counted in the ledger.

    Args:
        task: Of kind classify, choose, generate or extract.
        folder: Gets `NAME.yaml` and `NAME.SPLIT.jsonl`; whatever else is there stays.
        purpose: Stands in the ledger of test readings.

    Returns:
        The YAML file. Data files are named in it from where `lm-eval` is started: by absolute path.

    Raises:
        InvalidInput: The task is a ranking, which lm-eval has no output type for, or has no test examples.
        CannotWrite: The folder cannot be written.
    """
    if task.kind in ("rank", "embed") or not task.n_test:
        what = f"kind {task.kind!r}" if task.n_test else "a task without test examples"
        raise InvalidInput(f"a task for lm-eval must choose or generate and have a test split, got {what}.")
    prompt = task.development.prompt or Prompt()
    splits = {
        "train": task.train,
        "dev": task.dev,
        "test": task.read_test(purpose=purpose).examples,
    }
    several = any(example.references for examples in splits.values() for example in examples)
    columns = sorted({column for examples in splits.values() for e in examples for column in e.slices})
    name = _name(task)
    for split, examples in splits.items():
        path = folder / f"{name}.{split}.jsonl"
        rows = [msgspec.json.encode(_row(e, prompt, task, columns, several=several)) for e in examples]
        if rows:
            write_atomic(path, b"".join(row + b"\n" for row in rows))
        else:
            path.unlink(missing_ok=True)
    present = [split for split, examples in splits.items() if examples]
    config = _config(task, prompt, present, columns, folder.absolute(), several=several)
    # Last, so that a task file never names data that are not there.
    written = folder / f"{name}.yaml"
    write_atomic(written, yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100))
    return written


def _name(task: Task) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in task.name)


def _row(
    example: Example, prompt: Prompt, task: Task, columns: Sequence[str], *, several: bool
) -> dict[str, Any]:
    right = [] if example.expected is None else [example.expected]
    right += example.references
    row: dict[str, Any] = {
        "id": example.id,
        "question": prompt.question(example.input, example.choices, task.labels) + prompt.answer_prefix,
    }
    if task.kind in _WEIGHED:
        options = list(example.choices or task.labels)
        row["choices"] = [prompt.word(option) for option in options]
        row["answer"] = options.index(right[0])
    else:
        row["answer"] = right if several else right[0]
    return {**row, **{column: example.slices.get(column) for column in columns}}


def _config(
    task: Task,
    prompt: Prompt,
    present: Sequence[str],
    columns: Sequence[str],
    folder: Path,
    *,
    several: bool,
) -> dict[str, Any]:
    weighed = task.kind in _WEIGHED
    files = {split: str(folder / f"{_name(task)}.{split}.jsonl") for split in present}
    names = {"train": "training_split", "dev": "validation_split", "test": "test_split"}
    after = prompt.between if prompt.after_system is None else prompt.after_system
    config: dict[str, Any] = {
        "task": _name(task),
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": files},
        **{names[split]: split for split in present},
        "output_type": "multiple_choice" if weighed else "generate_until",
        "doc_to_text": "question",
        **({"doc_to_choice": "choices"} if weighed else {}),
        "doc_to_target": "answer",
        "description": _raw(prompt.system + after) if prompt.system else "",
        "target_delimiter": prompt.before_answer,
        "fewshot_delimiter": prompt.between,
        "num_fewshot": len(prompt.shots),
    }
    if prompt.shots:
        samples = [_shot(shot, i, prompt, task, several=several) for i, shot in enumerate(prompt.shots)]
        config["fewshot_config"] = {"sampler": "first_n", "samples": samples}
    if not weighed:
        config["generation_kwargs"] = {
            "until": list(prompt.stop),
            "max_gen_toks": prompt.max_tokens,
            "do_sample": False,
        }
    config["metric_list"] = [_metric(task, prompt)]
    about = {"kind": task.kind, "scorers": list(task.scorers), "slices": list(columns)}
    return {**config, "metadata": {"version": 1.0, "jettison": about}}


def _shot(shot: Any, i: int, prompt: Prompt, task: Task, *, several: bool) -> dict[str, Any]:
    worked = Example(id=f"shot-{i}", input=shot.input, expected=shot.answer, choices=shot.choices)
    return _row(worked, prompt, task, (), several=several)


def _metric(task: Task, prompt: Prompt) -> dict[str, Any]:
    """lm-eval's nearest to the task's first scorer; the scorers themselves are named in the metadata."""
    name = _METRICS[prompt.normalise] if task.kind in _WEIGHED else "exact_match"
    relaxed = {"ignore_case": True, "ignore_punctuation": True}
    return {
        "metric": name,
        "aggregation": "mean",
        "higher_is_better": True,
        **(relaxed if task.scorers[0] == "normalized_exact" else {}),
    }


def _raw(text: str) -> str:
    """Text that Jinja leaves as it is."""
    return f"{{% raw %}}{text}{{% endraw %}}" if any(mark in text for mark in ("{{", "{%", "{#")) else text
