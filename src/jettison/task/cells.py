"""Lists inside a table's cells: a list, the JSON text of one, or text with a separator."""

import math
from typing import Any

import msgspec

from jettison.errors import InvalidInput
from jettison.files import decode_json


def list_of(value: Any, *, separator: str | None, column: str, place: str) -> list[Any] | None:
    """The cell as a list; None where it is empty.

    Raises:
        InvalidInput: It is none of the shapes that a list may have.
    """
    if value is None or value == "":
        return None
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, str) and separator is not None:
        return [part.strip() for part in value.split(separator)]
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return decode_json(value, list[Any])
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{column} must be a JSON list at {place}: {error}.") from error
    raise InvalidInput(
        f"{column} must be a list or the JSON text of one, got {short(value)} at {place}. "
        "Text that is split by a mark needs `separator` under [data]."
    )


def text_of(value: Any, *, column: str, place: str) -> str:
    """Text, or a number as text.

    Raises:
        InvalidInput: It is empty or of another type.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value
    raise InvalidInput(f"{column} must be text or a number, not empty, got {short(value)} at {place}.")


def object_of(value: Any, *, column: str, place: str) -> str:
    """A JSON object, or the JSON text of one, as compact JSON text; its fields keep their order.

    Raises:
        InvalidInput: It is no JSON object.
    """
    if isinstance(value, str):
        try:
            value = decode_json(value, Any)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{column} must be a JSON object at {place}: {error}.") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{column} must be a JSON object, got {short(value)} at {place}.")
    return msgspec.json.encode(value).decode()


def short(value: Any) -> str:
    """A value as messages show it."""
    said = repr(value)
    return said if len(said) <= 80 else f"{said[:77]}..."
