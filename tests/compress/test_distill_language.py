"""Distillation brings a pruned model's token probabilities back to the whole one's."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.compress.importance import divergence
from jettison.compress.step import step_from
from jettison.compress.teacher_tokens import TeacherTokens, lumped_divergence, taught_rows
from jettison.errors import StepFailed
from jettison.testing import check_step
from language_steps import DATA, TEXTS, apply, context_in, language_candidate

TEACHER_ALONE = {"label_weight": 0.0}
"""The tiny teacher's weights are random: right answers would pull the other way."""
STEP = {"step": "distill_language", "precision": "float32", "learning_rate": 2e-3, "epochs": 8}


def pair(folder: Path) -> tuple[Candidate, Candidate]:
    """A model, and itself without a block."""
    whole = language_candidate(folder / "whole", layers=3)
    return whole, apply(folder, whole, {"step": "prune_language", "depth": 2})


def label_logits(candidate: Candidate) -> np.ndarray:
    return np.stack([output.logits for output in open_model(candidate).predict(TEXTS)])


def test_a_pruned_model_is_healed(tmp_path: Path) -> None:
    whole, pruned = pair(tmp_path)
    healed = apply(tmp_path, pruned, {**STEP, **TEACHER_ALONE}, incumbent=whole)
    notes = healed.lineage[-1].notes
    assert notes["teacher_divergence"] < 0.6 * notes["teacher_divergence_before"]
    assert notes["inputs"] == {"train": 48, "unlabelled": 16}
    wanted, before, after = (label_logits(one) for one in (whole, pruned, healed))
    assert divergence(wanted, after) < divergence(wanted, before)


def test_the_teacher_answers_once_and_a_damaged_file_is_asked_again(tmp_path: Path) -> None:
    whole, _ = pair(tmp_path)
    asked = TeacherTokens(temperature=2.0, top_k=5, prompt_tokens=4, max_tokens=256)
    context = context_in(tmp_path, whole)
    inputs = [e.asked for e in DATA.train[:10]]
    rows = taught_rows(whole, context, inputs, asked)
    (path,) = (tmp_path / "workspace" / "teacher-tokens").iterdir()
    before = path.stat().st_mtime_ns
    again = taught_rows(whole, context, inputs, asked)
    assert path.stat().st_mtime_ns == before
    assert again.ids == rows.ids
    assert rows.teacher is not None
    assert again.teacher is not None
    for a, b in zip(rows.teacher, again.teacher, strict=True):
        np.testing.assert_array_equal(a.logprobs, b.logprobs)
    assert [len(top.ids) for top in rows.teacher] == (rows.n_answer + 4).tolist()
    path.write_bytes(b"damaged")
    os.utime(path, ns=(0, 0))
    assert taught_rows(whole, context, inputs, asked).ids == rows.ids
    assert path.stat().st_mtime_ns != 0


def test_the_divergence_over_lumps_is_the_whole_one_where_all_is_kept() -> None:
    import torch

    # P = (1/2, 1/4, 1/4), Q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 - 1/4 ln 2 = 0.1733.
    p = torch.tensor([0.5, 0.25, 0.25]).log()
    q = torch.tensor([0.25, 0.5, 0.25]).log()
    whole = float(lumped_divergence(p, q))
    assert whole == pytest.approx(0.25 * np.log(2), abs=1e-5)
    # Two tokens and a lump of one are the same; one token and a lump of two say less:
    # P = (1/2, 1/2), Q = (1/4, 3/4): 1/2 ln 2 + 1/2 ln(2/3) = 0.1438.
    assert float(lumped_divergence(p[:2], q[:2])) == pytest.approx(whole, abs=1e-5)
    assert float(lumped_divergence(p[:1], q[:1])) == pytest.approx(0.5 * np.log(4 / 3), abs=1e-5)


def test_a_teacher_of_other_tokens_is_refused(tmp_path: Path) -> None:
    _, pruned = pair(tmp_path)
    other = language_candidate(tmp_path / "other", replace(DATA, train=DATA.train[:3]))
    with pytest.raises(
        StepFailed, match=r"must cut texts into the same tokens .* use step 'distill_answers'"
    ):
        apply(tmp_path, pruned, STEP, incumbent=other)
    (tmp_path / "endpoint").mkdir()
    (tmp_path / "endpoint" / "note.txt").write_text("elsewhere")
    far = write_candidate(
        tmp_path / "endpoint", name="far", backend="fake_language", labels=DATA.labels, settings={}
    )
    with pytest.raises(StepFailed, match=r"needs an incumbent of backend 'hf_causal'.*got 'fake_language'"):
        apply(tmp_path, pruned, STEP, incumbent=far)


def test_the_step_conforms(tmp_path: Path) -> None:
    whole, pruned = pair(tmp_path)
    step = step_from({**STEP, "epochs": 1, "mode": "lora"})
    check_step(step, pruned, context_in(tmp_path, whole), texts=TEXTS[:3])
