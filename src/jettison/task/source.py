"""`task.toml` as a record: what it may say, checked before any data is read."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from jettison.errors import InvalidInput
from jettison.files import BOM, decode_toml
from jettison.task.choices import wrong_choice
from jettison.task.kinds import check_kind
from jettison.task.types import SPLITS, TaskKind

FORMAT = 1
MAX_SHOTS = 256
Paths = str | list[str]


class Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[data.columns]`: which of their columns is what."""

    input: str = "text"
    expected: str = "label"
    id: str | None = None
    """None makes ids of the content, stable when rows move."""
    split: str | None = None
    group: str | None = None
    slices: list[str] = msgspec.field(default_factory=list)
    weight: str | None = None
    choices: str | list[str] | None = None
    """Column of lists, or a column for each choice; for kinds `choose` and `rank`."""
    references: str | None = None
    """Column of lists: further right answers; for `embed`, ids of passages."""
    tests: str | None = None
    """Column of lists, or of one text each: unit tests that check an answer, for scorer `code`."""
    relevance: str | None = None
    """Column of lists: a grade for each choice, 0 for one that does not answer."""
    source: str | None = None
    """Where an example came from, in words; None says the file and line."""


class DataSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[data]`: where the examples lie. Either `path`, or one entry a split; `unlabelled` with both."""

    path: str | None = None
    """One file, or a Hugging Face data set folder."""
    config: str | None = None
    """Which configuration of a Hugging Face folder that has several."""
    train: Paths | None = None
    dev: Paths | None = None
    test: Paths | None = None
    unlabelled: Paths | None = None
    columns: Columns = msgspec.field(default_factory=Columns)
    splits: dict[str, Literal["train", "dev", "test", "unlabelled", "ignore"]] = msgspec.field(
        default_factory=dict
    )
    """Their split name → ours, or `ignore`."""
    separator: str | None = None
    """Splits text in the columns of lists; None takes the text for a JSON list."""
    corpus: str | None = None
    """File of the passages that are searched, for kind `embed`: columns `id` and `text`, and `title`."""
    drop_leaked: bool = False
    """Remove from train the rows whose text is in dev or test, and from dev those in test."""


class MadeSplit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[split]`: shares of the labelled rows to set apart where the data brings no such split."""

    test_share: float | None = None
    dev_share: float | None = None
    """None sets a tenth of train apart when the data has no dev split."""
    seed: int = 0
    stratified: bool = True
    """Keep the shares within each label."""


class Labels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[labels]`: what may be answered."""

    names: list[str] | None = None
    """Fixes the labels and their order; integer labels in the data are positions in it."""
    out_of_scope: str | None = None
    aliases: dict[str, str] = msgspec.field(default_factory=dict)
    """Written in the data → the label meant."""


class Slices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[slices]`: what must hold by itself."""

    required: list[str] = msgspec.field(default_factory=lambda: ["all"])
    """`all`, `column=value`, or `column=*` for each value that the test split has."""


class ShotSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[prompt.shots]]`: one worked example, written out."""

    input: str
    answer: str
    choices: list[str] = msgspec.field(default_factory=list)


class PromptSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[prompt]`: how a language model is asked. `jettison.task.prompt.Prompt` says what each field is."""

    template: str = "{input}"
    system: str = ""
    shots: int | list[ShotSource] = 0
    """How many to take from train, in turn from each label; or the shots themselves."""
    seed: int = 0
    """Another seed takes other shots."""
    answer_prefix: str = ""
    between: str = "\n\n"
    after_system: str | None = None
    before_answer: str = " "
    normalise: Literal["none", "length", "unconditional"] = "none"
    alone: str | None = None
    chat: bool | None = None
    words: dict[str, str] = msgspec.field(default_factory=dict)
    max_tokens: int = 64
    stop: list[str] = msgspec.field(default_factory=list)


