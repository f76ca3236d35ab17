"""A task file of lm-eval as a record: the keys that are read, every other refused by its name.

Source: EleutherAI/lm-evaluation-harness 0.4.13, `config/task.py`.
"""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from jettison.errors import InvalidInput
from jettison.task.source import did_you_mean

MAX_INCLUDES = 5
MAX_BYTES = 1 << 20
OUTPUT_TYPES = ("multiple_choice", "generate_until", "loglikelihood")
_UNHEEDED = ("task_alias", "tag", "metadata", "should_decontaminate", "doc_to_decontamination_query")


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `metric_list`."""

    metric: str
    aggregation: str = "mean"
    higher_is_better: bool = True
    ignore_case: bool = False
    ignore_punctuation: bool = False
    ignore_numbers: bool = False
    regexes_to_ignore: list[str] = msgspec.field(default_factory=list)
    hf_evaluate: bool = False


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `filter_list`: a name and its functions in order."""

    name: str
    filter: list[dict[str, Any]]


class Fewshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`fewshot_config`."""

    sampler: str = "default"
    split: str | None = None
    samples: list[dict[str, Any]] | None = None


class Generation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`generation_kwargs`: greedy decoding only."""

    until: str | list[str] | None = None
    max_gen_toks: int = 256
    do_sample: bool = False
    temperature: float = 0.0


class LmEvalTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is read of a task file. A key that is not here is refused."""

    task: str
    output_type: str = "generate_until"
    dataset_path: str
    dataset_name: str | None = None
    dataset_kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    training_split: str | None = None
    validation_split: str | None = None
    test_split: str | None = None
    fewshot_split: str | None = None
    doc_to_text: str
    doc_to_target: str | int
    doc_to_choice: str | list[str] | dict[str, str] | None = None
    description: str = ""
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    fewshot_config: Fewshot = msgspec.field(default_factory=Fewshot)
    num_fewshot: int | None = None
    metric_list: list[Metric] | None = None
    generation_kwargs: Generation = msgspec.field(default_factory=Generation)
    filter_list: list[Filter] | None = None
    repeats: int = 1
    slices: list[str] = msgspec.field(default_factory=list)
    """Columns to report on: `metadata: {jettison: {slices: [...]}}`, which lm-eval passes over."""


def read_lm_eval_config(path: Path) -> LmEvalTask:
    """The checked content of a task file, with what it includes.

    Raises:
        InvalidInput: It is no YAML mapping, or says what is outside the subset.
    """
    content = _with_included(path, MAX_INCLUDES)
    function = next((key for key, value in content.items() if _has_code(value)), None)
    if function is not None:
        raise InvalidInput(
            f"`{function}` of {path} must be text, got a `!function`, which runs Python code. Write it as "
            "a template, or the data as it should be."
        )
    if "group" in content or isinstance(content.get("task"), list):
        raise InvalidInput(f"{path} must be one task, got a group (key `group`). Name one of its tasks.")
    if content.pop("unsafe_code", False):
        raise InvalidInput(f"`unsafe_code` of {path} must be left out, got true. Answers are not run here.")
    metadata = content.get("metadata")
    jettison = metadata.get("jettison") if isinstance(metadata, dict) else None
    ours = {"slices": jettison.get("slices", [])} if isinstance(jettison, dict) else {}
    known = {key: value for key, value in content.items() if key not in _UNHEEDED and value is not None}
    for key in known:
        if key not in LmEvalTask.__struct_fields__ or key == "slices":
            raise InvalidInput(
                f"`{key}` of {path} is outside the subset of lm-eval that is read here."
                f"{did_you_mean(key, LmEvalTask.__struct_fields__)} The keys are "
                f"{[name for name in LmEvalTask.__struct_fields__ if name != 'slices']}."
            )
    try:
        config = msgspec.convert({**known, **ours}, LmEvalTask)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{path}: {error}.") from error
    _check(config, path)
    return config


class _Code:
    """Stands for a `!function` that is not run."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    pass


_Loader.add_constructor("!function", lambda loader, node: _Code())


def _with_included(path: Path, depth: int) -> dict[str, Any]:
    if not path.is_file():
        raise InvalidInput(f"{path} must be a task file, got nothing there.")
    if path.stat().st_size > MAX_BYTES:
        raise InvalidInput(
            f"{path} must be at most {MAX_BYTES} bytes, got {path.stat().st_size}. Data goes into a "
            "JSONL file."
        )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} must be valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} must be a YAML mapping, got {type(content).__name__}.")
    included = content.pop("include", None)
    if included is None:
        return content
    if depth == 0 or not isinstance(included, str):
        raise InvalidInput(f"`include` of {path} must name a file, at most {MAX_INCLUDES} deep.")
    return {**_with_included(path.parent / included, depth - 1), **content}


def _has_code(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_code, value.values()))
    return isinstance(value, _Code) or (isinstance(value, list) and any(map(_has_code, value)))


def _check(config: LmEvalTask, path: Path) -> None:
    if config.output_type not in OUTPUT_TYPES:
        raise InvalidInput(
            f"`output_type` of {path} must be one of {list(OUTPUT_TYPES)}, got {config.output_type!r}."
        )
    if config.output_type == "multiple_choice" and config.doc_to_choice is None:
        raise InvalidInput(f"`doc_to_choice` of {path} must be there for multiple_choice, got none.")
    if not (config.test_split or config.validation_split):
        raise InvalidInput(f"`test_split` of {path} must name a split of the data, got none.")
    if config.repeats != 1:
        raise InvalidInput(f"`repeats` of {path} must be 1, got {config.repeats}: decoding is greedy.")
    generation = config.generation_kwargs
    if generation.do_sample or generation.temperature > 0:
        raise InvalidInput(
            f"`generation_kwargs` of {path} must be greedy (do_sample: false, temperature: 0), got "
            f"do_sample {generation.do_sample} and temperature {generation.temperature}."
        )
    if config.fewshot_config.sampler not in ("default", "first_n"):
        raise InvalidInput(
            f"`fewshot_config` of {path} must have the sampler default or first_n, got "
            f"{config.fewshot_config.sampler!r}."
        )
