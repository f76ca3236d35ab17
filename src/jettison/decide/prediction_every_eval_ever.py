"""Samples of Every Eval Ever as predictions: one line an example and metric.

Answers are paired by `sample_id`; where both sides say `sample_hash`, it must agree. Lines of several turns
are refused: what the model was asked in the later ones depends on its own answers.

Source: evaleval/every_eval_ever 0.3.0, `instance_level_eval.schema.json`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jettison.decide.prediction_table import Predictions
from jettison.errors import InvalidInput
from jettison.record import Cost, Record
from jettison.task.tables import Table

COLUMNS = frozenset({"schema_version", "evaluation_id", "sample_id", "evaluation", "answer_attribution"})


def is_every_eval_ever_table(table: Table) -> bool:
    """Whether rows are samples of Every Eval Ever."""
    return set(table.columns) >= COLUMNS


def read_every_eval_ever(table: Table, digest: str, *, slice_columns: Sequence[str] = ()) -> Predictions:
    """Every sample, with one score a metric.

    Args:
        table: Of `*_samples.jsonl`.
        digest: Stands for the candidate.
        slice_columns: Keys of the samples' metadata to report on; `slice.NAME`, as we write them, is known.

    Raises:
        InvalidInput: A line is of several turns or lacks its id or score, two models are mixed, or one
            metric is there twice.
    """
    models = {str(model) for model in table.columns.get("model_id", [])}
    if len(models) > 1:
        raise InvalidInput(f"{table.path} must hold the samples of one model, got {sorted(models)}.")
    found: dict[str, Record] = {}
    prompts: dict[str, str] = {}
    for at in range(table.n_rows):
        row = {name: column[at] for name, column in table.columns.items()}
        place = table.place(at)
        if row.get("interaction_type") not in (None, "single_turn"):
            raise InvalidInput(
                f"samples must be of single turns to be paired, got {row['interaction_type']!r} at {place}."
            )
        record, metric = _record(row, digest, slice_columns, place)
        before = found.get(record.example_id)
        if before is not None and metric in before.scores:
            raise InvalidInput(
                f"a sample must have one score a metric, got a second {metric!r} of {record.example_id!r} "
                f"at {place}."
            )
        if before is not None:
            before.scores.update(record.scores)
        else:
            found[record.example_id] = record
        if row.get("sample_hash") is not None:
            prompts[record.example_id] = str(row["sample_hash"])
    return Predictions(records=tuple(found.values()), prompts=prompts)


def _record(
    row: Mapping[str, Any], digest: str, slice_columns: Sequence[str], place: str
) -> tuple[Record, str]:
    judged, given = _part(row, "evaluation", place), _part(row, "input", place)
    score = judged.get("score")
    if row.get("sample_id") is None or not isinstance(score, int | float):
        raise InvalidInput(
            "a sample must have a `sample_id` and a number in `evaluation.score`, got "
            f"{row.get('sample_id')!r} and {score!r} at {place}."
        )
    metadata = _part(row, "metadata", place)
    answers = [one for one in row.get("answer_attribution") or [] if isinstance(one, dict)]
    final = next((one for one in answers if one.get("is_terminal")), None)
    reference = given.get("reference") or []
    usage, speed = _part(row, "token_usage", place), _part(row, "performance", place)
    latency_ms = speed.get("latency_ms")
    metric = str(metadata.get("scorer") or row.get("evaluation_result_id") or row.get("evaluation_name"))
    record = Record(
        candidate=digest,
        example_id=str(row["sample_id"]),
        split="test",
        output=None if final is None else str(final.get("extracted_value")),
        expected=str(reference[0]) if isinstance(reference, list) and reference else None,
        scores={metric: float(score)},
        slices=_slices(metadata, slice_columns),
        group=None if metadata.get("group") is None else str(metadata["group"]),
        error=None if row.get("error") is None else str(row["error"]),
        input=None if given.get("raw") is None else str(given["raw"]),
        cost=Cost(
            latency_s=latency_ms / 1e3 if isinstance(latency_ms, int | float) else None,
            prompt_tokens=_count(usage.get("input_tokens")),
            completion_tokens=_count(usage.get("output_tokens")),
        ),
    )
    return record, metric


def _slices(metadata: Mapping[str, Any], slice_columns: Sequence[str]) -> dict[str, str]:
    ours = {
        key.removeprefix("slice."): value for key, value in metadata.items() if key.startswith("slice.")
    }
    named = {name: metadata[name] for name in slice_columns if metadata.get(name) is not None}
    return {name: str(value) for name, value in {**ours, **named}.items()}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _part(row: Mapping[str, Any], name: str, place: str) -> dict[str, Any]:
    part = row.get(name)
    if part is not None and not isinstance(part, dict):
        raise InvalidInput(f"`{name}` of a sample must be an object, got {part!r} at {place}.")
    return part or {}
