import json

import pytest

from jettison.errors import InvalidInput
from jettison.evaluate.score_json import FieldF1Scorer, JsonSchemaScorer, JsonValidScorer
from jettison.model import Output
from jettison.task import Example

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def example(expected: object = None, *references: object) -> Example:
    said = None if expected is None else json.dumps(expected)
    return Example(id="7", input="?", expected=said, references=tuple(json.dumps(r) for r in references))


def output(label: str, error: str | None = None) -> Output:
    return Output(label=label, confidence=0.5, error=error)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('{"a": [1, null]}', 1),
        (" 3 ", 1),
        ('```json\n{"a": 1}\n```', 0),
        ('Here: {"a": 1}', 0),
        ('{"a": 1} {"b": 2}', 0),
        ("{'a': 1}", 0),
        ("NaN", 0),
        ('{"a": 1, "a": 2}', 0),
        ("[" * 100_000, 0),
        ("", 0),
    ],
)
def test_valid_json_is_one_value_and_nothing_else(answer, value):
    assert JsonValidScorer().score(example(), output(answer)).value == value


def test_a_fence_is_let_by_where_asked():
    scorer = JsonValidScorer(fenced=True)
    assert scorer.score(example(), output('```json\n{"a": 1}\n```')).value == 1
    assert scorer.score(example(), output("", error="no")).value == 0


def test_a_schema_is_kept_or_the_reason_says_where_not():
    scorer = JsonSchemaScorer(schema=SCHEMA)
    assert scorer.score(example(), output('{"name": "Ann", "age": 3}')).value == 1
    wrong = scorer.score(example(), output('{"name": "Ann", "age": -3}'))
    assert wrong.value == 0
    assert wrong.reason == "$.age: -3 is less than the minimum of 0"
    assert scorer.score(example(), output('{"age": 3}')).value == 0
    assert scorer.score(example(), output("not JSON")).value == 0


def test_a_schema_may_come_as_a_file_and_must_be_one(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA))
    assert JsonSchemaScorer(schema=str(path)).score(example(), output('{"name": "A"}')).value == 1
    with pytest.raises(InvalidInput, match="must be a JSON schema: 'objet' is not valid"):
        JsonSchemaScorer(schema={"type": "objet"})
    with pytest.raises(InvalidInput, match=r"must be a table or a JSON file, got 'nowhere\.json'"):
        JsonSchemaScorer(schema="nowhere.json")
    with pytest.raises(InvalidInput, match=r"must hold all it refers to, got 'https://example\.org"):
        JsonSchemaScorer(schema={"$ref": "https://example.org/s.json"})


def test_field_f1_by_hand():
    right = {"name": "Ann Lee", "age": 40, "tags": ["a", "b"], "note": None}
    said = {"name": "ann lee.", "age": "41", "tags": ["b", "c"], "city": "Rome"}
    # right: name, age, 2 tags = 4 (note is empty); said: name, age, 2 tags, city = 5; common: name, b
    score = FieldF1Scorer().score(example(right), output(json.dumps(said)))
    assert score.value == pytest.approx(4 / 9)
    assert score.reason is not None
    assert score.reason.startswith("precision 2/5, recall 2/4; missed ")


def test_each_field_is_compared_in_its_own_form():
    right, said = {"id": "A-1", "price": 1200}, {"id": "a1", "price": "$1,200.0"}
    normalized = FieldF1Scorer().score(example(right), output(json.dumps(said)))
    assert normalized.value == 0.5  # the id alone: text and number differ without a form
    exact = FieldF1Scorer(fields={"id": "exact", "price": "number"})
    assert exact.score(example(right), output(json.dumps(said))).value == 0.5  # the price alone
    only = FieldF1Scorer(fields={"price": "number"}, only=["price"])
    assert only.score(example(right), output(json.dumps(said))).value == 1
    with pytest.raises(InvalidInput, match=r"fields\.id of scorer 'field_f1' must be one of"):
        FieldF1Scorer(fields={"id": "fuzzy"})


def test_field_f1_takes_the_best_right_answer_and_says_what_it_cannot_judge():
    scorer = FieldF1Scorer()
    assert scorer.score(example({"a": 1}, {"a": 2}), output('```json\n{"a": 2}\n```')).value == 1
    assert scorer.score(example({}), output("{}")).value == 1
    assert scorer.score(example({"a": 1}), output("[1]")).value == 0
    assert scorer.score(example(), output("{}")).value is None
    with pytest.raises(InvalidInput, match="must be a JSON object, got '3' at example 7"):
        scorer.score(example(3), output("{}"))
