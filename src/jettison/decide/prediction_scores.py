"""Files that hold scores of whole benchmarks: they cannot be paired, and are refused with the reason."""

import json
from pathlib import Path
from typing import Any

from jettison.errors import InvalidInput

MOST_BYTES = 1 << 26
"""Of a JSON file that is looked into; larger ones hold more than a few scores."""


def refuse_scores_alone(path: Path) -> None:
    """Refuse a file of another tool that says how well a model did, but not on which example.

    Raises:
        InvalidInput: It is such a file; the message names the one to give instead.
    """
    if path.suffix.lower() != ".json" or not path.is_file() or path.stat().st_size > MOST_BYTES:
        return
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return  # whoever reads it as a table says what is wrong
    found = _told(content) if isinstance(content, dict) else None
    if found is not None:
        what, instead = found
        raise InvalidInput(
            f"predictions must say what was answered to each example, got {what} at {path}: scores of "
            f"whole tasks cannot be paired, so what differs by chance cannot be told. {instead}"
        )


def _told(content: dict[str, Any]) -> tuple[str, str] | None:
    """What the file is, and what to give in its place; None where it is none that is known."""
    if {"results", "configs"} <= set(content) or {"results", "versions"} <= set(content):
        return (
            "the results of a run of lm-eval",
            "Run it with --log_samples, and give its folder or samples_*.jsonl.",
        )
    if {"schema_version", "evaluation_results"} <= set(content):
        return "an aggregate of Every Eval Ever", "Give the _samples.jsonl beside it."
    if {"dataset", "value"} <= set(content) or "model-index" in content:
        return "a published score", "Ask its publisher for the answers to single examples."
    return None
