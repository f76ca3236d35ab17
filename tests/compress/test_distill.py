"""Distillation heals what pruning broke, from the incumbent's answers alone if need be."""

import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.candidate import AppliedStep, write_candidate
from jettison.compress.deadline import Deadline
from jettison.compress.distill import layer_map
from jettison.compress.teacher import teacher_logits
from jettison.errors import NotEnoughData, StepFailed
from tiny import make_tiny_bert, tiny_candidate
from torch_steps import accuracy, context_in, make, trained

FAST = {"step": "distill", "learning_rate": 3e-3, "batch_size": 32}


def test_pruning_and_distilling_recovers_what_pruning_lost(tmp_path: Path) -> None:
    incumbent, _ = trained()
    pruned = make(tmp_path, incumbent, {"step": "prune", "depth": 1, "width": 0.5})
    healed = make(tmp_path, pruned, FAST)
    assert accuracy(pruned) < accuracy(incumbent) - 0.1
    assert accuracy(healed) > accuracy(incumbent) - 0.05
    assert [applied.step for applied in healed.lineage] == ["prune", "distill"]
    assert healed.lineage[-1].notes["texts"] == {"train": 160, "unlabelled": 120, "invented": 280}


def test_the_teacher_alone_is_enough_without_labels(tmp_path: Path) -> None:
    incumbent, development = trained()
    bare = [msgspec.structs.replace(example, expected=None) for example in development.train]
    data = replace(development, train=(), unlabelled=(*bare, *development.unlabelled))
    pruned = make(tmp_path, incumbent, {"step": "prune", "depth": 1, "width": 0.5})
    taught = make(tmp_path, pruned, FAST, data=data)
    assert taught.lineage[-1].notes["texts"]["train"] == 0
    assert accuracy(taught) > accuracy(incumbent) - 0.05


def test_hidden_states_are_followed_and_said_when_they_cannot_be(tmp_path: Path) -> None:
    incumbent, development = trained()
    pruned = make(tmp_path, incumbent, {"step": "prune", "depth": 2})
    followed = make(tmp_path, pruned, {**FAST, "hidden_weight": 1.0})
    assert "hidden_states" not in followed.lineage[-1].notes
    assert accuracy(followed) > 0.85
    narrow = tiny_candidate(
        make_tiny_bert(tmp_path / "narrow", development.labels, layers=1, hidden=16), development
    )
    notes = make(tmp_path, narrow, {**FAST, "hidden_weight": 1.0, "epochs": 1}).lineage[-1].notes
    assert notes["hidden_states"] == "not compared: hidden sizes differ"


def test_a_stock_class_loads_the_student(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    incumbent, development = trained()
    student = make(tmp_path, incumbent, {**FAST, "epochs": 1})
    model = AutoModelForSequenceClassification.from_pretrained(student.path)
    assert model.config.id2label[0] == development.labels[0]


def test_token_vectors_stay_unless_told_otherwise(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    incumbent, _ = trained()
    name = "bert.embeddings.word_embeddings.weight"
    before = load_file(incumbent.path / "model.safetensors")[name]
    frozen = make(tmp_path, incumbent, {**FAST, "epochs": 1})
    moved = make(tmp_path, incumbent, {**FAST, "epochs": 1, "train_embeddings": True})
    np.testing.assert_array_equal(load_file(frozen.path / "model.safetensors")[name], before)
    assert not np.array_equal(load_file(moved.path / "model.safetensors")[name], before)


def test_students_in_bfloat16_are_as_good_as_in_float32(tmp_path: Path) -> None:
    incumbent, _ = trained()
    pruned = make(tmp_path, incumbent, {"step": "prune", "depth": 1})
    for precision in ("float32", "bfloat16"):
        healed = make(tmp_path, pruned, {**FAST, "precision": precision})
        assert healed.lineage[-1].settings["precision"] == precision
        assert accuracy(healed) > accuracy(incumbent) - 0.06


def test_it_ends_at_the_deadline_and_says_how_many_texts_were_made(tmp_path: Path) -> None:
    incumbent, _ = trained()
    context = context_in(tmp_path)
    teacher_logits(context, [e.input for e in (*context.data.train, *context.data.unlabelled)])
    started = time.monotonic()
    step = {**FAST, "epochs": 10_000, "patience": 10_000, "augment": 2.0}
    student = make(tmp_path, incumbent, step, deadline=Deadline(started + 3.0))
    assert time.monotonic() - started < 40
    assert student.lineage[-1].notes["training"]["stopped"] == "deadline"


def test_the_teacher_must_know_the_students_labels(tmp_path: Path) -> None:
    _, development = trained()
    folder = make_tiny_bert(tmp_path / "other", ["x", "y"])
    other = write_candidate(folder, name="other", backend="hf", labels=["x", "y"])
    with pytest.raises(StepFailed, match=r"must know every label of its student, got none named 'x'"):
        make(tmp_path, other, FAST)
    assert "x" not in development.labels


def test_there_must_be_texts(tmp_path: Path) -> None:
    incumbent, development = trained()
    empty = replace(development, train=(), unlabelled=())
    with pytest.raises(NotEnoughData, match=r"step 'distill' needs train or unlabelled texts, got none"):
        make(tmp_path, incumbent, FAST, data=empty)


def test_the_labels_may_stand_in_another_order(tmp_path: Path) -> None:
    _, development = trained()
    labels = tuple(reversed(development.labels))
    folder = make_tiny_bert(tmp_path / "turned", labels, layers=1)
    student = write_candidate(
        folder,
        name="turned",
        backend="hf",
        labels=labels,
        out_of_scope=development.out_of_scope,
        settings={"max_tokens": 32},
    )
    assert accuracy(student) < 0.4
    assert accuracy(make(tmp_path, student, {**FAST, "epochs": 6, "train_embeddings": True})) > 0.8


def pruned_by(kept: list[int]) -> AppliedStep:
    return AppliedStep(step="prune", settings={"kept_layers": kept}, seed=0, versions={}, parents=())


def test_a_kept_layer_follows_what_the_next_one_was_fed() -> None:
    incumbent, _ = trained()
    once = msgspec.structs.replace(incumbent, lineage=(pruned_by([0, 3, 5]),))
    # State i + 1 is what layer i gives, so layer 3 was fed state 3 and layer 5 was fed state 5.
    assert layer_map(once, 6, 3) == [3, 5, 6]
    twice = msgspec.structs.replace(incumbent, lineage=(pruned_by([0, 3, 5]), pruned_by([0, 2])))
    assert layer_map(twice, 6, 2) == [5, 6]
    assert layer_map(incumbent, 6, 2) == [3, 6]
    assert layer_map(incumbent, 6, 6) == [1, 2, 3, 4, 5, 6]
