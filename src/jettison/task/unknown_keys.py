"""What no settings file may hold when people write it: keys that no record has, and null bytes.

Records that jettison writes itself are read without this, so that files of a newer version still open.
"""

from functools import cache
from typing import Any, TypeVar

from msgspec import inspect

from jettison.errors import InvalidInput
from jettison.task.source import did_you_mean

T = TypeVar("T", bound=inspect.Type)


def refuse_unknown_keys(content: Any, kind: Any, *, where: str, at: str = "$") -> None:
    """Check the keys of every table that a record will be made of; values are not looked at.

    Args:
        content: What was read from TOML or JSON.
        kind: The record that it is to become, or a union of tagged ones.
        where: The file, in messages.
        at: Path of `content` within it.

    Raises:
        InvalidInput: A table has a key that its record lacks.
    """
    _check(content, _type_info(kind), where, at)


def refuse_null_bytes(content: Any, *, where: str, at: str = "$") -> None:
    """Check the texts of a settings file: most are or become paths, and no path can hold a null byte.

    Raises:
        InvalidInput: A text holds one.
    """
    if isinstance(content, dict):
        for key, value in content.items():
            refuse_null_bytes(value, where=where, at=f"{at}.{key}")
    elif isinstance(content, list):
        for i, value in enumerate(content):
            refuse_null_bytes(value, where=where, at=f"{at}[{i}]")
    elif isinstance(content, str) and "\0" in content:
        raise InvalidInput(
            f"{where} must hold texts without null bytes, got {content!r} at `{at}`. Leave out the \\u0000."
        )


@cache
def _type_info(kind: Any) -> inspect.Type:
    return inspect.type_info(kind)


def _check(content: Any, kind: inspect.Type, where: str, at: str) -> None:
    if isinstance(content, dict):
        if (record := _record_for(content, kind)) is not None:
            _check_table(content, record, where, at)
        elif (table := _one_of(kind, inspect.DictType)) is not None:
            for key, value in content.items():
                _check(value, table.value_type, where, f"{at}.{key}")
    elif isinstance(content, list):
        items = _one_of(kind, inspect.ListType) or _one_of(kind, inspect.VarTupleType)
        if items is not None:
            for i, value in enumerate(content):
                _check(value, items.item_type, where, f"{at}[{i}]")


def _check_table(content: dict[str, Any], record: inspect.StructType, where: str, at: str) -> None:
    kinds = {field.encode_name: field.type for field in record.fields}
    known = sorted({*kinds, *([record.tag_field] if record.tag_field else [])})
    for key, value in content.items():
        if key not in known:
            place = "" if at == "$" else f" at `{at}`"
            raise InvalidInput(
                f"{where} must have settings among {known}{place}, got {key!r}.{did_you_mean(key, known)}"
            )
        if key in kinds:
            _check(value, kinds[key], where, f"{at}.{key}")


def _record_for(content: dict[str, Any], kind: inspect.Type) -> inspect.StructType | None:
    """The record that a table will become; None where its tag is of none, which reading it says better."""
    records = [one for one in _members(kind) if isinstance(one, inspect.StructType)]
    if len(records) == 1 and records[0].tag_field is None:
        return records[0]
    return next((one for one in records if content.get(str(one.tag_field)) == one.tag), None)


def _one_of(kind: inspect.Type, wanted: type[T]) -> T | None:
    return next((one for one in _members(kind) if isinstance(one, wanted)), None)


def _members(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)
