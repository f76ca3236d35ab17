"""Scorers of answers that must be JSON: valid, of a schema, and with the right fields."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jettison.errors import InvalidInput
from jettison.evaluate.score_text import check_choice, right_answers, squad_normalize
from jettison.evaluate.scorers import Score
from jettison.model import Output
from jettison.task import Example
from jettison.task.json_schema import parse_json, read_schema, schema_validator

FIELD_FORMS = ("exact", "normalized", "number")
_HERE = "scorer 'json_schema'"


class JsonValidScorer:
    """1 when the answer is one JSON value alone. Setting: `fenced` (false): a ``` fence is let by."""

    def __init__(self, *, out_of_scope: str | None = None, fenced: bool = False) -> None:
        del out_of_scope
        self._fenced = fenced

    def score(self, example: Example, output: Output) -> Score:
        """Judge one answer; the example plays no part."""
        del example
        if output.error is not None:
            return Score(value=0.0, reason="no answer")
        try:
            parse_json(output.label, fenced=self._fenced)
        except ValueError as error:
            return Score(value=0.0, reason=f"no JSON: {error}")
        return Score(value=1.0)


class JsonSchemaScorer:
    """1 when the answer is JSON of a schema. Settings: `schema` (a table, or a file), `fenced` (false).

    Draft 2020-12 unless the schema's `$schema` says otherwise. References outside the schema are
    never fetched.
    """

    def __init__(
        self,
        *,
        out_of_scope: str | None = None,
        schema: Mapping[str, Any] | str,
        fenced: bool = False,
    ) -> None:
        del out_of_scope
        self._fenced = fenced
        self._validator = schema_validator(read_schema(schema, of=_HERE), of=_HERE)

    def score(self, example: Example, output: Output) -> Score:
        """Judge one answer; the reason names the first place that does not fit."""
        del example
        if output.error is not None:
            return Score(value=0.0, reason="no answer")
        try:
            value = parse_json(output.label, fenced=self._fenced)
        except ValueError as error:
            return Score(value=0.0, reason=f"no JSON: {error}")
        try:
            wrong = next(self._validator.iter_errors(value), None)
        except RecursionError:
            return Score(value=0.0, reason="nested too deeply to check")
        if wrong is None:
            return Score(value=1.0)
        return Score(value=0.0, reason=f"{wrong.json_path}: {wrong.message[:200]}")


class FieldF1Scorer:
    """F1 over the fields of a JSON object: what was extracted, against what stands there.

    A field is a path with its value (`address.city`); the items of a list are unordered. An absent
    field and one that is null or empty are the same. Precision is the share of the answer's fields
    that are right, recall the share of the right fields that were found; both are in the reason.

    Settings: `fields` (path → `exact`, `normalized` as in SQuAD, or `number` within 1e-6;
    `normalized` where a path is not named), `only` (paths to judge, all others left out), `fenced`
    (true). Right answers are JSON objects; the best of them counts.
    """

    needs_right_answer = True

    def __init__(
        self,
        *,
        out_of_scope: str | None = None,
        fields: Mapping[str, str] | None = None,
        only: Sequence[str] = (),
        fenced: bool = True,
    ) -> None:
        del out_of_scope
        for path, form in (fields or {}).items():
            check_choice("field_f1", f"fields.{path}", form, FIELD_FORMS)
        self._forms = dict(fields or {})
        self._only = frozenset(only)
        self._fenced = fenced

    def score(self, example: Example, output: Output) -> Score:
        """Judge one answer; None where no right answer is known. No JSON object scores 0.

        Raises:
            InvalidInput: A right answer is no JSON object.
        """
        rights = [self._right(example, text) for text in right_answers(example)]
        if not rights:
            return Score(value=None, reason="nobody has said what the right fields are")
        if output.error is not None:
            return Score(value=0.0, reason="no answer")
        try:
            said = self._fields(parse_json(output.label, fenced=self._fenced))
        except ValueError as error:
            return Score(value=0.0, reason=f"no JSON object: {error}")
        return max((_field_f1(said, right) for right in rights), key=lambda score: score.value or 0.0)

    def _right(self, example: Example, text: str) -> Counter[tuple[str, str]]:
        try:
            return self._fields(parse_json(text, fenced=False))
        except ValueError as error:
            raise InvalidInput(
                f"a right answer of scorer 'field_f1' must be a JSON object, got {text[:80]!r} "
                f"at example {example.id}: {error}."
            ) from error

    def _fields(self, value: Any) -> Counter[tuple[str, str]]:
        if not isinstance(value, dict):
            raise ValueError(f"got {type(value).__name__}")
        found: Counter[tuple[str, str]] = Counter()
        for path, leaf in _leaves(value):
            if self._only and path not in self._only:
                continue
            written = _written(leaf, self._forms.get(path, "normalized"))
            if written:
                found[path, written] += 1
        return found


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that holds no others, with its path; an item of a list has its list's path and `[]`."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, f"{path}[]")
    else:
        yield path, value


def _written(leaf: Any, form: str) -> str:
    """A value as text to compare; empty where there is none."""
    if leaf is None:
        return ""
    if isinstance(leaf, bool):
        return "true" if leaf else "false"
    text = str(leaf).strip()
    if form == "exact":
        return text
    if form == "number" or not isinstance(leaf, str):
        number = _number(text)
        return text if number is None else f"{number:.6g}"
    return squad_normalize(text) or text


def _number(text: str) -> float | None:
    try:
        value = float(text.replace(",", "").lstrip("$€£ "))
    except (ValueError, OverflowError):
        return None
    return value + 0.0 if math.isfinite(value) else None


def _field_f1(said: Counter[tuple[str, str]], right: Counter[tuple[str, str]]) -> Score:
    if not said and not right:
        return Score(value=1.0, reason="no fields, and none were found")
    n_common, n_said, n_right = (said & right).total(), said.total(), right.total()
    missed = next((f"; missed {path}" for path, _ in right - said), "")
    return Score(
        value=2 * n_common / (n_said + n_right),
        reason=f"precision {n_common}/{n_said}, recall {n_common}/{n_right}{missed}",
    )
