"""Tasks of every kind: choices, free text, objects and rankings, and the prompt that asks for them."""
# ruff: noqa: E501  (a case a line)

import json
from pathlib import Path
from typing import Any

import pytest

from jettison.errors import InvalidInput
from jettison.files import value_sha256
from jettison.task import Task, read_task
from jettison.task.prompt import Prompt, Shot
from task_writing import hash_word, rows, write_jsonl, write_task

SPLITS = ("train", "dev", "test")


def write_kind(
    folder: Path, kind: str, row: Any, *, columns: str = "", head: str = "", rest: str = "", n: int = 8
) -> Path:
    """A task of one kind, each split of `n` rows that `row(text, i)` makes."""
    for split in SPLITS:
        made = [row(f"{split} {i} {hash_word(split, i)}", i) for i in range(n)]
        write_jsonl(folder / f"{split}.jsonl", made)
    files = "".join(f'{split} = "{split}.jsonl"\n' for split in SPLITS)
    path = folder / "task.toml"
    path.write_text(
        f'format = 1\nname = "t"\nkind = "{kind}"\n{head}\n[data]\n{files}\n[data.columns]\n{columns}\n{rest}\n'
    )
    return path


CHOOSE = 'input = "q"\nexpected = "a"\nchoices = "c"'


def choose(folder: Path, answer: Any, choices: Any = ("red", "green", "blue"), **more: Any) -> Task:
    def row(text: str, i: int) -> dict[str, Any]:
        return {"q": text, "c": choices, "a": answer(i) if callable(answer) else answer}

    return read_task(write_kind(folder, "choose", row, **{"columns": CHOOSE, **more}))


@pytest.mark.parametrize("answer", ["green", 1, "1", 1.0, "B", "b", "(B)", "B."])
def test_a_right_choice_is_said_by_its_text_position_or_letter(tmp_path: Path, answer: object) -> None:
    task = choose(tmp_path, answer)
    assert {example.expected for example in task.dev} == {"green"}
    assert task.dev[0].choices == ("red", "green", "blue")
    assert (task.labels, task.scorers, task.kind) == ((), ("label",), "choose")


@pytest.mark.parametrize(
    "choices",
    [
        '["red", "green", "blue"]',
        "red|green | blue",
        {"text": ["red", "green", "blue"], "label": ["1", "2", "3"]},
    ],
)
def test_choices_are_json_text_separated_text_or_named_texts(tmp_path: Path, choices: Any) -> None:
    separated = isinstance(choices, str) and "|" in choices
    path = write_kind(tmp_path, "choose", lambda t, i: {"q": t, "c": choices, "a": "2"}, columns=CHOOSE)
    if separated:
        path.write_text(path.read_text().replace("[data]\n", '[data]\nseparator = "|"\n'))
    found = {example.expected for example in read_task(path).train}
    # "2" is a position from 0, but a name where the data names its choices "1", "2", "3".
    assert found == ({"green"} if isinstance(choices, dict) else {"blue"})


def test_choices_may_be_a_column_each_and_an_empty_one_is_no_choice(tmp_path: Path) -> None:
    def row(text: str, i: int) -> dict[str, Any]:
        return {"q": text, "A": f"yes {i}", "B": "no", "C": None if i % 2 else "maybe", "a": "AB"[i % 2]}

    columns = 'input = "q"\nexpected = "a"\nchoices = ["A", "B", "C"]'
    task = read_task(write_kind(tmp_path, "choose", row, columns=columns))
    assert task.dev[0].choices == ("yes 0", "no", "maybe")
    assert task.dev[1].choices == ("yes 1", "no")
    assert [example.expected for example in task.dev[:2]] == ["yes 0", "no"]


def test_a_column_is_read_in_one_way_so_that_digits_among_the_choices_confuse_nothing(
    tmp_path: Path,
) -> None:
    # Each answer is a text among the choices and a position as well: all rows read as text, so text it is.
    task = choose(tmp_path, lambda i: str(i % 3 + 1), ("3", "2", "1"))
    assert [example.expected for example in task.dev[:3]] == ["1", "2", "3"]


