"""Examples that a team, or a published set, brings for a tier: AdvGLUE, HateCheck, its own bug reports."""

from collections.abc import Sequence
from pathlib import Path

from jettison.errors import InvalidInput
from jettison.evaluate.suites.out_of_domain import TEXT
from jettison.evaluate.suites.tier import TIERS, in_tier
from jettison.files import value_sha256
from jettison.task import Example
from jettison.task.tables import Table, read_table

EXPECTED = ("expected", "label", "answer", "target")
_OWN = ("id", "group", "weight", "choices", "references", "tests", "relevance")


def given_examples(
    tier: str, paths: Sequence[Path], *, labels: Sequence[str], out_of_scope: str | None
) -> tuple[Example, ...]:
    """Examples of files with a text and its right answer; every further column of short text is a slice.

    Args:
        tier: One of `TIERS`.
        paths: JSONL, CSV, Parquet, ...
        labels: What may be answered; empty where answers are free text.
        out_of_scope: The label that means none of them.

    Raises:
        InvalidInput: The tier is unknown, a column is missing, or an answer is no label of the task.
    """
    if tier not in TIERS:
        raise InvalidInput(f"a tier must be one of {list(TIERS)}, got {tier!r}.")
    found: dict[str, Example] = {}
    for path in paths:
        table = read_table(path)
        text, answer = _column(table, TEXT), _column(table, EXPECTED)
        more = [name for name in table.columns if name not in (text, answer, *_OWN, "split")]
        for row in range(table.n_rows):
            example = _example(table, row, text, answer, path.stem)
            if labels and example.expected not in (*labels, out_of_scope):
                raise InvalidInput(
                    f"{answer} must be a label of the task, got {example.expected!r} at {table.place(row)}."
                )
            slices = {
                name: str(value)
                for name in more
                if isinstance(value := table.columns[name][row], str | int | bool) and len(str(value)) <= 64
            }
            found[example.id] = in_tier(
                example, tier, name="", source=table.place(row), slices={**slices, "given": path.stem}
            )
    return tuple(found.values())


def _example(table: Table, row: int, text: str, answer: str, stem: str) -> Example:
    asked, expected = table.columns[text][row], table.columns[answer][row]
    if not isinstance(asked, str) or expected is None:
        raise InvalidInput(
            f"{text} must be text and {answer} an answer, got {asked!r} and {expected!r} "
            f"at {table.place(row)}."
        )
    groups = table.columns.get("group")
    own = f"{stem}-{value_sha256([asked, str(expected)])[:12]}"
    return Example(
        id=own,
        input=asked,
        expected=str(expected),
        group=None if groups is None or groups[row] is None else str(groups[row]),
    )


def _column(table: Table, names: Sequence[str]) -> str:
    found = next((name for name in names if name in table.columns), None)
    if found is None:
        raise InvalidInput(
            f"{table.path} must have a column named one of {list(names)}, got {sorted(table.columns)}."
        )
    return found
