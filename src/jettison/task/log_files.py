"""The files of a task made of logs: `task.toml`, examples, the incumbent's outputs, inputs to label."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from jettison.errors import InvalidInput
from jettison.task.examples import text_key
from jettison.task.log_answers import Answers
from jettison.task.log_templates import Template
from jettison.task.log_use import Use
from jettison.task.prompt import Prompt, most_tokens

TASK_FILE, OUTPUTS_FILE, TO_LABEL_FILE = "task.toml", "incumbent_outputs.jsonl", "to_label.jsonl"
N_TO_LABEL = 400
"""Inputs set apart for people to answer, at most."""


def input_id(text: str) -> str:
    """What an input is called by in files made of logs: its content's digest."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """Answers that a model gave before."""

    answers: dict[str, str]
    """`input_id` → the most frequent answer, as it was given."""
    uses: dict[str, Use] = {}
    """`input_id` → what that answer took, as far as the log says."""
    prompts: frozenset[str] = frozenset()
    """Digests of what was asked, where the file says so."""


def read_logged(path: Path) -> Logged:
    """Read `incumbent_outputs.jsonl`, as `jettison init --logs` writes it.

    Raises:
        InvalidInput: There is no such file, or a line of it is none.
    """
    found: dict[str, str] = {}
    uses: dict[str, Use] = {}
    prompts: set[str] = set()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    row = msgspec.json.decode(line, type=_Answered)
                    use = msgspec.json.decode(line, type=Use)
                except msgspec.MsgspecError as error:
                    raise InvalidInput(
                        f"{path}:{number} must be a line with id and output, got: {error}."
                    ) from error
                found[row.id] = next(iter(row.outputs), row.output)
                uses[row.id] = use
                prompts |= {row.prompt} if row.prompt else set()
    except OSError as error:
        raise InvalidInput(f"logged answers must be a file, got {path}: {error.strerror}.") from error
    return Logged(answers=found, uses=uses, prompts=frozenset(prompts))


class _Answered(msgspec.Struct, frozen=True):
    id: str
    output: str
    outputs: dict[str, int] = {}
    prompt: str | None = None


class LoggedExample(msgspec.Struct, frozen=True, kw_only=True):
    """One input, and what was answered to it."""

    id: str
    input: str
    n: int
    """How often it was asked."""
    outputs: dict[str, int]
    """Answer → times, the most frequent first."""
    use: Use = msgspec.field(default_factory=Use)
    """Of one call with the most frequent answer."""

    @property
    def output(self) -> str:
        return next(iter(self.outputs))


def task_content(
    name: str, template: Template, shots: list[tuple[str, str]], answers: Answers, *, trust: bool
) -> dict[str, Any]:
    """`task.toml` as tables."""
    most = Counter(call.request.max_tokens for call in template.calls if call.request.max_tokens)
    longest = max(most_tokens(answer) for call in template.calls for answer in call.answers)
    pairs = [role for role, _ in template.turns] == ["user", "assistant"] * (len(template.turns) // 2)
    prompt: dict[str, Any] = {
        "template": f"{template.prefix}{{input}}{template.suffix}",
        "max_tokens": most.most_common(1)[0][0] if most else min(4096, max(16, longest)),
    }
    if template.system:
        prompt["system"] = template.system
    worked = [(_inner(template, asked), answers.expected(answer)) for asked, answer in shots]
    if pairs and worked and all(answer is not None for _, answer in worked):
        prompt["shots"] = [{"input": asked, "answer": answer} for asked, answer in worked]
    data: dict[str, Any] = {"train": "examples.jsonl"} if trust else {}
    data["unlabelled"] = "unlabelled.jsonl"
    data["columns"] = {"input": "input", "expected": "expected", "id": "id", "weight": "weight"}
    content: dict[str, Any] = {"format": 1, "name": name, "kind": answers.kind, "data": data}
    if trust:
        content["split"] = {"test_share": 0.2, "dev_share": 0.1}
    if answers.labels:
        content["labels"] = {"names": list(answers.labels)}
    content["prompt"] = prompt
    return content


def _inner(template: Template, text: str) -> str:
    fits = text.startswith(template.prefix) and text.endswith(template.suffix)
    return template.input_of(text) if fits else text


def files_of(
    content: dict[str, Any], examples: Sequence[LoggedExample], answers: Answers, *, trust: bool
) -> dict[str, str]:
    """File name → text."""
    shown = {text_key(shot["input"]) for shot in content["prompt"].get("shots", ())}
    labelled = [
        e
        for e in examples
        if trust and answers.expected(e.output) is not None and text_key(e.input) not in shown
    ]
    drawn = [] if trust else _drawn(examples)
    known = {e.id for e in (*labelled, *drawn)}
    unlabelled = [e for e in examples if e.id not in known]
    if not unlabelled:
        del content["data"]["unlabelled"]
    about = (
        "# Written by `jettison init --logs`. The answers in the logs were taken for the truth.\n"
        if trust
        else "# Written by `jettison init --logs`. Nobody has checked an answer yet. To run and\n"
        f"# decide, fill in `expected` of {TO_LABEL_FILE}, then write under [data]\n"
        f'#     train = "{TO_LABEL_FILE}"\n'
        "# and as a part of its own\n"
        "#     [split]\n"
        "#     test_share = 0.5\n"
        "#     dev_share = 0.4\n"
    )
    prompt = msgspec.convert(content["prompt"], Prompt).digest
    files = {
        TASK_FILE: about + tomli_w.dumps(content),
        OUTPUTS_FILE: _lines(
            {
                "id": e.id,
                "output": answers.label(e.output) or e.output,
                "n": e.n,
                "outputs": e.outputs,
                "prompt": prompt,
                **msgspec.to_builtins(e.use),
            }
            for e in examples
        ),
    }
    if labelled:
        files["examples.jsonl"] = _lines(
            {"id": e.id, "input": e.input, "expected": answers.expected(e.output), "weight": e.n}
            for e in labelled
        )
    if unlabelled:
        files["unlabelled.jsonl"] = _lines(
            {"id": e.id, "input": e.input, "weight": e.n} for e in unlabelled
        )
    if drawn:
        files[TO_LABEL_FILE] = _lines(
            {"id": e.id, "input": e.input, "expected": None, "weight": e.n} for e in drawn
        )
    return files


def _drawn(examples: Sequence[LoggedExample]) -> list[LoggedExample]:
    """A fifth of the inputs, kept apart for a test that nothing has been fitted on."""
    n = min(N_TO_LABEL, len(examples) // 5)
    return sorted(examples, key=lambda e: hashlib.blake2b(e.id.encode()).digest())[:n]


def _lines(rows: Iterable[dict[str, Any]]) -> str:
    return "".join(msgspec.json.encode(row).decode() + "\n" for row in rows)
