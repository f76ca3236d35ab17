"""Which words a setting may be, where msgspec says only that it is none of them."""

import re
from collections.abc import Iterator, Sequence

from msgspec import inspect

_WRONG = re.compile(r"Invalid (?:enum )?value '(.*)' - at `\$(.*)`", re.DOTALL)


def wrong_choice(message: str, kind: type) -> tuple[str, list[str]] | None:
    """The word that came and those that might have, of an error of `msgspec.convert`; None of any other.

    Args:
        message: What the error says.
        kind: The record type that was converted to.
    """
    found = _WRONG.fullmatch(message)
    if found is None:
        return None
    types = [inspect.type_info(kind)]
    for step in re.findall(r"\.[^.\[]+|\[[^\]]*\]", found[2]):
        tags = [tag for one in _each(types) if (tag := _tag(one, step)) is not None]
        if tags:
            return found[1], sorted(map(str, tags))
        types = list(_inside(types, step))
    words = [word for one in _each(types) if isinstance(one, inspect.LiteralType) for word in one.values]
    return (found[1], [str(word) for word in words]) if words else None


def _each(types: Sequence[inspect.Type]) -> Iterator[inspect.Type]:
    for one in types:
        if isinstance(one, inspect.UnionType):
            yield from _each(one.types)
        else:
            yield one


def _tag(one: inspect.Type, step: str) -> str | int | None:
    """What a record of a union is called by, where the step leads to that."""
    if isinstance(one, inspect.StructType) and one.tag_field == step.removeprefix("."):
        return one.tag
    return None


def _inside(types: Sequence[inspect.Type], step: str) -> Iterator[inspect.Type]:
    for one in _each(types):
        if isinstance(one, inspect.StructType):
            yield from (field.type for field in one.fields if f".{field.encode_name}" == step)
        elif isinstance(one, inspect.DictType):
            yield one.value_type
        elif isinstance(one, inspect.ListType | inspect.VarTupleType):
            yield one.item_type
