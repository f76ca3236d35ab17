"""The text of `task.toml` and `jettison.toml`, each choice with its reason in a comment."""

import json
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from jettison.decision import NotWorse
from jettison.loop.look_model import LabelLook, ModelLook, TokenLook
from jettison.loop.propose import FLIP_SHARE, MARGINS, Proposal
from jettison.stats.planning import smallest_passing_n
from jettison.task import Finding
from jettison.task.guess import Guess
from jettison.task.kinds import DEFAULT_SCORERS

_SHOWN = 8


class TaskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What `task.toml` says, but for its paths and slices."""

    guess: Guess
    name: str
    label_names: tuple[str, ...] | None = None
    """Labels in the model's order, where the data has only their positions."""
    config: str | None = None
    """Configuration of a Hugging Face folder."""
    aliases: dict[str, str] = msgspec.field(default_factory=dict)
    drop_leaked: bool = False


def task_text(
    facts: TaskFacts, *, data: str, required: Sequence[str], findings: Sequence[Finding] = ()
) -> str:
    """`task.toml`.

    Args:
        facts: What was found and said.
        data: Path of the data, as seen from the file.
        required: Slices that must each hold.
        findings: What was seen in the data that is no reason to refuse it.
    """
    guess = facts.guess
    lines = [
        "# What good means: examples, splits, labels and slices. Written by `jettison init`.",
        "format = 1",
        f"name = {quoted(facts.name)}",
        f'kind = "{guess.kind}"',
        "",
        "[data]",
        f"# {guess.n_rows} rows{_split_words(guess)}",
        *_finding_lines(findings),
        f"path = {quoted(data)}",
        *([f"config = {quoted(facts.config)}"] if facts.config else []),
        f"{'' if facts.drop_leaked else '# '}drop_leaked = true    # train loses rows whose text is in "
        "dev or test, dev those in test",
        "",
        "[data.columns]",
        *_column_lines(guess),
        *_splits_lines(guess),
        *_made_lines(guess),
        *(_label_lines(facts) if guess.kind == "classify" else _answer_lines(guess)),
        "",
        "[slices]",
        "# each must hold by itself",
        f"required = {listed(required)}",
    ]
    return "\n".join(lines) + "\n"


def run_text(
    incumbent: str,
    model: ModelLook,
    labels: LabelLook,
    tokens: TokenLook | None,
    proposal: Proposal,
    *,
    task_file: str,
) -> str:
    """`jettison.toml`."""
    lines = [
        "# What to make lean, and what must hold. Written by `jettison init`; `jettison run` goes "
        "round once.",
        "format = 1",
        f"task = {quoted(task_file)}",
        "",
        *_comment(model_words(model)),
        *_comment(f"labels: {labels.message}"),
        *_comment(token_words(tokens)),
        f"incumbent = {quoted(incumbent)}",
        'output = "jettison-run"',
        'recipes = "auto"    # tries what fits this model and machine',
        'budget = "10m"      # wall time of the run; a killed one resumes',
        "threads = 1         # threads that a candidate answers with; it is measured so",
        "seed = 0",
        "",
        *_gate_comments(proposal),
    ]
    for gate in proposal.gates:
        lines += ["", "[[gates]]", *_gate_lines(gate)]
    lines += [
        "",
        "# A cost that may not be exceeded:",
        "# [[gates]]",
        '# type = "at_most"',
        '# cost = "cpu_ratio"    # of the incumbent\'s CPU time; or latency_p95_s, bytes, peak_bytes, ...',
        "# limit = 0.5",
    ]
    return "\n".join(lines) + "\n"


def model_words(model: ModelLook) -> str:
    """What the model is, in a line."""
    if model.kind == "hub":
        return (
            f"incumbent: {model.place}, taken for a hub id as no such folder is here: looked up when the "
            "run starts, and nothing is known of it yet"
        )
    named = {"onnx": "an onnx", "gguf": "a GGUF file"}.get(model.kind, f"a {model.kind}")
    parts = [f"incumbent: {named}", *(["a language model"] if model.is_language else [])]
    if model.architecture:
        parts.append(model.architecture)
    if model.labels is not None:
        parts.append(f"{len(model.labels)} labels")
    if model.bytes is not None:
        parts.append(f"{model.bytes / 1e6:.1f} MB")
    if model.max_tokens is not None:
        parts.append(f"reads up to {model.max_tokens} tokens")
    return ", ".join(parts)


def token_words(tokens: TokenLook | None) -> str:
    """How long the texts are, in a line."""
    if tokens is None:
        return "tokens: not counted, there is no tokenizer.json beside the model"
    cut = (
        f", which cuts {tokens.truncated_share:.1%} of them"
        if tokens.truncated_share
        else ", which cuts none"
    )
    return (
        f"tokens per text (of {tokens.n} in train and dev): median {tokens.p50}, 95 % up to {tokens.p95}, "
        f"longest {tokens.max}; recommended max_tokens = {tokens.recommended_max_tokens}{cut}"
    )


