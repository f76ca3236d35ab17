"""An evaluation as records of Every Eval Ever 0.3.0: one aggregate, and one line an example and scorer.

Source: evaleval/every_eval_ever 0.3.0, `eval.schema.json` and `instance_level_eval.schema.json`.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec

from jettison.decide.export.evaluation import ACCURACY, Evaluation, Figure
from jettison.decide.pairing import record_score
from jettison.errors import InvalidInput
from jettison.files import value_sha256, write_atomic
from jettison.record import Record

SCHEMA_VERSION = "0.3.0"
Relationship = Literal["first_party", "third_party", "collaborative", "other"]


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What the records cannot say of themselves."""

    organization: str
    """Who ran the evaluation."""
    relationship: Relationship = "other"
    """Of who ran it to who made the model."""
    dataset: str | None = None
    """`owner/name` on the Hub; None is a data set of one's own."""
    url: str | None = None
    """Where the evaluation can be read about."""


def write_every_eval_ever(folder: Path, evaluation: Evaluation, origin: Origin) -> tuple[Path, Path]:
    """Write `data/TASK/OWNER/MODEL/ID.json` and `ID_samples.jsonl`, where that data store looks for them.

    The id comes of the content: the same evaluation gives the same files. Examples that could not be
    judged have no line; how many they are stands beside each score.

    Args:
        folder: Holds `data/`, which is made; other evaluations in it stay.
        evaluation: Its model must be named `owner/name`, and the text of every example be known.
        origin: Who ran it, and on what.

    Returns:
        The aggregate and the file of samples.

    Raises:
        InvalidInput: The model has no owner, a name cannot be a folder, or a text is not known.
        CannotWrite: A file cannot be written.
    """
    evaluation.figure()  # refuses what has no score at all
    place = _place(evaluation)
    key = value_sha256([evaluation.model, evaluation.task, evaluation.digest, evaluation.created])
    name = str(uuid.UUID(bytes=bytes.fromhex(key)[:16], version=4))
    moment = datetime.fromisoformat(evaluation.created)
    about = f"{evaluation.task}/{evaluation.model}/{int(moment.timestamp())}"
    lines = b"".join(msgspec.json.encode(line) + b"\n" for line in _samples(evaluation, about))
    reference = f"{place}/{name}_samples.jsonl"
    aggregate = {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": about,
        "evaluation_timestamp": moment.astimezone(UTC).isoformat(),
        "retrieved_timestamp": str(int(moment.timestamp())),
        "source_metadata": _source(origin),
        "eval_library": {"name": "jettison", "version": version("jettison")},
        "model_info": _model(evaluation),
        "evaluation_results": [_result(figure, evaluation, origin) for figure in evaluation.figures],
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": reference,
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(lines).hexdigest(),
            "total_rows": lines.count(b"\n"),
        },
    }
    # The samples first: an aggregate never names a file that is not there.
    write_atomic(folder / reference, lines)
    write_atomic(
        folder / place / f"{name}.json", json.dumps(aggregate, indent=2, ensure_ascii=False) + "\n"
    )
    return folder / place / f"{name}.json", folder / reference


def _place(evaluation: Evaluation) -> str:
    owner, _, model = evaluation.model.partition("/")
    if not owner or not model:
        raise InvalidInput(
            f"a model of Every Eval Ever must be named owner/name, got {evaluation.model!r}. "
            "Name it by --model."
        )
    parts = [_folder_name(part) for part in (evaluation.task, owner, model)]
    return "/".join(["data", *parts])


def _folder_name(name: str) -> str:
    plain = name.replace("/", "_")
    if plain in ("", ".", "..", "data") or re.search(r'[<>:"\\|?*\x00-\x1f]|[. ]$', plain):
        raise InvalidInput(
            f"a task, owner or model of Every Eval Ever must be a name that can be a folder, got {name!r}. "
            "Give another by --model or --name."
        )
    return plain


def _source(origin: Origin) -> dict[str, Any]:
    return {
        "source_name": "jettison",
        "source_type": "evaluation_run",
        "source_organization_name": origin.organization,
        "evaluator_relationship": origin.relationship,
        **({"source_organization_url": origin.url} if origin.url else {}),
    }


def _model(evaluation: Evaluation) -> dict[str, Any]:
    report = evaluation.report
    further = {
        "candidate_sha256": evaluation.digest,
        "licence": evaluation.licence,
        "made_by": " → ".join(report.steps) if report and report.steps else None,
        "bytes": str(report.cost.bytes) if report and report.cost.bytes is not None else None,
        "cpu_s_per_task": str(report.cost.cpu_s.value) if report and report.cost.cpu_s else None,
    }
    return {
        "name": evaluation.model.partition("/")[2],
        "id": evaluation.model,
        "additional_details": {
            "deployment_type": "unknown",
            "model_availability": "unknown",
            **{name: value for name, value in further.items() if value is not None},
        },
    }


