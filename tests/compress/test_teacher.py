"""The teacher is asked once for each text, whatever happens to the run."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.backends.open import open_model
from jettison.candidate import write_candidate
from jettison.compress import teacher
from jettison.compress.augment import augment
from jettison.compress.deadline import Deadline
from jettison.compress.teacher import keep_answers, teacher_logits, teacher_logits_until
from jettison.errors import StepFailed
from jettison.evaluate.calibrate import calibrate
from jettison.model import Model, Output, softmax
from torch_steps import context_in, trained


def texts() -> list[str]:
    return [example.input for example in trained()[1].train]


def test_logits_are_the_incumbents_in_the_order_of_the_texts(tmp_path: Path) -> None:
    incumbent, _ = trained()
    found = teacher_logits(context_in(tmp_path), texts())
    exact = np.stack([o.logits for o in open_model(incumbent).predict(texts())])
    # bfloat16, where the CPU has it, keeps 8 bits: about 0.4 % of a logit, a few times over.
    np.testing.assert_allclose(found, exact, atol=0.15)
    assert found.shape == (160, 5)
    assert found.dtype == np.float32


def test_a_text_given_twice_is_asked_once_and_answered_twice(tmp_path: Path) -> None:
    found = teacher_logits(context_in(tmp_path), ["show weather", "play song", "show weather"])
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


class Counting:
    """A model that counts the texts it is asked, and breaks after some calls."""

    def __init__(self, inner: Model, breaks_at_call: int | None = None) -> None:
        self.inner, self.labels, self.breaks_at_call = inner, inner.labels, breaks_at_call
        self.n_texts = self.n_calls = 0

    def predict(self, inputs: list[str]) -> list[Output]:
        self.n_calls += 1
        if self.n_calls == self.breaks_at_call:
            raise KeyboardInterrupt
        self.n_texts += len(inputs)
        return self.inner.predict(inputs)

    def close(self) -> None:
        self.inner.close()


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incumbent, _ = trained()
    monkeypatch.setattr(teacher, "CHUNK", 40)
    whole = teacher_logits(context_in(tmp_path / "whole"), texts())
    first = Counting(open_model(incumbent), breaks_at_call=3)
    monkeypatch.setattr(teacher, "open_model", lambda _: first)
    with pytest.raises(KeyboardInterrupt):
        teacher_logits(context_in(tmp_path), texts())
    assert first.n_texts == 80
    second = Counting(open_model(incumbent))
    monkeypatch.setattr(teacher, "open_model", lambda _: second)
    found = teacher_logits(context_in(tmp_path), texts())
    assert second.n_texts == 80
    np.testing.assert_allclose(found, whole, atol=0.15)


def test_a_damaged_file_of_answers_is_asked_again(tmp_path: Path) -> None:
    context = context_in(tmp_path)
    before = teacher_logits(context, texts())
    (stored,) = (tmp_path / "workspace" / "teacher").rglob("*.npz")
    stored.write_bytes(stored.read_bytes()[:200])
    np.testing.assert_array_equal(teacher_logits(context, texts()), before)


def test_out_of_time_gives_the_first_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "CHUNK", 40)
    context = context_in(tmp_path)
    assert teacher_logits_until(context, texts(), until=Deadline(0.0)).shape == (0, 5)
    teacher_logits(context, texts()[:50])
    assert teacher_logits_until(context, texts(), until=Deadline(0.0)).shape == (50, 5)


def test_a_teacher_that_gives_labels_alone_is_as_sure_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incumbent, _ = trained()
    labels = incumbent.labels
    answers = {
        "sure": Output(label=labels[2], confidence=0.8),
        "silent": Output(label=labels[1], confidence=0.0),
        "none of them": Output(label="something else", confidence=0.9),
    }

    class LabelsOnly(Counting):
        def predict(self, inputs: list[str]) -> list[Output]:
            return [answers[text] for text in inputs]

    monkeypatch.setattr(teacher, "open_model", lambda _: LabelsOnly(open_model(incumbent)))
    found = softmax(teacher_logits(context_in(tmp_path), list(answers)))
    assert found.argmax(axis=1)[:2].tolist() == [2, 1]
    np.testing.assert_allclose(found.max(axis=1), [0.8, teacher.UNSAID, 1 / len(labels)], rtol=1e-5)


def test_a_teacher_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incumbent, _ = trained()

    class Failing(Counting):
        def predict(self, inputs: list[str]) -> list[Output]:
            return [Output(label="", confidence=0.0, error="no route to host") for _ in inputs]

    monkeypatch.setattr(teacher, "open_model", lambda _: Failing(open_model(incumbent)))
    with pytest.raises(StepFailed, match=r"an error from incumbent .*: no route to host"):
        teacher_logits(context_in(tmp_path), ["a"])


def test_the_fake_backend_teaches_too(tmp_path: Path) -> None:
    folder = tmp_path / "fake"
    folder.mkdir()
    fake = write_candidate(folder, name="f", backend="fake", labels=["alarm", "music"])
    found = teacher_logits(context_in(tmp_path, incumbent=fake), ["my alarm", "the music"])
    assert found.argmax(axis=1).tolist() == [0, 1]


def test_made_up_texts_are_new_different_and_repeatable() -> None:
    given_texts = texts()
    made = augment(given_texts, 300, seed=3)
    assert len(made) == len(set(made)) == 300
    assert not set(made) & set(given_texts)
    assert made == augment(given_texts, 300, seed=3)
    assert made != augment(given_texts, 300, seed=4)
    words = {word for text in given_texts for word in text.split()}
    assert {word for text in made for word in text.split()} <= words


@given(st.lists(st.text(alphabet="abc ", max_size=12), max_size=6), st.integers(0, 20))
def test_making_up_texts_never_fails_and_never_makes_more_than_asked(
    given_texts: list[str], n: int
) -> None:
    made = augment(given_texts, n, seed=0, labels=[None] * len(given_texts))
    assert len(made) <= n
    assert all(text.strip() for text in made)


def test_answers_given_on_another_occasion_are_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_in(tmp_path)
    exact = np.stack([o.logits for o in open_model(context.incumbent).predict(texts())])
    keep_answers(context.workspace, context.incumbent, texts()[:-2], exact[:-2])
    asked = Counting(open_model(context.incumbent))
    monkeypatch.setattr(teacher, "open_model", lambda candidate: asked)
    found = teacher_logits(context, texts())
    assert asked.n_texts == len(set(texts()) - set(texts()[:-2]))
    np.testing.assert_array_equal(found[:-2], exact[:-2])


def test_calibration_does_not_make_a_teacher_forget(tmp_path: Path) -> None:
    incumbent, data = trained()
    made = calibrate(incumbent, data, cache=tmp_path / "calibrated")
    assert made.digest != incumbent.digest
    keep_answers(tmp_path, incumbent, ["show weather"], np.full((1, 5), 7.0))
    context = context_in(tmp_path, incumbent=made, workspace=tmp_path)
    assert teacher_logits(context, ["show weather"]).tolist() == [[7.0] * 5]
