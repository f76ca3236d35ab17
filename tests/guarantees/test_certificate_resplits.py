"""Cascade certificates on real answers: over resplits of CLINC150, harm stays under epsilon as promised."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from jettison.backends.open import open_model
from jettison.compress.incumbent import take_in
from jettison.compress.linear import DistillLinear
from jettison.compress.step import StepContext, apply_step
from jettison.stats.ltt import certify_threshold
from jettison.task.read import build_task
from jettison.task.source import parse_task_source

SHARED = Path(os.environ.get("JETTISON_SHARED", Path(__file__).resolve().parents[3] / "shared"))
TASK = """
format = 1
name = "clinc150"
kind = "classify"
[data]
path = "clinc150.jsonl"
[data.columns]
input = "text"
expected = "label"
split = "split"
[data.splits]
"train" = "train"
"val" = "dev"
"test" = "test"
[labels]
out_of_scope = "oos"
"""
N_RESPLITS, N_CERTIFY = 1000, 1500

pytestmark = [
    pytest.mark.guarantee,
    pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data beside the checkout"),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Confidence of a real lean model, and whether it errs where the real incumbent is right, on dev."""
    work = tmp_path_factory.mktemp("clinc")
    where = SHARED / "data" / "clinc150"
    data = build_task(parse_task_source(TASK, where="the test"), where).development
    # Half the train split is enough to teach with, and leaves the lean model more to get wrong.
    data = replace(data, train=data.train[::2])
    incumbent = take_in(
        str(SHARED / "models" / "clinc-minilm"),
        labels=data.labels,
        out_of_scope=data.out_of_scope,
        cache=work / "taken",
        seed=0,
        data=data,
        threads=2,
    )
    context = StepContext(data=data, incumbent=incumbent, folder=work, workspace=work / "shared", threads=2)
    lean = apply_step(DistillLinear(), incumbent, context, cache=work / "steps")
    expected = [example.expected for example in data.dev]
    texts = [example.input for example in data.dev]
    said = {name: open_model(model).predict(texts) for name, model in (("lean", lean), ("big", incumbent))}
    wrong = np.array([o.label != e for o, e in zip(said["lean"], expected, strict=True)])
    right = np.array([o.label == e for o, e in zip(said["big"], expected, strict=True)])
    return np.array([o.confidence for o in said["lean"]]), wrong & right


@pytest.mark.parametrize(("epsilon", "delta"), [(0.005, 0.1), (0.01, 0.1), (0.01, 0.05), (0.02, 0.1)])
def test_certificates_hold_over_resplits_of_real_answers(answers, epsilon, delta):
    scores, harmful = answers
    rng = np.random.default_rng(0)
    held = given = 0
    for _ in range(N_RESPLITS):
        # Drawn with replacement, so that all of dev is the population that the promise is about.
        rows = rng.integers(len(scores), size=N_CERTIFY)
        found = certify_threshold(scores[rows], harmful[rows], epsilon=epsilon, delta=delta)
        kept = scores >= (2.0 if found is None else found.threshold)
        given += found is not None and kept.any()
        held += (harmful & kept).mean() <= epsilon
    shares = f"held in {held / N_RESPLITS:.1%}, given in {given / N_RESPLITS:.1%}"
    print(f"epsilon {epsilon} delta {delta}: {shares}")
    assert binomtest(int(held), N_RESPLITS, 1 - delta, alternative="less").pvalue > 1e-4
    assert given > 0.5 * N_RESPLITS