def test_generate_takes_text_numbers_and_several_right_answers(tmp_path: Path) -> None:
    def row(text: str, i: int) -> dict[str, Any]:
        return {
            "q": text,
            "a": [4, 2.5, "Paris", ["Rome", "Roma"]][i % 4],
            "r": ["x"] if i % 4 == 0 else None,
        }

    columns = 'input = "q"\nexpected = "a"\nreferences = "r"'
    task = read_task(write_kind(tmp_path, "generate", row, columns=columns))
    assert [e.expected for e in task.train[:4]] == ["4", "2.5", "Paris", "Rome"]
    assert [e.references for e in task.train[:4]] == [("x",), (), (), ("Roma",)]
    assert (task.labels, task.scorers) == ((), ("normalized_exact",))


def test_unit_tests_are_no_right_answer(tmp_path: Path) -> None:
    def row(text: str, i: int) -> dict[str, Any]:
        return {"q": text, "a": "def f(): return 1" if i % 2 else None, "t": ["assert f() == 1"]}

    head = 'scorers = ["runs"]\n[scorer.runs]\nscorer = "code"\nrun_code = true'
    columns = 'input = "q"\nexpected = "a"\ntests = "t"'
    task = read_task(write_kind(tmp_path, "generate", row, columns=columns, head=head))
    assert [e.expected for e in task.train[:2]] == [None, "def f(): return 1"]
    assert {(e.references, e.tests) for e in task.train} == {((), ("assert f() == 1",))}
    assert all(e.is_judged for e in task.train)
    with pytest.raises(
        InvalidInput, match=r"data\.columns\.tests must name the column of unit tests where"
    ):
        read_task(
            write_kind(tmp_path, "generate", row, columns=columns.replace("tests", "references"), head=head)
        )


