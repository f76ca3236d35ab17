"""Columns that are called as a role is and cannot have it: which row stands in the way."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from jettison.task.cells import short
from jettison.task.folder import known_split
from jettison.task.types import Finding


def is_label(value: Any) -> bool:
    """Whether a task can read the value as a label; None is one that is missing."""
    is_whole = isinstance(value, float) and value.is_integer()
    return value is None or isinstance(value, str | int) or is_whole


def is_weight(value: Any) -> bool:
    """Whether it is a number above 0, or the text of one, as CSV has it."""
    try:
        return not isinstance(value, bool) and 0 < float(value) < float("inf")
    except (TypeError, ValueError, OverflowError):
        return False


def why_no_texts(rows: Sequence[Any], place: Callable[[int], str]) -> str:
    """Why a column holds no texts to ask a model; "" where it does."""
    odd = _first(rows, lambda row: row is None or isinstance(row, str))
    if odd is not None:
        return f"holds {short(rows[odd])} at {place(odd)}, where inputs are texts"
    return "" if any(rows) else "holds no text in any row"


def why_no_labels(rows: Sequence[Any], place: Callable[[int], str]) -> str:
    """Why a column holds no labels that a classifier could learn; "" where it does."""
    odd = _first(rows, is_label)
    if odd is not None:
        return f"holds {short(rows[odd])} at {place(odd)}, where labels are text or whole numbers"
    n = len(set(rows) - {None, ""})
    if 2 <= n <= len(rows) / 2:
        return ""
    counted = f"{n} different value{'' if n == 1 else 's'}"
    return f"has {counted} in {len(rows)} rows, where labels are 2 or more that recur"


def why_no_weights(rows: Sequence[Any], place: Callable[[int], str]) -> str:
    """Why a column holds no weights; "" where it does."""
    odd = _first(rows, is_weight)
    return "" if odd is None else f"holds {short(rows[odd])} at {place(odd)}, where weights are above 0"


def why_no_splits(rows: Sequence[Any], place: Callable[[int], str]) -> str:
    """Why a column does not say the split of every row; "" where it may."""
    odd = _first(rows, lambda row: isinstance(row, str))
    if odd is not None:
        return f"holds {short(rows[odd])} at {place(odd)}, where each row has the name of a split"
    return "" if any(map(known_split, set(rows))) else "holds no name of a split, as train or test"


def why_no_ids(rows: Sequence[Any], place: Callable[[int], str]) -> str:
    """Why a column does not tell every row from the others; "" where it does."""
    if None in rows:
        return f"is empty at {place(rows.index(None))}, where each row has an id"
    first: dict[str, int] = {}
    for i, row in enumerate(map(str, rows)):
        if first.setdefault(row, i) != i:
            return f"holds {short(rows[i])} at {place(first[row])} and at {place(i)}"
    return ""


def column_passed_over(role: str, name: str, why: str, taken: str | None) -> Finding:
    """What `init` says of a column that it did not take."""
    instead = "none is" if taken is None else f"{taken!r} is"
    message = (
        f"column {name!r} is not taken as {role}, as it {why}; {instead}. Mend the data, or name the "
        f"column: `--{role} COLUMN`."
    )
    return Finding(rule="column_passed_over", severity="warning", message=message)


def split_ignored(name: str, n_rows: int) -> Finding:
    """What `init` says of rows that no split of ours will have."""
    message = (
        f"split {name!r} is none of ours, so its {n_rows} row{'' if n_rows == 1 else 's'} will be ignored; "
        "say under [data.splits] what it is, if it is to count."
    )
    return Finding(rule="split_ignored", severity="warning", message=message, n_examples=n_rows)


def earlier(names: Sequence[str], columns: Collection[str], taken: str | None) -> list[str]:
    """Columns called as one of `names`, likelier ones first, that stand before the one taken."""
    lowered = {name.lower(): name for name in reversed(list(columns))}
    found = [lowered[name] for name in names if name in lowered]
    return found[: found.index(taken)] if taken in found else found


def _first(rows: Sequence[Any], is_fine: Callable[[Any], bool]) -> int | None:
    return next((i for i, row in enumerate(rows) if not is_fine(row)), None)
