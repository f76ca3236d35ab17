"""Which records a gate looks at: `all`, `column=value`, or `column=*` for every value of a column."""

from collections.abc import Iterable, Sequence

from jettison.errors import InvalidInput, UnknownName
from jettison.record import Record

ALL = "all"


def expand_slices(specs: Iterable[str], records: Sequence[Record]) -> tuple[str, ...]:
    """Turn each `column=*` into one slice a value; every other slice must have records.

    Raises:
        InvalidInput: A slice is written in neither of the three forms.
        UnknownName: No record has that column, or that value.
    """
    values = columns(records)
    found: list[str] = []
    for spec in specs:
        if spec == ALL:
            found.append(ALL)
            continue
        column, separator, value = spec.partition("=")
        if not separator or not column or not value:
            raise InvalidInput(f"a slice must be `all`, `column=value` or `column=*`, got {spec!r}.")
        if not values:
            raise UnknownName(
                f"a slice other than `all` needs a column in the records, got none for {spec!r}."
            )
        if column not in values:
            raise UnknownName(f"the column of a slice must be one of {sorted(values)}, got {spec!r}.")
        if value == "*":
            found.extend(f"{column}={each}" for each in values[column])
        elif value in values[column]:
            found.append(spec)
        else:
            raise UnknownName(
                f"the value of slice column {column!r} must be one of {values[column]}, got {value!r}."
            )
    return tuple(dict.fromkeys(found))


def columns(records: Iterable[Record]) -> dict[str, list[str]]:
    """Values of each slice column, sorted."""
    seen: dict[str, set[str]] = {}
    for record in records:
        for column, value in record.slices.items():
            seen.setdefault(column, set()).add(value)
    return {column: sorted(values) for column, values in sorted(seen.items())}


def in_slice(record: Record, spec: str) -> bool:
    """Whether a record belongs to an expanded slice."""
    if spec == ALL:
        return True
    column, _, value = spec.partition("=")
    return record.slices.get(column) == value


def by_slice(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Every slice present → its records, in order: one pass over the records, however many slices."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        for key in record.slices.items():
            if key in found:
                found[key].append(record)
            else:
                found[key] = [record]
    return {
        ALL: list(records),
        **{f"{column}={value}": found[column, value] for column, value in sorted(found)},
    }


def every_slice(records: Sequence[Record]) -> tuple[str, ...]:
    """`all` and each value of each column: what a report may show."""
    return (ALL, *(f"{column}={value}" for column, values in columns(records).items() for value in values))