def test_extract_takes_objects_and_their_text_and_a_schema(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object", "properties": {"name": {"type": "string"}}}')

    def row(text: str, i: int) -> dict[str, Any]:
        value = {"name": f"Ann {i}", "age": i}
        return {"q": text, "a": json.dumps(value) if i % 2 else value}

    columns, head = 'input = "q"\nexpected = "a"', 'schema = "schema.json"'
    task = read_task(write_kind(tmp_path, "extract", row, columns=columns, head=head))
    assert task.dev[1].expected == '{"name":"Ann 1","age":1}'
    assert task.development.schema is not None
    assert task.development.schema["properties"] == {"name": {"type": "string"}}
    assert task.scorers == ("field_f1",)


def test_rank_takes_grades_or_the_one_choice_that_answers(tmp_path: Path) -> None:
    def row(text: str, i: int) -> dict[str, Any]:
        return {"q": text, "c": ["a", "b", "c"], "r": [0, 2, 1], "a": "c"}

    graded = read_task(
        write_kind(tmp_path, "rank", row, columns='input = "q"\nchoices = "c"\nrelevance = "r"')
    )
    assert graded.dev[0].relevance == (0.0, 2.0, 1.0)
    assert graded.dev[0].expected == "b"
    assert graded.scorers == ("ndcg",)
    single = read_task(write_kind(tmp_path, "rank", row, columns=CHOOSE))
    assert single.dev[0].relevance == (0.0, 0.0, 1.0)


def test_the_test_split_of_each_kind_is_read_only_when_asked_for(tmp_path: Path) -> None:
    task = choose(tmp_path, "green")
    assert task.n_test == 8
    reading = task.read_test(purpose="a test")
    assert [example.choices for example in reading.examples] == [("red", "green", "blue")] * 8
    held = {example.id for example in reading.examples}
    assert not held & {example.id for example in (*task.train, *task.dev)}


def test_questions_that_share_a_text_but_not_their_choices_are_no_duplicates(tmp_path: Path) -> None:
    def row(text: str, i: int) -> dict[str, Any]:
        return {"q": "Which is right?", "c": [text, f"no {text}"], "a": 0}

    task = read_task(write_kind(tmp_path, "choose", row, columns=CHOOSE))
    assert not {"duplicate", "duplicate_across_splits"} & {finding.rule for finding in task.findings}


def test_choices_that_repeat_and_a_place_that_is_always_right_are_reported(tmp_path: Path) -> None:
    found = {f.rule: f for f in choose(tmp_path, "green", ("green", "red", "red")).findings}
    assert found["repeated_choice"].n_examples == 24
    assert found["choice_position"].n_examples == 24
    assert "imbalance" not in found


# [prompt]


def test_shots_are_drawn_from_train_in_turn_from_each_label(tmp_path: Path) -> None:
    path = write_task(tmp_path, rest="[prompt]\nshots = 5\nseed = 3\nmax_tokens = 9")
    task = read_task(path)
    prompt = task.development.prompt
    assert prompt is not None
    assert prompt.max_tokens == 9
    answers = [shot.answer for shot in prompt.shots]
    assert sorted(answers.count(label) for label in task.labels) == [2, 3]
    assert {shot.input for shot in prompt.shots} <= {example.input for example in task.train}
    assert read_task(path).development.prompt == prompt
    other = read_task(write_task(tmp_path, rest="[prompt]\nshots = 5\nseed = 4")).development.prompt
    assert other is not None
    assert other.shots != prompt.shots


def test_a_text_that_dev_or_test_has_too_never_becomes_a_shot(tmp_path: Path) -> None:
    train = rows(2, split="train")
    test = [*rows(split="test"), train[0]]
    path = write_task(tmp_path, train=train, test=test, rest="[prompt]\nshots = 3")
    prompt = read_task(path).development.prompt
    assert prompt is not None
    assert train[0]["text"] not in {shot.input for shot in prompt.shots}
    path = write_task(tmp_path, train=train, test=test, rest="[prompt]\nshots = 4")
    with pytest.raises(InvalidInput, match=r"shots must be at most the 3 examples of train .* got 4"):
        read_task(path)


def test_a_prompt_is_read_whole_and_is_part_of_the_digest(tmp_path: Path) -> None:
    rest = (
        '[prompt]\ntemplate = "Labels: {labels}\\n{input} {json: 1}"\nsystem = "Be brief."\nchat = false\n'
        'answer_prefix = "Label:"\nnormalise = "unconditional"\nalone = "Label"\nstop = ["\\n"]\nwords = {buy = "kaufen"}\n'
        '[[prompt.shots]]\ninput = "my own"\nanswer = "sell"'
    )
    task = read_task(write_task(tmp_path, rest=rest))
    assert task.development.prompt == Prompt(
        template="Labels: {labels}\n{input} {json: 1}",
        system="Be brief.",
        chat=False,
        answer_prefix="Label:",
        normalise="unconditional",
        alone="Label",
        stop=("\n",),
        words={"buy": "kaufen"},
        shots=(Shot(input="my own", answer="sell"),),
    )
    plain = read_task(write_task(tmp_path))
    assert plain.development.prompt is None
    assert plain.development.digest != task.development.digest
    assert plain.test_digest == task.test_digest


def test_the_digest_of_a_task_without_a_prompt_is_what_it_always_was(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path)).development
    parts = [task.kind, task.labels, task.out_of_scope, task.train, task.dev, task.unlabelled]
    assert task.digest == value_sha256(parts)


def test_the_scorers_of_the_file_come_first_and_in_their_order(tmp_path: Path) -> None:
    head = 'scorers = ["ndcg", "label"]'
    task = choose(tmp_path, "green", head=head, rest="[scorer.ndcg]\nat = 5")
    assert task.scorers == ("ndcg", "label")
    assert task.development.scorer_settings == {"ndcg": {"at": 5}}
    assert task.development.digest != choose(tmp_path, "green", head=head).development.digest


def test_inputs_alone_make_a_task_that_says_nothing_can_be_decided(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"text": f"word {hash_word(i)}"} for i in range(5)])
    path = tmp_path / "task.toml"
    path.write_text('format = 1\nname = "t"\nkind = "generate"\n[data]\nunlabelled = "in.jsonl"\n')
    task = read_task(path)
    assert (len(task.unlabelled), task.n_test, task.required_slices) == (5, 0, ())
    assert [f.severity for f in task.findings if f.rule == "no_test"] == ["error"]


# Refusals

