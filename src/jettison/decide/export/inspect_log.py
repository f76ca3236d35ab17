"""An evaluation as a log of Inspect: `.eval`, which `inspect view` opens and `read_eval_log` reads.

Source: UKGovernmentBEIS/inspect_ai 0.3.285, log format version 2.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jettison.decide.export.evaluation import Evaluation, Figure
from jettison.decide.pairing import record_score
from jettison.errors import InvalidInput
from jettison.files import value_sha256, write_atomic
from jettison.record import Record

LOG_VERSION = 2
FIRST_DATE = (1980, 1, 1, 0, 0, 0)
"""Of every member, so that the same evaluation gives the same bytes."""


def write_inspect_log(path: Path, evaluation: Evaluation) -> Path:
    """Write every record as a sample, with its messages, answer, scores, slices and tokens.

    An answer that was lost on the way is a sample with an error, which Inspect does not score either; a
    call that the model failed is scored 0 and says so in its metadata. Scores that could not be told are
    left out.

    Args:
        path: Must end in `.eval`.
        evaluation: With the text of every example.

    Raises:
        InvalidInput: The name has another ending, or a text is not known.
        CannotWrite: The file cannot be written.
    """
    if path.suffix != ".eval":
        raise InvalidInput(f"a log of Inspect must end in .eval, got {path}: Inspect tells it by that.")
    samples = [_sample(record, evaluation) for record in evaluation.records]
    header = _header(evaluation)
    members: dict[str, Any] = {
        "_journal/start.json": {name: header[name] for name in ("version", "eval", "plan")},
        **{f"samples/{sample['id']}_epoch_1.json": sample for sample in samples},
        "_journal/summaries/1.json": (summaries := [_summary(sample) for sample in samples]),
        "summaries.json": summaries,
        "header.json": header,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name, FIRST_DATE)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, json.dumps(content, ensure_ascii=False))
    write_atomic(path, buffer.getvalue())
    return path


def _header(evaluation: Evaluation) -> dict[str, Any]:
    ids = [record.example_id for record in evaluation.records]
    name = value_sha256([evaluation.task, evaluation.digest, ids])
    moment = datetime.fromisoformat(evaluation.created).astimezone(UTC).isoformat()
    overall = [figure for figure in evaluation.figures if figure.slice == "all"]
    decision = evaluation.decision
    told = {} if decision is None else {"verdict": decision.verdict.value, "headline": decision.headline}
    return {
        "version": LOG_VERSION,
        "status": "success",
        "eval": {
            "eval_id": name[:22],
            "run_id": name[22:44],
            "task_id": value_sha256(evaluation.task)[:22],
            "created": moment,
            "task": evaluation.task,
            "dataset": {"name": evaluation.task, "samples": len(ids), "sample_ids": ids, "shuffled": False},
            "model": f"jettison/{evaluation.model}",
            "config": {"epochs": 1, "log_samples": True},
            "packages": {"jettison": version("jettison")},
            "scorers": [{"name": figure.scorer, "options": {}, "metadata": {}} for figure in overall],
            "metadata": {"candidate": evaluation.digest, **told},
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {
            "total_samples": len(ids),
            "completed_samples": sum(not record.unanswered for record in evaluation.records),
            "scores": [_score(figure) for figure in overall],
        },
        "stats": {"started_at": moment, "completed_at": moment, "model_usage": {}},
    }


def _score(figure: Figure) -> dict[str, Any]:
    metrics = {figure.metric if figure.metric == "accuracy" else "mean": figure.value}
    if figure.low is not None and figure.high is not None:
        metrics |= {"interval_low": figure.low, "interval_high": figure.high}
    return {
        "name": figure.scorer,
        "scorer": figure.scorer,
        "scored_samples": figure.n,
        "unscored_samples": figure.n_unscored,
        "params": {},
        "metrics": {name: {"name": name, "value": value, "params": {}} for name, value in metrics.items()},
    }


def _sample(record: Record, evaluation: Evaluation) -> dict[str, Any]:
    asked = evaluation.text(record)
    answer = record.output or ""
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked, "source": "input"}]
    said = {"role": "assistant", "content": answer, "source": "generate", "model": evaluation.model}
    sample: dict[str, Any] = {
        "id": record.example_id,
        "epoch": 1,
        "input": asked,
        "target": _target(evaluation.answers(record)),
        "messages": messages if record.output is None else [*messages, said],
        "output": {"model": evaluation.model, "choices": [], "completion": answer},
        "scores": {},
        "metadata": _metadata(record),
    }
    if choices := evaluation.choices(record):
        sample["choices"] = list(choices)
    if record.output is not None:
        sample["output"]["choices"] = [{"message": said, "stop_reason": "stop"}]
    if usage := _usage(record):
        sample["output"]["usage"] = usage
        sample["model_usage"] = {f"jettison/{evaluation.model}": usage}
    if record.cost.latency_s is not None:
        sample["output"]["time"] = sample["working_time"] = sample["total_time"] = record.cost.latency_s
    if record.unanswered:
        sample["error"] = {"message": record.error or "lost", "traceback": "", "traceback_ansi": ""}
        return sample
    judged = {name: record_score(record, name) for name in evaluation.scorers}
    sample["scores"] = {
        name: {"value": value, "answer": record.output}
        for name, value in judged.items()
        if value is not None
    }
    return sample


def _metadata(record: Record) -> dict[str, Any]:
    """Slices by their own names, so that a reader finds them; what is not known is left out."""
    further = {
        "group": record.group,
        "confidence": record.confidence,
        "weight": None if record.weight == 1.0 else record.weight,
        "arm": record.arm,
        "error": None if record.unanswered else record.error,
    }
    return {**{name: value for name, value in further.items() if value is not None}, **record.slices}


def _target(answers: Sequence[str]) -> str | list[str]:
    """A text, or a list where several answers are right; empty where none is known, as in Inspect."""
    return list(answers) if len(answers) > 1 else answers[0] if answers else ""


def _usage(record: Record) -> dict[str, int] | None:
    read, written = record.cost.prompt_tokens, record.cost.completion_tokens
    if read is None or written is None:
        return None
    return {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}


def _summary(sample: dict[str, Any]) -> dict[str, Any]:
    kept = (
        "id",
        "epoch",
        "input",
        "target",
        "metadata",
        "scores",
        "model_usage",
        "total_time",
        "working_time",
    )
    told = {name: sample[name] for name in kept if name in sample}
    error = sample.get("error")
    return {**told, "completed": True, **({"error": error["message"]} if error else {})}
