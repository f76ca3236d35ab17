"""A smaller model learns what a black box said once, without what it was unsure of or said twice."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.compress import distill_answers
from jettison.compress.answers import distinct, taught_answers
from jettison.compress.step import step_from
from jettison.errors import InvalidInput, NotEnoughData, StepFailed
from jettison.task import Development, Example
from jettison.task.prompt import Prompt
from jettison.testing import check_step
from language_steps import apply, context_in
from tiny import make_tiny_language

LABELS = ("balance", "weather", "alarm")
_SAID = "please could you tell me what is the my for of to now today can i need show a about"
WORDS = _SAID.split()
PROMPT = Prompt(template="text: {input}", max_tokens=8, chat=False)


def texts(n: int, start: int) -> list[str]:
    """Sentences that differ; the engine of these tests finds the label that they hold."""
    found = []
    for i in range(start, start + n):
        a, b, c = WORDS[i % 20], WORDS[(7 * i + 3) % 20], WORDS[(i * i + 5) % 20]
        found.append(f"{a} {LABELS[i % 3]} {b} {i} {c}")
    return found


def task() -> Development:
    train = tuple(Example(id=f"t{i}", input=text) for i, text in enumerate(texts(30, 0)))
    more = tuple(Example(id=f"u{i}", input=text) for i, text in enumerate(texts(30, 100)))
    dev = tuple(
        Example(id=f"d{i}", input=text, expected=LABELS[i % 3]) for i, text in enumerate(texts(60, 300))
    )
    return Development(
        name="t",
        kind="classify",
        labels=LABELS,
        out_of_scope=None,
        train=train,
        dev=dev,
        unlabelled=more,
    )


DATA = task()
FIT = {
    "step": "distill_answers",
    "learning_rate": 1e-2,
    "epochs": 8,
    "batch_size": 5,
    "patience": 8,
    "precision": "float32",
    "min_confidence": 0.0,
}


def teacher(folder: Path, **settings: object) -> Candidate:
    folder.mkdir()
    (folder / "note.txt").write_text("a fixed function of the text")
    given = {"kind": "classify", "prompt": msgspec.to_builtins(PROMPT), **settings}
    return write_candidate(folder, name="far", backend="fake_language", labels=LABELS, settings=given)


def student(folder: Path) -> Path:
    return make_tiny_language(folder, [e.input for e in DATA.train] * 3)


def test_a_student_learns_a_black_box(tmp_path: Path) -> None:
    far = teacher(tmp_path / "far")
    model = student(tmp_path / "small")
    made = apply(tmp_path, far, {**FIT, "model": str(model)}, data=DATA)
    assert made.backend == "hf_causal"
    assert made.labels == LABELS
    assert made.settings["prompt"] == far.settings["prompt"]
    outputs = open_model(made).predict([e.input for e in DATA.dev])
    right = [o.label == e.expected for o, e in zip(outputs, DATA.dev, strict=True)]
    assert sum(right) > 0.6 * len(right)
    notes = made.lineage[-1].notes
    assert notes["answers"]["taught"] == notes["answers"]["asked"] > 40
    assert [point["n_answers"] for point in notes["curve"]] == sorted(
        point["n_answers"] for point in notes["curve"]
    )
    assert len(notes["curve"]) == 3
    assert notes["more_answers"]["verdict"] in ("worth it", "not worth it", "not clear")
    gain = notes["curve"][2]["dev_fit_score"] - notes["curve"][1]["dev_fit_score"]
    assert notes["more_answers"]["gain"]["value"] == pytest.approx(gain)


def test_no_answer_is_asked_for_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jettison.backends.fake_language import FakeLanguage

    n_asked: list[int] = []
    usual = FakeLanguage.likelihoods

    def counted(self: FakeLanguage, asked: object) -> object:
        n_asked.append(len(asked))  # type: ignore[arg-type]
        return usual(self, asked)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeLanguage, "likelihoods", counted)
    far = teacher(tmp_path / "far")
    context = context_in(tmp_path, far, DATA)
    inputs = [e.asked for e in DATA.train]
    once = taught_answers(far, context, inputs, samples=1)
    assert sum(n_asked) == 30 * 3
    assert taught_answers(far, context, inputs[::-1], samples=1) == once[::-1]
    assert sum(n_asked) == 30 * 3
    (kept,) = (tmp_path / "workspace" / "teacher-answers").rglob("*.json")
    kept.write_bytes(b"damaged")
    assert taught_answers(far, context, inputs, samples=1) == once
    assert sum(n_asked) == 2 * 30 * 3


def test_samples_that_disagree_are_dropped_and_failures_counted(tmp_path: Path) -> None:
    far = teacher(tmp_path / "far", likelihoods=False)
    context = context_in(tmp_path, far, DATA)
    (answer, *_) = taught_answers(far, context, [DATA.train[0].asked], samples=3)
    assert (answer.by_agreement, answer.confidence) == (True, 1.0)
    step = step_from({**FIT, "samples": 3, "min_agreement": 0.7})
    assert isinstance(step, distill_answers.DistillAnswers)
    assert step._is_sure(answer)
    split = msgspec.structs.replace(answer, confidence=2 / 3)
    assert not step._is_sure(split)
    assert not step._is_sure(msgspec.structs.replace(answer, error="the server is down"))
    # One greedy answer whose confidence nobody says stays.
    assert step._is_sure(msgspec.structs.replace(answer, by_agreement=False, confidence=0.0))


def test_near_duplicates_leave_and_so_does_what_stands_in_dev() -> None:
    first = "please show me the balance of my savings account today"
    other = "what will the weather be like in the mountains tomorrow"
    inputs = [first, other, f"{first}!", "  ".join(first.split()).upper()]
    assert distinct(inputs, []) == [0, 1]
    assert distinct(inputs, [f"{other}?"]) == [0]
    assert distinct([], [first]) == []


def test_right_answers_take_the_teachers_place(tmp_path: Path) -> None:
    wrong = tuple(Example(id=e.id, input=e.input, expected="alarm") for e in DATA.train)
    data = replace(DATA, train=wrong)
    far = teacher(tmp_path / "far")
    step = step_from(FIT)
    assert isinstance(step, distill_answers.DistillAnswers)
    pairs, counts = step._answers(context_in(tmp_path, far, data))
    train = {e.input for e in wrong}
    assert {said for asked, said in pairs if asked in train} == {"alarm"}
    assert {said for asked, said in pairs if asked not in train} == set(LABELS)
    assert counts["asked"] < counts["taught"]
    with_teacher = msgspec.structs.replace(step, right_answers=False)
    pairs, _ = with_teacher._answers(context_in(tmp_path, far, data))
    assert {said for asked, said in pairs if asked in train} == set(LABELS)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    far = teacher(tmp_path / "far")
    with pytest.raises(StepFailed, match=r"must be given a checkpoint to train as `model`, got none"):
        apply(tmp_path, far, FIT, data=DATA)
    with pytest.raises(InvalidInput, match=r"distill_answers.model must be a folder with config.json"):
        apply(tmp_path, far, {**FIT, "model": str(tmp_path / "nowhere")}, data=DATA)
    model = str(student(tmp_path / "small"))
    with pytest.raises(NotEnoughData, match=r"got none of 60 inputs. Lower min_confidence"):
        apply(tmp_path, far, {**FIT, "model": model, "min_confidence": 1.0}, data=DATA)


def test_the_step_conforms(tmp_path: Path) -> None:
    far = teacher(tmp_path / "far")
    step = step_from({**FIT, "epochs": 1, "model": str(student(tmp_path / "small")), "curve": []})
    check_step(step, far, context_in(tmp_path, far, DATA), texts=[e.input for e in DATA.dev[:3]])
