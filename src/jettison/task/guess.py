"""What an unknown data set's columns probably are, with the reason for each guess."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import msgspec

from jettison.errors import InvalidInput, UnknownName
from jettison.files import decode_json
from jettison.task.folder import SplitTable, known_split, read_folder
from jettison.task.passed_over import (
    column_passed_over,
    earlier,
    is_label,
    is_weight,
    split_ignored,
    why_no_ids,
    why_no_labels,
    why_no_splits,
    why_no_texts,
    why_no_weights,
)
from jettison.task.prompt import most_tokens
from jettison.task.source import Columns, did_you_mean
from jettison.task.tables import read_table
from jettison.task.types import Finding

INPUTS = (
    "text", "sentence", "input", "utterance", "query", "question", "content", "message", "review", "prompt",
    "body", "comment", "tweet", "description", "title",
)  # fmt: skip
EXPECTED = (
    "label", "labels", "intent", "expected", "category", "class", "target", "sentiment", "answer", "tag",
    "topic", "output",
)  # fmt: skip
FREE_ANSWERS = (
    *EXPECTED, "answers", "references", "completion", "response", "reply", "summary", "translation",
    "fields",
)  # fmt: skip
IDS = ("id", "uid", "guid", "example_id", "row_id", "case_id", "uuid")
GROUPS = (
    "group", "group_id", "conversation_id", "conversation", "dialogue_id", "dialog_id", "session_id",
    "session", "thread_id", "ticket_id", "user_id", "customer_id", "author_id", "doc_id", "document_id",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "subset", "fold", "partition", "set")
WEIGHTS = ("weight", "sample_weight", "example_weight")
OUT_OF_SCOPE = (
    "oos", "ood", "outofscope", "outofdomain", "noneoftheabove", "nointent", "nlufallback", "fallback",
)  # fmt: skip
MAYBE_OUT_OF_SCOPE = ("none", "other", "others", "unknown", "misc", "miscellaneous", "null", "undefined")
HELD_OUT = ("ood", "outofdomain", "outofdistribution", "heldout", "holdout", "challenge", "adversarial")
Why = Callable[[Sequence[Any], Callable[[int], str]], str]
MAX_SLICE_VALUES = 50
MIN_PER_SLICE = 20


class Guess(msgspec.Struct, frozen=True, kw_only=True):
    """Roles of the columns, splits and the out-of-scope label, and why."""

    kind: Literal["classify", "generate", "extract"] = "classify"
    columns: Columns
    splits: dict[str, str]
    """Their split names that are not ours → ours, or `ignore`."""
    n_rows: int
    n_by_split: dict[str, int]
    """Rows by their split name; empty where the data brings no splits."""
    labels: tuple[str, ...]
    """As the data writes them, sorted; () of free answers."""
    longest_answer: int = 0
    """Tokens that 99 % of the free answers need, estimated."""
    out_of_scope: str | None
    maybe_out_of_scope: tuple[str, ...]
    """Labels that sound like it, but not surely."""
    slice_values: dict[str, int]
    """Slice column → number of its values."""
    reasons: dict[str, str]
    """Role → what was found and why it is taken for that."""
    findings: tuple[Finding, ...] = ()
    """Columns called as a role is that were not taken for it, and splits that will be ignored."""

    @property
    def our_splits(self) -> set[str]:
        return {self.splits.get(name, known_split(name) or "") for name in self.n_by_split}


def guess_data(
    path: Path, given: Columns | None = None, *, config: str | None = None, writes: bool = False
) -> Guess:
    """Look at a data file or folder.

    Args:
        path: JSONL, JSON, CSV, TSV, Parquet or a Hugging Face data set folder.
        given: Roles that its owner has named; `input` and `expected` empty leave them to be guessed.
        config: Which configuration of a folder that has several.
        writes: Whether answers may be free: texts, or objects of fields. Else they are labels.

    Raises:
        UnknownName: A column that was named is not there.
        InvalidInput: Nothing looks like a text, or like a label, or what is called so cannot be it.
    """
    tables = read_folder(path, config=config) if path.is_dir() else [_whole(path)]
    values = _joined(tables)
    given = given or Columns(input="", expected="")
    _check_given(given, values, path)
    reasons: dict[str, str] = {}
    taken = {name for name in (given.input, given.expected, given.id, given.group, given.weight) if name}
    taken |= set(given.slices) | ({given.split} if given.split else set())

    def role(name: str, said: str | None, found: tuple[str, str] | None) -> str | None:
        column, reason = (said, "named by you") if said else found or (None, "")
        if column:
            reasons[name] = f"{column!r}: {reason}"
            taken.add(column)
        return column

    by_folder = any(one.split for one in tables)
    split = role("split", given.split, None if by_folder else _split_column(values, taken))
    place = _places(tables)
    passed: list[Finding] = []

    def pass_over(what: str, names: Sequence[str], why: Why, found: str | None) -> str:
        """Note the columns called so that cannot be it; why the likeliest of them cannot, or ""."""
        whys = {
            name: said
            for name in earlier(names, values, found)
            if name not in taken - {found} and (said := why(values[name], place))
        }
        passed.extend(column_passed_over(what, name, said, found) for name, said in whys.items())
        return next((f"{name!r} {said}. " for name, said in whys.items()), "")

    text = role("input", given.input, _input(values, taken))
    why = "" if given.input else pass_over("input", INPUTS, why_no_texts, text)
    if text is None or (why and text.lower() not in INPUTS):
        raise InvalidInput(
            f"{path} must have a column of texts, got {list(values)}. {why}Name it: `--input COLUMN`."
        )
    label = role("expected", given.expected, _expected(values, taken, writes))
    why = "" if given.expected else pass_over("expected", EXPECTED, why_no_labels, label)
    if label is None or (why and label.lower() not in (FREE_ANSWERS if writes else EXPECTED)):
        what = "labels or answers" if writes else "labels"
        raise InvalidInput(
            f"{path} must have a column of {what}, got none that is surely one among {list(values)}. "
            f"{why}Name it: `--expected COLUMN`."
        )
    kind = _kind(values[label]) if writes else "classify"
    if kind == "classify":
        _check_plain(tables, label, "labels", "--expected")
    for name in given.slices:
        _check_plain(tables, name, "values of slices", "--slice")
    said_by_row = [value if kind == "classify" else str(value) for value in values[label]]
    names = _split_of_rows(tables, values, split)
    ids = role("id", given.id, _id(values, taken))
    group = role("group", given.group, _group(values, taken, names))
    weight = role("weight", given.weight, _weight(values, taken))
    if split is None and not by_folder:
        pass_over("split", ("split",), why_no_splits, None)
    if ids is None:
        pass_over("id", IDS, why_no_ids, None)
    if weight is None:
        pass_over("weight", WEIGHTS, why_no_weights, None)
    slices = list(given.slices) or _slices(values, taken, said_by_row)
    labels = _label_names(tables, label) if kind == "classify" else ()
    sure = [name for name in labels if _plain(name) in OUT_OF_SCOPE]
    maybe = sure if len(sure) > 1 else [name for name in labels if _plain(name) in MAYBE_OUT_OF_SCOPE]
    counts = Counter(name for name in names if name is not None)
    splits = {name: _guess_split(name) for name in counts if known_split(name) is None}
    passed += [split_ignored(name, counts[name]) for name, ours in splits.items() if ours == "ignore"]
    return Guess(
        kind=kind,
        findings=tuple(passed),
        longest_answer=0 if kind == "classify" else _longest(values[label]),
        columns=Columns(
            input=text, expected=label, id=ids, split=split, group=group, slices=slices, weight=weight
        ),
        splits=splits,
        n_rows=len(names),
        n_by_split=dict(counts),
        labels=labels,
        out_of_scope=sure[0] if len(sure) == 1 else None,
        maybe_out_of_scope=tuple(maybe),
        slice_values={name: len(set(values[name]) - {None}) for name in slices},
        reasons=reasons,
    )


def _places(tables: Sequence[SplitTable]) -> Callable[[int], str]:
    """Where a row of the joined tables stands."""
    starts = [0, *accumulate(one.table.n_rows for one in tables)]

    def place(row: int) -> str:
        index = bisect_right(starts, row) - 1
        return tables[index].table.place(row - starts[index])

    return place


def _whole(path: Path) -> SplitTable:
    return SplitTable(split=None, table=read_table(path))


def _joined(tables: Sequence[SplitTable]) -> dict[str, list[Any]]:
    """Values of each column over all tables, in one order of rows."""
    names = dict.fromkeys(name for one in tables for name in one.table.columns)
    return {
        name: [value for one in tables for value in one.table.columns.get(name, [None] * one.table.n_rows)]
        for name in names
    }


def _check_given(given: Columns, values: dict[str, list[Any]], path: Path) -> None:
    for role in ("input", "expected", "id", "split", "group", "weight"):
        _check_column(getattr(given, role), role, values, path)
    for name in given.slices:
        _check_column(name, "slice", values, path)


def _check_plain(tables: Sequence[SplitTable], column: str, what: str, option: str) -> None:
    for one in tables:
        for row, value in enumerate(one.table.columns.get(column, ())):
            if isinstance(value, list | dict):
                raise InvalidInput(
                    f"{what} must be texts or numbers, got {str(value)[:80]} under {column!r} at "
                    f"{one.table.place(row)}. Name another column: `{option} COLUMN`."
                )


def _check_column(name: str | None, role: str, values: Collection[str], path: Path) -> None:
    if name and name not in values:
        raise UnknownName(
            f"--{role} must be one of the columns {list(values)} of {path}, got {name!r}."
            f"{did_you_mean(name, values)}"
        )


def _input(values: dict[str, list[Any]], taken: set[str]) -> tuple[str, str] | None:
    """A column of texts: by name, else the one with the longest texts, most of which differ."""
    texts = {
        name: rows
        for name, rows in values.items()
        if name not in taken and all(isinstance(row, str) or row is None for row in rows) and any(rows)
    }
    if (named := _named(texts, INPUTS)) is not None:
        return named, "text in every row, and called so"
    means = {
        name: sum(len(row or "") for row in rows) / len(rows)
        for name, rows in texts.items()
        if len(set(rows)) > len(rows) / 2
    }
    if not means:
        return None
    longest = max(means, key=lambda name: means[name])
    return longest, f"the longest texts, {means[longest]:.0f} characters on average"


def _expected(values: dict[str, list[Any]], taken: set[str], writes: bool) -> tuple[str, str] | None:
    """A column of labels by name, else of free answers by name, else the only one with few values."""
    n_values = {
        name: len(set(rows) - {None, ""})
        for name, rows in values.items()
        if name not in taken and name.lower() not in (*IDS, *GROUPS, *WEIGHTS) and all(map(is_label, rows))
    }
    few = {name: n for name, n in n_values.items() if 2 <= n <= len(values[name]) / 2}
    named = _named(few, EXPECTED)
    if named is None and (free := _free(values, taken, writes)) is not None:
        return free
    if named is None and len(few) == 1:
        named = next(iter(few))
    if named is None:
        return None
    others = [name for name in few if name != named and name.lower() in EXPECTED]
    also = f"; or is it {' or '.join(map(repr, others))}? then `--expected {others[0]}`" if others else ""
    return named, f"{few[named]} different values{also}"


def _free(values: dict[str, list[Any]], taken: set[str], writes: bool) -> tuple[str, str] | None:
    """A column of free answers, by its name."""
    named = _named([name for name in values if name not in taken], FREE_ANSWERS) if writes else None
    return None if named is None else (named, f"answers of {_kind(values[named])} tasks, and called so")


def _kind(answers: Sequence[Any]) -> Literal["classify", "generate", "extract"]:
    """What answers are: objects, labels that recur, or texts."""
    present = [one for one in answers if one is not None and one != ""]
    if present and all(isinstance(one, dict) or _is_object(one) for one in present):
        return "extract"
    recur = all(isinstance(one, str | int) for one in present) and 2 * len(set(present)) <= len(present)
    return "classify" if recur else "generate"


def _is_object(value: Any) -> bool:
    try:
        return isinstance(value, str) and isinstance(decode_json(value, Any), dict)
    except msgspec.DecodeError:
        return False


def _longest(answers: Sequence[Any]) -> int:
    """Tokens that 99 % of the answers need, estimated."""
    texts = [text for one in answers for text in (one if isinstance(one, list) else [one])]
    written = (one if isinstance(one, str) else msgspec.json.encode(one).decode() for one in texts)
    lengths = sorted(map(most_tokens, written))
    return lengths[int(0.99 * (len(lengths) - 1))] if lengths else 0


def _split_column(values: dict[str, list[Any]], taken: set[str]) -> tuple[str, str] | None:
    for name, rows in values.items():
        found = {row for row in rows if isinstance(row, str)}
        known = {row for row in found if known_split(row) is not None}
        sure = known == found or len({known_split(row) for row in known}) >= 2
        if name in taken or not known or len(found) > 12 or None in rows:
            continue
        if sure or name.lower() in SPLIT_COLUMNS:
            return name, f"its values are {', '.join(sorted(found))}"
    return None


def _id(values: dict[str, list[Any]], taken: set[str]) -> tuple[str, str] | None:
    named = _named([n for n in values if n not in taken], IDS)
    if named is None or None in values[named] or len(set(map(str, values[named]))) < len(values[named]):
        return None
    return named, "different in every row"


def _group(
    values: dict[str, list[Any]], taken: set[str], splits: Sequence[str | None]
) -> tuple[str, str] | None:
    named = _named([n for n in values if n not in taken], GROUPS)
    rows = values[named] if named is not None else []
    if named is None or not all(row is None or isinstance(row, str | int) for row in rows):
        return None
    groups = set(rows) - {None}
    if not 1 < len(groups) < len(rows) - rows.count(None):
        return None
    if len({(g, s) for g, s in zip(rows, splits, strict=True) if g is not None}) > len(groups):
        return None  # its groups straddle the data's own splits
    return named, f"{len(groups)} values repeat over {len(rows)} rows, so these rows depend on each other"


def _weight(values: dict[str, list[Any]], taken: set[str]) -> tuple[str, str] | None:
    named = _named([n for n in values if n not in taken], WEIGHTS)
    if named is None or not all(map(is_weight, values[named])):
        return None
    return named, "a number above 0 in every row"


def _slices(values: dict[str, list[Any]], taken: set[str], labels: Sequence[Any]) -> list[str]:
    """Columns of few short values that say something else than the label."""
    found = []
    for name, rows in values.items():
        present = [row for row in rows if row is not None and row != ""]
        if name in taken or not present or not all(isinstance(row, str | bool) for row in present):
            continue
        n = len(set(present))
        enough = len(present) >= max(len(rows) / 2, n * MIN_PER_SLICE)
        says_more = not n == len(set(labels)) == len(set(zip(rows, labels, strict=True)))
        short = all(len(str(value)) <= 60 for value in set(present))
        if 2 <= n <= MAX_SLICE_VALUES and enough and says_more and short:
            found.append(name)
    return found


def _split_of_rows(
    tables: Sequence[SplitTable], values: dict[str, list[Any]], column: str | None
) -> list[str | None]:
    if column is not None:
        return [None if value is None else str(value) for value in values[column]]
    return [one.split for one in tables for _ in range(one.table.n_rows)]


def _guess_split(name: str) -> str:
    return "test" if _plain(name) in HELD_OUT else "ignore"


def _label_names(tables: Sequence[SplitTable], column: str) -> tuple[str, ...]:
    found: set[str] = set()
    for one in tables:
        names = one.table.label_names.get(column)
        for value in set(one.table.columns.get(column, ())) - {None, ""}:
            if isinstance(value, bool):
                found.add(str(value).lower())
            elif isinstance(value, float) and value.is_integer():
                found.add(str(int(value)))
            elif isinstance(value, int) and names:
                found |= {names[value]} if 0 <= value < len(names) else set()
            else:
                found.add(str(value))
    return tuple(sorted(found))


def _named(columns: Collection[str], wanted: Sequence[str]) -> str | None:
    lowered = {name.lower(): name for name in reversed(list(columns))}
    return next((lowered[name] for name in wanted if name in lowered), None)


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
