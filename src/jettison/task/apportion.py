"""Gives each row its split where the data does not, and takes leaked rows out of train."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from jettison.errors import InvalidInput
from jettison.task.examples import Row, content_key
from jettison.task.source import MadeSplit, TaskSource
from jettison.task.split import make_split
from jettison.task.types import Finding

DEFAULT_DEV_SHARE = 0.1


def with_made_splits(rows: list[Row], source: TaskSource) -> tuple[list[Row], tuple[Finding, ...]]:
    """Split what has no split yet, and set dev apart from train where the data has none.

    Raises:
        InvalidInput: A split has to be made and is not asked for, or is asked for and is there.
    """
    shares = _shares_wanted({row.split for row in rows}, source.split)
    if not shares:
        return rows, ()
    rows = [replace(row, split="train") if row.split == "any" else row for row in rows]
    rows = _split_train(rows, shares, source)
    counts = Counter(row.split for row in rows)
    said = " and ".join(f"{counts[name]} as {name} ({share:.0%})" for name, share in shares.items())
    message = f"the data brings no such split, so {said} were set apart, by seed {source.split.seed}."
    n = sum(counts[name] for name in shares)
    return rows, (Finding(rule="made_split", severity="note", message=message, n_examples=n),)


def _shares_wanted(present: set[str], made: MadeSplit) -> dict[str, float]:
    """The splits to make of the unsplit rows and train, with their shares."""
    for name, share in (("test", made.test_share), ("dev", made.dev_share)):
        if name in present and share is not None:
            raise InvalidInput(
                f"split.{name}_share must be left out where the data has a {name} split, got {share}."
            )
    if "any" in present and "test" not in present and made.test_share is None:
        raise InvalidInput(
            "the data must say which rows are test, got rows without a split. Name the column that says it "
            "(data.columns.split), or have the split made: `test_share = 0.2` under [split]."
        )
    if not present & {"any", "train"}:
        return {}
    wanted = {"test": made.test_share, "dev": made.dev_share or DEFAULT_DEV_SHARE}
    return {name: share for name, share in wanted.items() if share is not None and name not in present}


def _split_train(rows: list[Row], shares: dict[str, float], source: TaskSource) -> list[Row]:
    """Move shares of the train rows to other splits."""
    train = [i for i, row in enumerate(rows) if row.split == "train"]
    splits = make_split(
        [rows[i].expected or "" if source.kind == "classify" else "" for i in train],
        _joined_groups([rows[i] for i in train]),
        shares=shares,
        rest="train",
        seed=source.split.seed,
        stratified=source.split.stratified,
    )
    result = list(rows)
    for i, split in zip(train, splits, strict=True):
        result[i] = replace(rows[i], split=split)
    return result


def _joined_groups(rows: Sequence[Row]) -> list[str]:
    """Name of what must stay together: rows of one group or of one text, and whatever that links."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = name = parent[parent[name]]
        return name

    texts = [f"text:{content_key(row)}" for row in rows]
    for row, text in zip(rows, texts, strict=True):
        if row.group is not None:
            low, high = sorted((root(text), root(f"group:{row.group}")))
            parent[high] = low
    return [root(text) for text in texts]


def without_leaked(rows: list[Row]) -> tuple[list[Row], tuple[Finding, ...]]:
    """Remove from train what dev or test has too, and from dev what test has; test stays as it is."""
    test = {content_key(row) for row in rows if row.split == "test"}
    held = {"dev": test, "train": test | {content_key(row) for row in rows if row.split == "dev"}}
    kept: list[Row] = []
    dropped = dict.fromkeys(held, 0)
    for row in rows:
        if content_key(row) in held.get(row.split, ()):
            dropped[row.split] += 1
        else:
            kept.append(row)
    others = {"train": "dev or test", "dev": "test"}
    return kept, tuple(
        Finding(
            rule="dropped_leaked",
            severity="note",
            message=f"rows left out of {split} because their text is in {others[split]} "
            f"(data.drop_leaked): {n}.",
            n_examples=n,
        )
        for split, n in dropped.items()
        if n
    )
