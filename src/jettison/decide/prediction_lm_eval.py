"""lm-eval's own logs as predictions: one `samples_*.jsonl`, or the folder that a run wrote.

Answers are paired by `doc_hash` and `filter`, never by line; both sides must share `prompt_hash`.
A document that is there twice is told apart by the order of `doc_id`.

Source: EleutherAI/lm-evaluation-harness 0.4.13, `loggers/evaluation_tracker.py`.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from jettison.decide.prediction_table import Predictions
from jettison.errors import InvalidInput
from jettison.files import file_sha256, value_sha256
from jettison.record import Record
from jettison.task.tables import Table, read_table

LESS_IS_BETTER = frozenset(
    {"perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "ter", "wer", "brier_score"}
)
"""Metrics of which less is better, where no `results_*.json` beside the samples says so."""
_SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<time>\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[.\d]*)\.jsonl")


def is_lm_eval_table(table: Table) -> bool:
    """Whether rows are lm-eval's samples; old ones without hashes are known too, to be refused."""
    return {"doc_id", "resps"} <= set(table.columns) or {"doc_hash", "filter"} <= set(table.columns)


def lm_eval_run_of(samples: Path) -> tuple[str, datetime] | None:
    """Task and moment, in local time, that the name of a file of samples tells; None of others."""
    match = _SAMPLES.fullmatch(samples.name)
    if match is None:
        return None
    day, _, clock = match["time"].partition("T")
    try:
        return match["task"], datetime.fromisoformat(f"{day}T{clock.replace('-', ':')}").astimezone()
    except ValueError:
        return None


def lm_eval_samples(folder: Path) -> dict[str, Path]:
    """Task → its newest samples in the folder of a run, or one below it (`--output_path`)."""
    found: dict[str, tuple[str, Path]] = {}
    for path in (*folder.glob("samples_*.jsonl"), *folder.glob("*/samples_*.jsonl")):
        match = _SAMPLES.fullmatch(path.name)
        if match and (match["task"] not in found or found[match["task"]][0] < match["time"]):
            found[match["task"]] = match["time"], path
    return {task: path for task, (_, path) in sorted(found.items())}


def read_lm_eval_folder(folder: Path, *, slice_columns: Sequence[str] = ()) -> Predictions:
    """Every task of a run, each example in the slice `task=NAME`.

    Raises:
        InvalidInput: The samples of a task cannot be paired, or two models' lie in one folder.
    """
    samples = lm_eval_samples(folder)
    if len({path.parent for path in samples.values()}) > 1:
        raise InvalidInput(
            f"{folder} must hold the samples of one model, got several: "
            f"{sorted({path.parent.name for path in samples.values()})}. Name one of these folders."
        )
    digest = value_sha256([file_sha256(path) for path in samples.values()])
    records: list[Record] = []
    prompts: dict[str, str] = {}
    for task, path in samples.items():
        one = read_lm_eval_samples(read_table(path), digest, slice_columns=slice_columns)
        prompts |= {f"{task}/{name}": prompt for name, prompt in one.prompts.items()}
        records += [_in_task(record, task) for record in one.records]
    return Predictions(records=tuple(records), prompts=prompts)


def read_lm_eval_samples(table: Table, digest: str, *, slice_columns: Sequence[str] = ()) -> Predictions:
    """One file of samples. Slices are columns of the document; with several filters, `filter` is one.

    Args:
        table: Of `samples_<task>_<time>.jsonl`.
        digest: Stands for the candidate.
        slice_columns: Columns of the documents to report on.

    Raises:
        InvalidInput: It lacks what pairing needs, or has no metric of which more is better.
    """
    _check_can_pair(table)
    rows = [{name: column[row] for name, column in table.columns.items()} for row in range(table.n_rows)]
    metrics = _metrics(table, rows)
    several = len({row["filter"] for row in rows}) > 1
    records, prompts = [], {}
    for row, example in zip(rows, _names(rows), strict=True):
        prompts[example] = str(row["prompt_hash"])
        doc = row["doc"] if isinstance(row.get("doc"), dict) else {}
        slices = {name: str(doc[name]) for name in slice_columns if doc.get(name) is not None}
        group = None if doc.get("group") is None else str(doc["group"])
        records.append(
            Record(
                candidate=digest,
                example_id=example,
                split="test",
                output=_answer(row),
                expected=None if row.get("target") is None else str(row["target"]),
                input=_prompt(row),
                scores={name: _finite(row.get(name)) for name in metrics},
                slices={**slices, "filter": str(row["filter"])} if several else slices,
                # The same answer seen through two filters is one piece of evidence.
                group=group or (str(row["doc_hash"]) if several else None),
            )
        )
    return Predictions(records=tuple(records), prompts=prompts)


