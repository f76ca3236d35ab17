"""Where all texts would take too long, a student learns from a seeded draw of them."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from jettison.candidate import write_candidate
from jettison.compress.distill import Distill
from jettison.compress.draw import drawn
from jettison.compress.linear import DistillLinear
from jettison.compress.static import DistillStatic
from jettison.compress.step import Step, StepContext, apply_step, key_settings, step_from
from jettison.compress.teacher import text_digest
from jettison.errors import InvalidInput
from jettison.task import Development, Example
from tiny import make_tiny_development
from torch_steps import make, trained

STEPS = (Distill(), DistillLinear(), DistillStatic())


def texts(train: str, n_unlabelled: int) -> Development:
    """One train example for each letter, which is its label, and some without one."""
    return replace(
        make_tiny_development(train=1, dev=4, unlabelled=1),
        train=tuple(Example(id=f"t{i}", input=f"t{i}", expected=label) for i, label in enumerate(train)),
        unlabelled=tuple(Example(id=f"u{i}", input=f"u{i}") for i in range(n_unlabelled)),
    )


def names(data: Development) -> list[str]:
    return [example.id for example in (*data.train, *data.unlabelled)]


def test_the_draw_follows_the_seed_and_keeps_an_example_of_each_label() -> None:
    """Seed 0 puts eight texts in the order 2 4 3 6 5 0 1 7; those below 4 are train: a, a, b, c.

    The first of each label are 2 (b), 3 (c) and 0 (a), and 4 is the first of the rest. Drawn without
    regard to labels, four texts would be 2 4 3 6, without an a.
    """
    data = texts("aabc", 4)
    assert names(drawn(data, 4, seed=0)) == ["t0", "t2", "t3", "u0"]
    assert names(drawn(data, 6, seed=0)) == ["t0", "t2", "t3", "u0", "u1", "u2"]
    assert names(drawn(data, 2, seed=0)) == ["t2", "t3"]  # room for two of three labels
    assert names(drawn(data, 4, seed=1)) != names(drawn(data, 4, seed=0))
    assert drawn(data, 4, seed=0).dev == data.dev


def test_a_draw_of_all_or_without_a_limit_changes_nothing() -> None:
    data = texts("aabc", 4)
    assert drawn(data, None, seed=0) is data
    assert drawn(data, 8, seed=0) is data
    assert drawn(data, 9, seed=0) is data


def test_labelled_texts_come_no_more_often_than_their_share() -> None:
    """1,000 of 4,000 are labelled, so of 2,000 drawn 500 are, give or take 19.4.

    The count is hypergeometric: its variance is 2000 x 0.25 x 0.75 x 2000 / 3999 = 187.5, doubled for care.
    """
    data = texts("ab" * 500, 3000)
    counts = [len(drawn(data, 2000, seed=seed).train) for seed in range(20)]
    assert all(abs(count - 500) < 5 * 19.4 for count in counts)
    assert abs(sum(counts) / 20 - 500) < 5 * 19.4 / 20**0.5
    found = drawn(data, 2000, seed=3)
    assert len(names(found)) == len(set(names(found))) == 2000
    assert Counter(example.expected for example in found.train).keys() == {"a", "b"}


def test_a_smaller_draw_is_a_part_of_a_larger_one() -> None:
    data = texts("abcdefgh" * 10, 400)
    few, more = (set(names(drawn(data, n, seed=5))) for n in (40, 200))
    assert few < more


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_without_a_limit_the_key_is_of_the_settings_that_there_were_before(step: Step) -> None:
    settings = msgspec.to_builtins(step)
    before = {name: value for name, value in settings.items() if name != "most_texts"}
    assert settings["most_texts"] is None
    assert key_settings(step, settings) == before
    assert key_settings(step, {**before, "most_texts": 50}) == {**before, "most_texts": 50}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
@pytest.mark.parametrize("most_texts", [0, -3])
def test_a_limit_that_leaves_nothing_is_refused(step: Step, most_texts: int) -> None:
    with pytest.raises(
        InvalidInput, match=f"most_texts of {step.name} must be at least 1, got {most_texts}"
    ):
        type(step)(most_texts=most_texts)  # type: ignore[call-arg]
    with pytest.raises(
        InvalidInput, match=f"most_texts of {step.name} must be at least 1, got {most_texts}"
    ):
        step_from({"step": step.name, "most_texts": most_texts})


@pytest.mark.parametrize(
    "settings",
    [
        {"step": "distill_linear", "epochs": 2, "augment": 9},
        {"step": "distill_static", "epochs": 1, "augment": 9},
    ],
    ids=lambda settings: settings["step"],
)
def test_a_student_is_taught_the_drawn_texts_alone(tmp_path: Path, settings: dict[str, Any]) -> None:
    data = make_tiny_development()
    (tmp_path / "fake").mkdir()
    incumbent = write_candidate(
        tmp_path / "fake", name="fake", backend="fake", labels=data.labels, out_of_scope="oos"
    )
    context = StepContext(data=data, incumbent=incumbent, folder=tmp_path, workspace=tmp_path / "w")
    made = apply_step(step_from({**settings, "most_texts": 70}), incumbent, context, cache=tmp_path / "c")
    applied, wanted = made.lineage[-1], drawn(data, 70, seed=0)
    assert applied.settings["most_texts"] == 70
    assert applied.notes["drawn"] == {"texts": 70, "of": 280}
    assert applied.notes["n_train"] == len(wanted.train)
    assert applied.notes["n_unlabelled"] == len(wanted.unlabelled)
    assert applied.notes["n_augmented"] == 9
    known, real = (
        {text_digest(example.input) for example in (*of.train, *of.unlabelled)} for of in (data, wanted)
    )
    watched = {text_digest(example.input) for example in data.dev_fit}
    assert asked_in(tmp_path / "w") & known - watched == real - watched


@pytest.mark.parametrize(
    "step", [DistillLinear(epochs=2), DistillStatic(epochs=1, augment=0), Distill(epochs=1)]
)
def test_a_limit_above_what_there_is_gives_the_same_weights(tmp_path: Path, step: Step) -> None:
    candidate, _ = trained()
    settings = {**msgspec.to_builtins(step), "step": step.name}
    made = [make(tmp_path, candidate, settings | more) for more in ({}, {"most_texts": 280})]
    assert made[0].path != made[1].path
    assert made[0].files == made[1].files
    assert all("drawn" not in one.lineage[-1].notes for one in made)


def test_a_transformer_is_healed_by_the_drawn_texts_alone(tmp_path: Path) -> None:
    candidate, data = trained()
    made = make(tmp_path, candidate, {"step": "distill", "epochs": 1, "augment": 0.5, "most_texts": 70})
    applied, wanted = made.lineage[-1], drawn(data, 70, seed=0)
    assert applied.notes["texts"] == {
        "train": len(wanted.train),
        "unlabelled": len(wanted.unlabelled),
        "invented": 35,
    }
    assert applied.notes["drawn"] == {"texts": 70, "of": 280}
    assert len(asked_in(tmp_path / "workspace")) == 105


def asked_in(workspace: Path) -> set[bytes]:
    """Digests of the texts whose answers a teacher's folder keeps."""
    kept = (workspace / "teacher").rglob("*.npz")
    return {row.tobytes() for path in kept for row in np.load(path)["digests"]}
