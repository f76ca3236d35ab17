"""Whether an output is JSON, and of a schema."""

from typing import Any

from jettison.errors import InvalidInput
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where
from jettison.task.json_schema import parse_json, read_schema, schema_validator

_HERE = "guardrail `json_schema`"


class JsonSchemaSettings(GuardSettings, frozen=True, kw_only=True):
    """Settings of `json_schema`."""

    where: tuple[Where, ...] = ("output",)
    schema: dict[str, Any] | str | None = None
    """The schema as a table, or its file. None asks for any JSON value."""
    fenced: bool = False
    """Whether the JSON may stand in a ``` fence."""


class JsonSchema:
    """Catches what is no JSON, or not of the schema: draft 2020-12 unless its `$schema` says otherwise.

    References outside of the schema are never fetched. A schema needs the extra `scorers`.
    """

    Settings = JsonSchemaSettings
    is_for_answers = True

    def __init__(self, settings: JsonSchemaSettings) -> None:
        if settings.action == "redact":
            raise InvalidInput("action must be `flag`, `escalate` or `block`, got `redact`.")
        self._settings = settings
        given = settings.schema
        self._validator = (
            None if given is None else schema_validator(read_schema(given, of=_HERE), of=_HERE)
        )

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text; the reason names the first place that does not fit, and the rule it breaks."""
        del where
        reason = self._wrong(text)
        action = "pass" if reason is None else self._settings.action
        return Verdict(action=action, guardrail="json_schema", reason=reason)

    def _wrong(self, text: str) -> str | None:
        try:
            # Its messages hold places and rules, and nothing of the text.
            value = parse_json(text, fenced=self._settings.fenced)
        except ValueError as error:
            return f"no JSON: {error}"
        if self._validator is None:
            return None
        try:
            wrong = next(self._validator.iter_errors(value), None)
        except RecursionError:
            return "nested too deeply to check"
        if wrong is None:
            return None
        # Not the path as it stands: a key may be the very text that should not be told.
        return f"at depth {len(wrong.absolute_path)} it breaks `{wrong.validator}`"