def _check_can_pair(table: Table) -> None:
    for name in ("doc_hash", "filter", "prompt_hash"):
        if name not in table.columns or any(value is None for value in table.columns[name]):
            raise InvalidInput(
                f"samples of lm-eval must have {name!r} in every row, got {table.path} without it: whether "
                "two models were asked the same cannot be known. Run both again with lm-eval 0.4.4 or "
                "later and --log_samples."
            )


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each row; copies of a document are numbered by `doc_id`, wherever their lines stand."""
    copies: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for at, row in enumerate(rows):
        copies[f"{row['doc_hash']}/{row['filter']}"].append((int(row.get("doc_id") or 0), at))
    names = [""] * len(rows)
    for document, places in copies.items():
        for number, (_, at) in enumerate(sorted(places), start=1):
            names[at] = document if number == 1 else f"{document}#{number}"
    return names


def _metrics(table: Table, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    listed = rows[0].get("metrics") or ("acc", "exact_match", "acc_norm", "f1")
    present = [name for name in listed if name in table.columns]
    if not present:
        raise InvalidInput(
            f"{table.path} must have a column for a metric such as `acc`, got {sorted(table.columns)}. "
            "Run lm-eval with --log_samples."
        )
    less = _less_is_better(table.path)
    usable = [name for name in present if name not in less]
    if not usable:
        raise InvalidInput(
            f"a metric to compare by must be one of which more is better, got {present} at {table.path}."
        )
    return usable


def _less_is_better(samples: Path) -> set[str]:
    """As the `results_*.json` of the same run says, if it is there; else by the names known."""
    match = _SAMPLES.fullmatch(samples.name)
    results = samples.parent / f"results_{match['time']}.json" if match else None
    if match is None or results is None or not results.is_file():
        return set(LESS_IS_BETTER)
    try:
        told = json.loads(results.read_bytes()).get("higher_is_better", {}).get(match["task"], {})
    except (OSError, ValueError, AttributeError):
        told = {}
    unsaid = {name for name in LESS_IS_BETTER if name not in told}
    return unsaid | {name for name, higher in told.items() if higher is False}


def _answer(row: Mapping[str, Any]) -> str | None:
    """The filtered answer; of weighed choices, the place of the likeliest."""
    answers = row.get("filtered_resps")
    if not isinstance(answers, list) or not answers:
        return None
    if isinstance(answers[0], str):
        return answers[0]
    weights = [_weight(one) for one in answers]
    if len(weights) < 2 or any(weight is None for weight in weights):
        return None
    return str(max(range(len(weights)), key=lambda i: weights[i] or -math.inf))


def _prompt(row: Mapping[str, Any]) -> str | None:
    """What was asked: the first argument of the first request, as lm-eval logs it."""
    arguments = row.get("arguments")
    first = arguments.get("gen_args_0") if isinstance(arguments, dict) else None
    asked = first.get("arg_0") if isinstance(first, dict) else None
    return asked if isinstance(asked, str) else None


def _weight(answer: Any) -> float | None:
    """Log-likelihood of a choice, written as `["-5.8", "False"]`."""
    try:
        return float(answer[0])
    except (TypeError, ValueError, IndexError, KeyError):
        return None


def _finite(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.nan
    return number if math.isfinite(number) else None


def _in_task(record: Record, task: str) -> Record:
    return msgspec.structs.replace(
        record, example_id=f"{task}/{record.example_id}", slices={**record.slices, "task": task}
    )