def _result_id(evaluation: Evaluation, scorer: str, where: str) -> str:
    return f"{evaluation.task}:{scorer}:{where}"


def _name(evaluation: Evaluation, where: str) -> str:
    return evaluation.task if where == "all" else f"{evaluation.task} [{where}]"


def _result(figure: Figure, evaluation: Evaluation, origin: Origin) -> dict[str, Any]:
    uncertainty: dict[str, Any] = {"num_samples": figure.n}
    if figure.low is not None and figure.high is not None:
        uncertainty["confidence_interval"] = {
            "lower": figure.low,
            "upper": figure.high,
            "confidence_level": figure.confidence,
            "method": figure.method,
        }
    details = {"slice": figure.slice, "n_unscored": str(figure.n_unscored)}
    if (d := figure.difference) is not None:
        details |= {
            "difference_from_incumbent": f"{d.value:.6f}",
            "difference_low": f"{d.low:.6f}",
            "difference_high": f"{d.high:.6f}",
        }
    return {
        "evaluation_result_id": _result_id(evaluation, figure.scorer, figure.slice),
        "evaluation_name": _name(evaluation, figure.slice),
        "source_data": _data(evaluation, origin),
        "metric_config": _metric(figure, evaluation),
        "score_details": {"score": figure.value, "uncertainty": uncertainty, "details": details},
    }


def _data(evaluation: Evaluation, origin: Origin) -> dict[str, Any]:
    revision = {"additional_details": {"test_sha256": evaluation.revision}} if evaluation.revision else {}
    if origin.dataset is None:
        return {"dataset_name": evaluation.task, "source_type": "other", **revision}
    hub = {
        "source_type": "hf_dataset",
        "hf_repo": origin.dataset,
        "samples_number": len(evaluation.records),
    }
    return {"dataset_name": evaluation.task, **hub, **revision}


def _metric(figure: Figure, evaluation: Evaluation) -> dict[str, Any]:
    scores = [record.scores.get(figure.scorer) for record in evaluation.records]
    is_share = all(score is None or 0 <= score <= 1 for score in scores)
    return {
        "metric_id": "accuracy" if figure.scorer in ACCURACY else f"jettison.{figure.scorer}",
        "metric_name": figure.metric,
        "metric_kind": figure.metric,
        **({"metric_unit": "proportion"} if is_share else {}),
        "lower_is_better": False,
        "score_type": "continuous",
        "min_score": 0 if is_share else "-Infinity",
        "max_score": 1 if is_share else "Infinity",
    }


def _samples(evaluation: Evaluation, about: str) -> Iterator[dict[str, Any]]:
    for record in evaluation.records:
        for scorer in evaluation.scorers:
            score = record_score(record, scorer)
            if score is not None:
                yield _sample(record, scorer, score, evaluation, about)


def _sample(
    record: Record, scorer: str, score: float, evaluation: Evaluation, about: str
) -> dict[str, Any]:
    asked, answers = evaluation.text(record), evaluation.answers(record)
    said = "" if record.output is None else record.output
    row: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": about,
        "model_id": evaluation.model,
        "evaluation_name": evaluation.task,
        "evaluation_result_id": _result_id(evaluation, scorer, "all"),
        "sample_id": record.example_id,
        "sample_hash": hashlib.sha256((asked + "".join(answers)).encode("utf-8", "replace")).hexdigest(),
        "interaction_type": "single_turn",
        "input": {"raw": asked, "reference": list(answers)},
        "output": {"raw": [] if record.output is None else [said]},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": said,
                "extraction_method": scorer,
                "is_terminal": True,
            }
        ]
        if record.output is not None
        else [],
        "evaluation": {"score": score, "is_correct": score >= 1},
        "metadata": _metadata(record, scorer),
    }
    if choices := evaluation.choices(record):
        row["input"]["choices"] = list(choices)
    read, written = record.cost.prompt_tokens, record.cost.completion_tokens
    if read is not None and written is not None:
        tokens = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
        row["token_usage"] = tokens
    if record.cost.latency_s is not None:
        first_s = record.cost.first_token_s
        row["performance"] = {"latency_ms": 1e3 * record.cost.latency_s}
        row["performance"] |= {} if first_s is None else {"time_to_first_token_ms": 1e3 * first_s}
    if record.error is not None:
        row["error"] = record.error
    return row


def _metadata(record: Record, scorer: str) -> dict[str, str]:
    further = {
        "scorer": scorer,
        "split": record.split,
        "group": record.group,
        "arm": record.arm,
        "confidence": None if record.confidence is None else f"{record.confidence:.6g}",
        "price_usd": None if record.cost.price_usd is None else f"{record.cost.price_usd:.6g}",
        "energy_j": None if record.cost.energy_j is None else f"{record.cost.energy_j:.6g}",
        "energy_tier": None if record.cost.energy_j is None else record.cost.energy_tier,
    }
    slices = {f"slice.{column}": value for column, value in record.slices.items()}
    return {**{name: value for name, value in further.items() if value is not None}, **slices}