BAD: dict[str, tuple[str, dict[str, Any], str, str]] = {
    # name: kind, row beside q, columns and more, message
    "no choices column": ("choose", {"a": 1}, 'input = "q"\nexpected = "a"', r"choices must name the column of choices"),
    "choices for generate": ("generate", {"a": "x", "c": ["a", "b"]}, CHOOSE, r"columns\.choices must be left out unless"),
    "references for classify": ("classify", {"a": "x"}, 'input = "q"\nreferences = "a"', r"references must be left out"),
    "relevance for choose": ("choose", {"a": 1}, CHOOSE + '\nrelevance = "r"', r"relevance must be left out unless"),
    "one choice": ("choose", {"c": ["a"], "a": 0}, CHOOSE, r"at least two choices, got \['a'\] at train\.jsonl:1"),
    "empty choice": ("choose", {"c": ["a", " "], "a": 0}, CHOOSE, r"c must be text or a number, not empty, got ' '"),
    "choices of text": ("choose", {"c": "a, b", "a": 0}, CHOOSE, r"list or the JSON text .* needs `separator`"),
    "choices broken JSON": ("choose", {"c": '["a", b]', "a": 0}, CHOOSE, r"c must be a JSON list at train\.jsonl:1"),
    "choices number": ("choose", {"c": 3, "a": 0}, CHOOSE, r"c must be a list or the JSON text of one, got 3"),
    "index too high": ("choose", {"c": ["a", "b"], "a": 2}, CHOOSE, r"must be one of the choices .* got 2 at train"),
    "letter too high": ("choose", {"c": ["x", "y"], "a": "C"}, CHOOSE, r"must be one of the choices .* got 'C' at"),
    "misspelt choice": ("choose", {"c": ["green", "red"], "a": "gren"}, CHOOSE, r"Did you mean 'green'\?"),
    "no answer": ("choose", {"c": ["x", "y"], "a": None}, CHOOSE, r"a must be a choice in every row .* got None"),
    "choices column missing": ("choose", {"a": 0}, CHOOSE, r"columns\.choices must be one of \['q', 'a'\], got 'c'"),
    "no text": ("generate", {"a": None}, 'input = "q"\nexpected = "a"', r"must be the right answer in every row"),
    "object as text": ("generate", {"a": {"b": 1}}, 'input = "q"\nexpected = "a"', r"text or a number, .* got \{'b': 1\}"),
    "no object": ("extract", {"a": "{b}"}, 'input = "q"\nexpected = "a"', r"a must be a JSON object at train\.jsonl:1"),
    "list as object": ("extract", {"a": "[1]"}, 'input = "q"\nexpected = "a"', r"must be a JSON object, got \[1\]"),
    "grades short": ("rank", {"c": ["x", "y"], "r": [1]}, 'input = "q"\nchoices = "c"\nrelevance = "r"', r"one grade for each of the 2 choices, got 1"),
    "grade negative": ("rank", {"c": ["x", "y"], "r": [1, -1]}, 'input = "q"\nchoices = "c"\nrelevance = "r"', r"finite grades of 0 or more, got \[1, -1\]"),
    "grade word": ("rank", {"c": ["x", "y"], "r": [1, "hi"]}, 'input = "q"\nchoices = "c"\nrelevance = "r"', r"finite grades of 0 or more"),
    "no grade": ("rank", {"c": ["x", "y"], "r": [0, 0]}, 'input = "q"\nchoices = "c"\nrelevance = "r"', r"must have a grade above 0"),
}  # fmt: skip


def refused(path: Path, match: str) -> None:
    with pytest.raises(InvalidInput, match=match) as caught:
        read_task(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).rstrip().endswith((".", "?"))


@pytest.mark.parametrize("case", BAD)
def test_a_row_or_column_that_does_not_fit_the_kind_is_refused(tmp_path: Path, case: str) -> None:
    kind, more, columns, match = BAD[case]
    refused(write_kind(tmp_path, kind, lambda text, i: {"q": text, **more}, columns=columns), match)


