"""A prompt loses what does not help, keeps what does, and bounds its answers by the data."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from jettison.backends.endpoint import endpoint_candidate
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.compress import prompt_parts as parts
from jettison.compress.step import step_from
from jettison.errors import NotEnoughData, StepFailed, Unanswered
from jettison.task import Development, Example
from jettison.task.prompt import Prompt, Shot, most_tokens
from jettison.testing import check_step
from language_steps import apply, context_in, language_candidate

LABELS = ("balance", "weather", "alarm")


def task(**changes: object) -> Development:
    """The engine of these tests reads a label where it stands behind `text:`, and so do the prompts."""
    texts = [f"tell me of the {label} in place {i}" for i in range(16) for label in LABELS]
    examples = [Example(id=f"e{i}", input=t, expected=LABELS[i % 3]) for i, t in enumerate(texts)]
    given = {"train": tuple(examples[:12]), "dev": tuple(examples[12:]), "unlabelled": ()}
    kept = {"name": "t", "kind": "classify", "labels": LABELS, "out_of_scope": None, **given, **changes}
    return Development(**kept)  # type: ignore[arg-type]


def asked(folder: Path, prompt: Prompt, data: Development | None = None, **settings: object) -> Candidate:
    folder.mkdir()
    (folder / "note.txt").write_text("a fixed function of the text")
    data = data or task()
    given = {"kind": data.kind, "prompt": msgspec.to_builtins(prompt), **settings}
    labels = data.labels if data.kind == "classify" else ()
    return write_candidate(folder, name="a", backend="fake_language", labels=labels, settings=given)


WORDY = Prompt(
    system="You are a kind helper. Think of the sea.",
    template="Take your time. text: {input}\nLabel:",
    shots=tuple(Shot(input=f"the {label}", answer=label) for label in LABELS),
    max_tokens=64,
)


def test_useless_sentences_and_shots_leave(tmp_path: Path) -> None:
    candidate = asked(tmp_path / "wordy", WORDY)
    slim = apply(tmp_path, candidate, {"step": "prompt"}, data=task())
    prompt = msgspec.convert(slim.settings["prompt"], Prompt)
    assert prompt.shots == ()
    assert prompt.system == ""
    assert "Take your time" not in prompt.template
    assert "text: {input}" in prompt.template
    notes = slim.lineage[-1].notes
    assert notes["fixed_characters"] < 0.3 * notes["fixed_characters_before"]
    assert notes["dev_fit_score"] == notes["dev_fit_score_before"] == 1.0
    assert slim.digest != candidate.digest
    texts = [e.input for e in task().dev]
    assert [o.label for o in open_model(slim).predict(texts)] == [e.expected for e in task().dev]


def test_what_the_answers_need_stays(tmp_path: Path) -> None:
    # Without `text:` the engine takes the line that names every label for the text.
    prompt = Prompt(template="One of {labels}.\ntext:\n{input}", max_tokens=8)
    candidate = asked(tmp_path / "m", prompt)
    slim = apply(tmp_path, candidate, {"step": "prompt"}, data=task())
    assert slim.settings["prompt"]["template"] == prompt.template
    held = [trial["holds"] for trial in slim.lineage[-1].notes["trials"]]
    assert held == [False]


def test_given_variants_are_tried_shortest_first(tmp_path: Path) -> None:
    candidate = asked(tmp_path / "m", WORDY)
    step = {
        "step": "prompt",
        "shots": False,
        "sentences": False,
        "systems": ["Be kind to all.", "Be kind."],
        "templates": ["{input} balance"],
    }
    slim = apply(tmp_path, candidate, step, data=task())
    assert slim.settings["prompt"]["system"] == "Be kind."
    assert slim.settings["prompt"]["template"] == WORDY.template  # the given one breaks the answers
    assert len(slim.settings["prompt"]["shots"]) == 3
    assert [trial["holds"] for trial in slim.lineage[-1].notes["trials"]] == [True, False]


def test_without_right_answers_the_whole_prompts_are_the_measure(tmp_path: Path) -> None:
    data = task()
    blind = tuple(Example(id=e.id, input=e.input) for e in data.dev)
    slim = apply(tmp_path, asked(tmp_path / "m", WORDY), {"step": "prompt"}, data=replace(data, dev=blind))
    notes = slim.lineage[-1].notes
    assert notes["judged_by"] == "agreement with the whole prompt"
    assert notes["fixed_characters"] < notes["fixed_characters_before"]


def test_answers_are_bounded_by_the_known_ones(tmp_path: Path) -> None:
    examples = tuple(
        Example(id=str(i), input=f"note {i}", expected='{"name": "Ann", "age": 3}') for i in range(40)
    )
    data = task(kind="extract", labels=(), train=examples[:20], dev=examples[20:])
    prompt = Prompt(template="{input}", max_tokens=512)
    slim = apply(tmp_path, asked(tmp_path / "m", prompt, data), {"step": "prompt"}, data=data)
    # 2 braces, 6 quotes, 2 colons, a comma, a digit and three words at 2 tokens are 18; a tenth more is 20,
    # and 2 to spare.
    assert slim.settings["prompt"]["max_tokens"] == 22
    assert slim.lineage[-1].notes["answer_limit"]["counted"] == "estimated from letters, digits and signs"
    assert slim.settings["schema"] == {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("text", "least"),
    # Tokens that Qwen2.5's tokenizer takes: it parts numbers into digits.
    [
        ("2026111", 7),
        ('{"a": 12}', 7),
        ("Paris", 1),
        ("\u5317\u4eac\u5927\u5b66", 2),
        ("a\n  b", 3),
        ("", 0),
    ],
)
def test_the_estimate_of_tokens_cuts_no_number_and_no_other_script(text: str, least: int) -> None:
    assert least <= most_tokens(text) <= 2 * least + 2


def test_a_schema_holds_every_answer_it_was_made_of() -> None:
    found = parts.schema_of(['{"a": 1, "b": null}', '{"a": 2.5, "b": "x", "c": [1]}'])
    assert found is not None
    assert found["properties"] == {
        "a": {"type": "number"},
        "b": {"type": ["null", "string"]},
        "c": {"type": "array"},
    }
    assert found["required"] == ["a", "b"]
    assert parts.schema_of(['{"a": 1}', "no JSON"]) is None
    assert parts.schema_of([]) is None


def test_sentences_joined_are_the_text() -> None:
    for text in (WORDY.system, WORDY.template, "a\n\nb... c!?", "", "\n", "e.g. this"):
        assert "".join(parts.sentences(text)) == text


def test_answers_lost_on_the_way_say_nothing_of_a_prompt(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    nowhere = {"url": "http://127.0.0.1:9/v1", "model": "m", "wait_s": 0, "answers": str(tmp_path)}
    far = endpoint_candidate(
        tmp_path / "far",
        **nowhere,
        labels=LABELS,
        settings={"kind": "classify", "prompt": msgspec.to_builtins(WORDY)},
    )
    with pytest.raises(Unanswered, match="left 15 of 15 inputs unanswered"):
        apply(tmp_path, far, {"step": "prompt"}, data=task())


def test_what_cannot_be_slimmed_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughData, match=r"step 'prompt' needs dev examples"):
        apply(tmp_path, asked(tmp_path / "m", WORDY), {"step": "prompt"}, data=task(dev=()))
    (tmp_path / "fake").mkdir()
    fake = write_candidate(tmp_path / "fake", name="f", backend="fake", labels=LABELS)
    with pytest.raises(
        StepFailed, match=r"must start from a model that is asked a prompt, got backend 'fake'"
    ):
        apply(tmp_path, fake, {"step": "prompt"}, data=task())


def test_the_step_conforms_on_a_local_model(tmp_path: Path) -> None:
    data = task()
    candidate = language_candidate(tmp_path / "m", data)
    made = check_step(step_from({"step": "prompt"}), candidate, context_in(tmp_path, candidate, data))
    assert made.settings["prompt"]["max_tokens"] <= 8
    assert made.lineage[-1].notes["answer_limit"]["counted"] == "by the model's tokenizer"