class TaskSource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of `task.toml`."""

    format: int
    name: str
    kind: TaskKind = "classify"
    scorers: list[str] | None = None
    """What judges an answer, the first of them decides; None is the one that is usual for the kind."""
    scorer: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """`[scorer.NAME]`: settings of a scorer that is listed."""
    schema: str | None = None
    """JSON Schema file of what to extract, for kind `extract`."""
    data: DataSource
    prompt: PromptSource | None = None
    split: MadeSplit = msgspec.field(default_factory=MadeSplit)
    labels: Labels = msgspec.field(default_factory=Labels)
    slices: Slices = msgspec.field(default_factory=Slices)


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "$": TaskSource,
    "$.data": DataSource,
    "$.data.columns": Columns,
    "$.split": MadeSplit,
    "$.labels": Labels,
    "$.slices": Slices,
    "$.prompt": PromptSource,
    "$.prompt.shots[]": ShotSource,
}


def read_task_source(path: Path) -> TaskSource:
    """Read and check `task.toml`.

    Raises:
        InvalidInput: It is missing, is no UTF-8 TOML, or says what it may not say.
    """
    if path.is_dir():
        raise InvalidInput(f"{path} must be a task.toml file, got a folder. Name the file in it.")
    if not path.is_file():
        raise InvalidInput(
            f"{path} must be a task.toml file, got nothing there. `jettison init` writes one."
        )
    try:
        text = path.read_bytes().removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} must be UTF-8 text, got byte {error.start} that is not.") from error
    return parse_task_source(text, where=str(path))


def parse_task_source(text: str, *, where: str) -> TaskSource:
    """Check the text of a `task.toml`; `where` names it in messages.

    Raises:
        InvalidInput: It is no TOML, or says what it may not say.
    """
    try:
        content = decode_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{where} must be valid TOML: {error}.") from error
    if isinstance(version := content.get("format"), int) and version != FORMAT:
        raise InvalidInput(
            f"{where} must have format = {FORMAT}, got {version}. "
            + ("Upgrade jettison to read it." if version > FORMAT else "Write `format = 1`.")
        )
    try:
        source = msgspec.convert(content, TaskSource)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"{where}: {error}.{choices_hint(error, TaskSource)}{_did_you_mean_key(str(error), content)}"
        ) from error
    _check_source(source, where)
    check_kind(source, where)
    if source.prompt is not None:
        _check_prompt(source.prompt, where)
    return source


def did_you_mean(name: str, known: Any) -> str:
    """` Did you mean 'x'?`, or nothing when nothing is close."""
    names = [str(one) for one in known]
    lowered = {one.lower(): one for one in reversed(names)}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.6)
    return f" Did you mean {lowered[close[0]]!r}?" if close else ""


def choices_hint(error: msgspec.ValidationError, kind: type) -> str:
    """` It must be one of [...]. Did you mean 'x'?` of a word that no setting has, or nothing."""
    wrong = wrong_choice(str(error), kind)
    return "" if wrong is None else f" It must be one of {wrong[1]}.{did_you_mean(*wrong)}"


def _did_you_mean_key(message: str, content: dict[str, Any]) -> str:
    unknown = re.search(r"unknown field `([^`]+)`(?: - at `([^`]+)`)?", message)
    if unknown is None:
        return ""
    known = _SECTIONS[re.sub(r"\[[^\]]*\]", "[]", unknown[2] or "$")].__struct_fields__
    return did_you_mean(unknown[1], known) or f" The keys are {list(known)}."


def _check_prompt(prompt: PromptSource, where: str) -> None:
    """The ranges of numbers, and that no stop ends an answer before it begins."""
    if isinstance(prompt.shots, int) and not 0 <= prompt.shots <= MAX_SHOTS:
        raise InvalidInput(f"prompt.shots must be from 0 to {MAX_SHOTS}, got {prompt.shots} in {where}.")
    if prompt.max_tokens < 1:
        raise InvalidInput(f"prompt.max_tokens must be 1 or more, got {prompt.max_tokens} in {where}.")
    if "" in prompt.stop:
        raise InvalidInput(f"prompt.stop must be non-empty texts, got {prompt.stop} in {where}.")


def _check_source(source: TaskSource, where: str) -> None:
    """The rules that no single field can hold."""
    data, split = source.data, source.split
    if not source.name.strip():
        raise InvalidInput(f"name must be non-empty text, got {source.name!r} at `$.name` of {where}.")
    named = [split for split in SPLITS if getattr(data, split) is not None]
    beside = [split for split in named if split != "unlabelled"]
    if data.path is not None and beside:
        raise InvalidInput(
            f"[data] must have either `path` or a path per split, got `path` and `{beside[0]}` in {where}. "
            "Remove one of them; `unlabelled` alone may stand beside `path`."
        )
    if data.path is None and not named:
        raise InvalidInput(
            f"[data] must have `path`, or `train`, `dev` and `test`, got neither in {where}."
        )
    for name in ("test_share", "dev_share"):
        share = getattr(split, name)
        if share is not None and not 0 < share < 1:
            raise InvalidInput(f"split.{name} must be between 0 and 1, got {share} in {where}.")
    if (split.test_share or 0) + (split.dev_share or 0) > 0.9 + 1e-9:
        raise InvalidInput(
            f"split.test_share + split.dev_share must leave at least a tenth to train, got "
            f"{split.test_share} + {split.dev_share} in {where}."
        )
    if split.seed < 0:
        raise InvalidInput(f"split.seed must be 0 or more, got {split.seed} in {where}.")
    names = source.labels.names
    if names is not None and (len(names) < 2 or len(set(names)) != len(names)):
        raise InvalidInput(
            f"labels.names must be at least two and all different, got {names[:12]} in {where}."
        )
    for required in source.slices.required:
        column, equals, value = required.partition("=")
        if required != "all" and not (column and equals and value):
            raise InvalidInput(
                f"slices.required must hold `all`, `column=value` or `column=*`, got {required!r} in "
                f"{where}."
            )
