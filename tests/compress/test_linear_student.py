"""The linear student learns from the incumbent, the same way each time, within its deadline."""

import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.backends.open import open_model
from jettison.candidate import Candidate, verify_candidate, write_candidate
from jettison.compress.deadline import Deadline
from jettison.compress.linear import DistillLinear
from jettison.compress.linear_features import count_features
from jettison.compress.linear_fit import LinearSchedule, fit_linear
from jettison.compress.step import Step, StepContext, apply_step, step_from
from jettison.errors import InvalidInput, NotEnoughData, StepFailed
from jettison.task import Example
from tiny import make_tiny_development

DEVELOPMENT = make_tiny_development()
QUICK = DistillLinear(epochs=6)


@pytest.fixture
def incumbent(tmp_path: Path) -> Candidate:
    (tmp_path / "fake").mkdir()
    return write_candidate(
        tmp_path / "fake", name="fake", backend="fake", labels=DEVELOPMENT.labels, out_of_scope="oos"
    )


def context_of(incumbent: Candidate, folder: Path, **changes: object) -> StepContext:
    context = StepContext(data=DEVELOPMENT, incumbent=incumbent, folder=folder, workspace=folder / "w")
    return replace(context, **changes)


def test_a_student_learns_the_task(incumbent: Candidate, tmp_path: Path) -> None:
    # The teacher knows nothing (it looks for the label's name): what is learnt comes of the known labels.
    heard: list[str] = []
    context = context_of(incumbent, tmp_path, progress=lambda said, share: heard.append(said))
    step = msgspec.structs.replace(QUICK, gold_weight=30.0, batch_size=32, epochs=20)
    made = apply_step(step, incumbent, context, cache=tmp_path / "cache")
    verify_candidate(made)
    assert made.backend == "linear"
    outputs = open_model(made).predict([example.input for example in DEVELOPMENT.dev])
    right = [o.label == e.expected for o, e in zip(outputs, DEVELOPMENT.dev, strict=True)]
    assert np.mean(right) > 0.85
    notes = made.lineage[-1].notes
    assert notes["dev_fit_accuracy"] > 0.85
    assert notes["n_train"] == 160
    assert notes["n_features"] > 100
    assert notes["bytes"] == made.artifact_bytes
    assert sum(said.startswith("epoch") for said in heard) == notes["epochs"]


def test_the_backend_reads_texts_as_training_did(incumbent: Candidate, tmp_path: Path) -> None:
    texts = [example.input for example in DEVELOPMENT.train]
    features = count_features(texts, 100, characters=(3, 5), min_count=2, max_features=10_000)
    np.testing.assert_allclose(features.transform(texts).toarray(), features.matrix.toarray(), atol=1e-6)
    # A linear model of weights w: the backend's rows are w * idf, its norm the root of the mass.
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(len(features.keys), 3)).astype(np.float32)
    order = np.argsort(features.keys)
    from safetensors.numpy import save_file

    folder = tmp_path / "linear"
    folder.mkdir()
    save_file(
        {
            "keys": features.keys[order].astype(np.uint32),
            "rows": (weights * features.idf[:, None])[order].astype(np.float32),
            "mass": np.square(features.idf)[order].astype(np.float32),
            "bias": np.zeros(3, np.float32),
        },
        folder / "model.safetensors",
    )
    model = open_model(write_candidate(folder, name="l", backend="linear", labels=("a", "b", "c")))
    strange = [*texts, "unseen Words, here!", "", "balance balance"]
    wanted = features.transform(strange) @ weights
    np.testing.assert_allclose(model.logits(strange), wanted, atol=1e-4)


def test_distillation_alone_reaches_the_teachers_distribution() -> None:
    from scipy import sparse

    matrix = sparse.identity(4, format="csr", dtype=np.float32)
    teacher = np.array([[2, 0, -2], [0, 1, 0], [-3, 0, 3], [0, 0, 0]], np.float32)
    fitted = fit_linear(
        matrix, teacher, np.full(4, -1), dev=matrix[:0], dev_gold=np.empty(0, np.int64),
        schedule=LinearSchedule(
            epochs=2000, patience=9999, batch_size=4, learning_rate=0.5, temperature=2.0,
            gold_weight=0.3, dropout=0.0, seed=0, deadline=None,
        ),
        progress=lambda said, share: None,
    )  # fmt: skip
    logits = fitted.weights + fitted.bias
    centered = logits - logits.mean(1, keepdims=True)
    np.testing.assert_allclose(centered, teacher - teacher.mean(1, keepdims=True), atol=0.05)


