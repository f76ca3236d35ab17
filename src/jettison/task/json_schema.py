"""JSON that a model wrote, read strictly, and JSON schemas to check it by."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jettison import registry
from jettison.errors import InvalidInput

MOST_CHARACTERS = 1_000_000
_FENCE = "```"


def parse_json(text: str, *, fenced: bool) -> Any:
    """One JSON value, strictly: no NaN, no key twice, nothing before or after but a code fence.

    Raises:
        ValueError: It is none; the message says why.
    """
    bare = text.strip()
    if len(bare) > MOST_CHARACTERS:
        raise ValueError(f"longer than {MOST_CHARACTERS:,} characters")
    if fenced and bare.startswith(_FENCE) and bare.endswith(_FENCE) and len(bare) > 6:
        head, _, rest = bare[3:-3].partition("\n")
        bare = rest if head.strip().lower() in ("", "json") else bare
    try:
        return json.loads(bare, object_pairs_hook=_no_key_twice, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has one key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def read_schema(given: Mapping[str, Any] | str, *, of: str) -> dict[str, Any]:
    """A schema given as a table, or as the name of its file.

    Args:
        given: Table or file.
        of: Whose schema it is, for messages.

    Raises:
        InvalidInput: The file cannot be read, or holds no JSON object.
    """
    if not isinstance(given, str):
        return dict(given)
    try:
        found = parse_json(Path(given).read_text(encoding="utf-8"), fenced=False)
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"schema of {of} must be a table or a JSON file, got {given!r}: {error}."
        ) from error
    if not isinstance(found, dict):
        raise InvalidInput(f"schema of {of} must be a JSON object, got {given!r}.")
    return found


def schema_validator(schema: dict[str, Any], *, of: str) -> Any:
    """A validator: draft 2020-12 unless the schema's `$schema` says otherwise. Nothing is ever fetched.

    Args:
        schema: The schema.
        of: Whose it is, for messages.

    Raises:
        InvalidInput: It is no schema, or refers to another.
        MissingExtra: `jsonschema` is not installed.
    """
    jsonschema = registry.need("jsonschema", "scorers")
    referencing = registry.need("referencing", "scorers")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise InvalidInput(
            f"schema of {of} must be a JSON schema: {error.message} at {error.json_path}."
        ) from error
    if (outside := next(_outside_references(schema), None)) is not None:
        raise InvalidInput(
            f"schema of {of} must hold all it refers to, got {outside!r}. Copy it under `$defs`."
        )
    return kind(schema, registry=referencing.Registry())


def _outside_references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("$ref", "$dynamicRef") and isinstance(inner, str) and not inner.startswith("#"):
                yield inner
            yield from _outside_references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _outside_references(inner)