def quoted(text: str) -> str:
    """A TOML string; JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def listed(texts: Iterable[str]) -> str:
    """A TOML list of strings."""
    return f"[{', '.join(quoted(text) for text in texts)}]"


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else quoted(text)


def _table(values: Mapping[str, str]) -> str:
    return f"{{{', '.join(f'{_key(name)} = {value}' for name, value in values.items())}}}"


def _comment(text: str) -> list[str]:
    wrapped = textwrap.wrap(_one_line(text), 98, break_long_words=False, break_on_hyphens=False)
    return [f"#{' ' if i == 0 else '   '}{line}" for i, line in enumerate(wrapped)]


def _split_words(guess: Guess) -> str:
    return (
        f": {', '.join(f'{_one_line(s)} {n}' for s, n in guess.n_by_split.items())}"
        if guess.n_by_split
        else ""
    )


def _finding_lines(findings: Sequence[Finding]) -> list[str]:
    return [line for finding in findings for line in _comment(f"{finding.severity}: {finding.message}")]


def _column_lines(guess: Guess) -> list[str]:
    columns, lines = guess.columns, []
    for role in ("input", "expected", "id", "split", "group", "weight"):
        value = getattr(columns, role)
        if value is not None:
            reason = _one_line(guess.reasons[role].partition(": ")[2])
            lines.append(f"{role} = {quoted(value)}    # {reason}")
    if columns.group is None:
        lines.append('# group = "..."    # rows that depend on each other (turns of a chat) share a split')
    if columns.slices:
        counts = ", ".join(f"{_one_line(name)} has {n} values" for name, n in guess.slice_values.items())
        lines.append(f"slices = {listed(columns.slices)}    # {counts}")
    return lines


def _splits_lines(guess: Guess) -> list[str]:
    if not guess.splits:
        return []
    lines = ["", "[data.splits]", "# theirs = ours: train, dev, test, unlabelled, or ignore"]
    for theirs, ours in guess.splits.items():
        lines.append(f"{_key(theirs)} = {quoted(ours)}")
    return lines


def _made_lines(guess: Guess) -> list[str]:
    """`[split]` for what the data does not bring."""
    ours, lines = guess.our_splits, []
    if "test" not in ours:
        lines.append("test_share = 0.2")
    if "dev" not in ours:
        lines.append("dev_share = 0.1")
    if not lines:
        return []
    missing = " and ".join(line.partition("_")[0] for line in lines)
    return [
        "",
        "[split]",
        f"# the data brings no {missing}: set apart"
        f"{' within each label' if guess.kind == 'classify' else ''}; groups and equal texts stay together",
        *lines,
        "seed = 0",
    ]


def _label_lines(facts: TaskFacts) -> list[str]:
    guess = facts.guess
    lines = ["", "[labels]", f"# {len(guess.labels)} labels: {_some(guess.labels)}"]
    if facts.label_names is not None:
        unseen = [name for name in facts.label_names if name not in guess.labels]
        why = (
            "the data has positions; these are the model's names, in the order of its answers"
            if len(unseen) == len(facts.label_names)
            else f"the model's labels: the data has no example of {_some(unseen)}"
        )
        lines += [f"# {why}", f"names = {listed(facts.label_names)}"]
    if guess.out_of_scope is not None:
        lines.append(
            f"out_of_scope = {quoted(guess.out_of_scope)}    # the label that means none of the others"
        )
    elif guess.maybe_out_of_scope:
        maybe = guess.maybe_out_of_scope[0]
        lines.append(f"# out_of_scope = {quoted(maybe)}    # if this label means none of the others")
    else:
        lines.append(
            '# out_of_scope = "..."    # the label that means none of the others, where there is one'
        )
    aliases = {written: quoted(meant) for written, meant in facts.aliases.items()}
    lines.append(f"aliases = {_table(aliases)}" if aliases else '# aliases = {"mistyped" = "meant"}')
    return lines


def _answer_lines(guess: Guess) -> list[str]:
    """`[prompt]` of a task whose answers are free, and what judges them."""
    judge = DEFAULT_SCORERS[guess.kind]
    others = "exact, f1, numeric, rouge, chrf, regex, code, similarity, judge: docs/scorers.md"
    return [
        "",
        "[prompt]",
        "# how the model is asked; say in `system` what an answer must look like",
        '# system = "Answer with the shortest words that are right."',
        'template = "{input}"',
        f"max_tokens = {max(16, guess.longest_answer)}    # 99 % of the answers have up to "
        f"{guess.longest_answer} tokens, estimated",
        *_comment(
            f"answers are judged by `{judge}`; others go into a list `scorers` above [data]: {others}"
        ),
    ]


def _gate_comments(proposal: Proposal) -> list[str]:
    least = ", ".join(f"{margin:.2f}: {smallest_passing_n(margin)}" for margin in MARGINS)
    lines = [
        "# Gates. A candidate ships when each slice of each gate loses less than its margin, at 97.5 % "
        "confidence.",
        f"# Smallest slice that can pass at all, with no harmful flip, by margin: {least}.",
        f"# The margins below are the smallest that the slices are likely to certify ({FLIP_SHARE:.0%} "
        "flips, 80 % power):",
        *(f"#   {_one_line(name)}: {n} test examples" for name, n in proposal.sizes.items()),
    ]
    if proposal.too_small:
        shown = [
            f"{_one_line(name)} ({n})"
            for name, n in sorted(proposal.too_small.items(), key=lambda x: -x[1])
        ]
        more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
        lines.append(f"# Not certifiable, too few test examples: {', '.join(shown[:_SHOWN])}{more}.")
    for column, n in proposal.left_out.items():
        lines.append(
            f"# Reported, not required: the {n} values of {_one_line(column)} in test. To require each, "
            f"add {quoted(column + '=*')}."
        )
    return lines


def _gate_lines(gate: NotWorse) -> list[str]:
    lines = [
        'type = "not_worse"',
        f"scorer = {quoted(gate.scorer)}",
        f"margin = {gate.margin:.2f}",
        f"slices = {listed(gate.slices)}",
        f"alpha = {gate.alpha}",
    ]
    if gate.margins:
        lines.insert(4, f"margins = {_table({name: f'{m:.2f}' for name, m in gate.margins.items()})}")
    return lines


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(_one_line(name)[:60] for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, and {len(names) - _SHOWN} more"


def _one_line(text: str) -> str:
    """Text that fits a comment: no line break or control character ends it early."""
    return "".join(c if c.isprintable() else " " for c in text)