def test_the_same_seed_gives_the_same_weights(incumbent: Candidate, tmp_path: Path) -> None:
    digests = [
        apply_step(
            QUICK, incumbent, context_of(incumbent, tmp_path, seed=seed), cache=tmp_path / str(run)
        ).digest
        for run, seed in enumerate([0, 0, 1])
    ]
    assert digests[0] == digests[1] != digests[2]


def test_made_up_texts_are_used_when_asked_for(incumbent: Candidate, tmp_path: Path) -> None:
    step = msgspec.structs.replace(QUICK, augment=50)
    made = apply_step(step, incumbent, context_of(incumbent, tmp_path), cache=tmp_path / "cache")
    assert made.lineage[-1].notes["n_augmented"] == 50


def test_a_deadline_ends_training_with_what_there_is(incumbent: Candidate, tmp_path: Path) -> None:
    long = msgspec.structs.replace(QUICK, epochs=100_000, patience=100_000)
    brief = msgspec.structs.replace(QUICK, epochs=1)  # the teacher's answers are kept
    apply_step(brief, incumbent, context_of(incumbent, tmp_path), cache=tmp_path / "cache")
    context = context_of(incumbent, tmp_path, deadline=Deadline(time.monotonic() + 1.0))
    made = apply_step(long, incumbent, context, cache=tmp_path / "cache")
    assert made.lineage[-1].notes["stopped_by"] == "deadline"


def test_without_any_time_no_student_is_made(incumbent: Candidate, tmp_path: Path) -> None:
    context = context_of(incumbent, tmp_path, deadline=Deadline(time.monotonic() - 1))
    with pytest.raises(StepFailed, match=r"must begin before the deadline, got no time left"):
        apply_step(QUICK, incumbent, context, cache=tmp_path / "cache")


def test_a_diverging_student_is_no_candidate(incumbent: Candidate, tmp_path: Path) -> None:
    wild = msgspec.structs.replace(QUICK, learning_rate=1e38)
    with pytest.raises(StepFailed, match=r"logits must stay finite, got -?(inf|nan)"):
        apply_step(wild, incumbent, context_of(incumbent, tmp_path), cache=tmp_path / "cache")


def test_no_text_to_learn_from_is_said(incumbent: Candidate, tmp_path: Path) -> None:
    context = context_of(incumbent, tmp_path, data=replace(DEVELOPMENT, train=(), unlabelled=()))
    with pytest.raises(NotEnoughData, match="needs train or unlabelled texts to learn from, got none"):
        apply_step(QUICK, incumbent, context, cache=tmp_path / "cache")


def test_settings_outside_their_range_are_refused() -> None:
    assert isinstance(step_from({"step": "distill_linear", "characters": [2, 4]}), Step)
    with pytest.raises(
        InvalidInput, match=r"characters of distill_linear must be two lengths .* got \[5, 3\]"
    ):
        DistillLinear(characters=(5, 3))
    with pytest.raises(InvalidInput, match="min_count of distill_linear must be at least 1, got 0"):
        DistillLinear(min_count=0)


def test_a_teacher_that_is_often_wrong_is_listened_to_less(tmp_path: Path) -> None:
    # The fake teacher is right on texts that name their label, at the accuracy it is told.
    data = replace(DEVELOPMENT, train=_named(DEVELOPMENT.train), dev=_named(DEVELOPMENT.dev))
    (tmp_path / "fake").mkdir()
    fake = write_candidate(
        tmp_path / "fake", name="fake", backend="fake", labels=data.labels, settings={"accuracy": 0.2}
    )
    context = context_of(fake, tmp_path, data=data)
    made = apply_step(DistillLinear(), fake, context, cache=tmp_path / "cache")
    assert made.lineage[-1].settings["gold_weight"] == 3.0
    notes = made.lineage[-1].notes
    assert notes["dev_fit_accuracy"] > notes["dev_fit_teacher_accuracy"] + 0.2


def _named(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    return tuple(msgspec.structs.replace(e, input=f"{e.input} {e.expected}") for e in examples)