HEADS = {
    "labels": ("", '[labels]\nnames = ["a", "b"]', r"\[labels\] must be left out unless kind is 'classify'"),
    "schema": ('schema = "s.json"', "", r"schema must be left out unless kind is 'extract', got 's\.json'"),
    "no scorers": ("scorers = []", "", r"scorers must be one or more different names, got \[\]"),
    "scorer twice": ('scorers = ["label", "label"]', "", r"scorers must be one or more different names"),
    "settings of another": ("", "[scorer.regex]\npattern = 'x'", r"\[scorer\.regex\] must be of a scorer that is listed"),
    "words": ("", '[prompt]\nwords = {a = "b"}', r"prompt\.words must be left out unless kind is 'classify'"),
    "no input": ("", '[prompt]\ntemplate = "Say it"', r"prompt\.template must have `\{input\}`"),
    "slip": ("", '[prompt]\ntemplate = "{input} {choice}"', r"got 'choice'\. Did you mean 'choices'\?"),
    "labels asked": ("", '[prompt]\ntemplate = "{input} {labels}"', r"only \['choices', 'input'\] .* got 'labels'"),
    "shots": ("", "[prompt]\nshots = -1", r"prompt\.shots must be from 0 to 256, got -1"),
    "many shots": ("", "[prompt]\nshots = 9", r"prompt\.shots must be at most the 8 examples of train"),
    "shots of words": ("", '[prompt]\nshots = "two"', r"Expected `int \| array`, got `str`"),
    "tokens": ("", "[prompt]\nmax_tokens = 0", r"prompt\.max_tokens must be 1 or more, got 0"),
    "stop": ("", '[prompt]\nstop = [""]', r"prompt\.stop must be non-empty texts"),
    "unknown key": ("", "[prompt]\ntemplat = 'x'", r"unknown field `templat` .* Did you mean 'template'\?"),
    "key of a shot": ("", "[[prompt.shots]]\ninput = 'x'\nanswr = 'y'", r"unknown field `answr`.* mean 'answer'\?"),
    "shot's answer": ("", "[[prompt.shots]]\ninput = 'x'\nanswer = 'y'\nchoices = ['a', 'b']", r"one of its choices, got 'y'"),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_a_setting_that_does_not_fit_the_kind_is_refused(tmp_path: Path, case: str) -> None:
    head, rest, match = HEADS[case]

    def row(text: str, i: int) -> dict[str, Any]:
        return {"q": text, "c": ["x", "y"], "a": i % 2}

    refused(write_kind(tmp_path, "choose", row, columns=CHOOSE, head=head, rest=rest), match)


LABEL_PROMPTS = {
    "unknown label": ('[prompt]\nwords = {bu = "x"}', r"keyed by labels of the task, got 'bu'\. Did you mean 'buy'"),
    "same word": ('[prompt]\nwords = {buy = "sell"}', r"words must differ from label to label, got 'sell'"),
    "empty word": ('[prompt]\nwords = {buy = ""}', r"words must be non-empty text, got '' for 'buy'"),
    "shot of no label": ('[[prompt.shots]]\ninput = "x"\nanswer = "by"', r"one of the 2 labels, got 'by' .* 'buy'\?"),
}  # fmt: skip


@pytest.mark.parametrize("case", LABEL_PROMPTS)
def test_a_prompt_that_does_not_fit_the_labels_is_refused(tmp_path: Path, case: str) -> None:
    rest, match = LABEL_PROMPTS[case]
    refused(write_task(tmp_path, rest=rest), match)


def test_a_written_shot_from_test_is_refused(tmp_path: Path) -> None:
    stolen = rows(split="test")[0]["text"]
    rest = f'[[prompt.shots]]\ninput = "{stolen}"\nanswer = "buy"'
    refused(
        write_task(tmp_path, rest=rest), r"a shot must be no example of dev or test, got 'test says buy"
    )


def test_a_schema_that_is_missing_or_of_no_object_is_refused(tmp_path: Path) -> None:
    def write(name: str) -> Path:
        columns = 'input = "q"\nexpected = "a"'
        return write_kind(
            tmp_path, "extract", lambda t, i: {"q": t, "a": {}}, columns=columns, head=f'schema = "{name}"'
        )

    refused(write("none.json"), r"none\.json must be a file, got nothing there")
    (tmp_path / "list.json").write_text('{"type": "array"}')
    refused(write("list.json"), r"must be the JSON Schema of an object, got type 'array'")


def test_an_empty_separator_is_refused(tmp_path: Path) -> None:
    path = write_kind(tmp_path, "choose", lambda t, i: {"q": t, "c": "a|b", "a": 0}, columns=CHOOSE)
    path.write_text(path.read_text().replace("[data]\n", '[data]\nseparator = ""\n'))
    refused(path, r"data\.separator must be non-empty text, got ''")
