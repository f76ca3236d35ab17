"""A causal model in OpenVINO says what the checkpoint says, token after token, and in fewer bits."""

from pathlib import Path

import numpy as np
import pytest

from jettison.backends.causal import CausalEngine
from jettison.backends.open import open_model
from jettison.backends.openvino_causal import OpenVinoCausalEngine
from jettison.candidate import Candidate, write_candidate
from jettison.compress.step import step_from
from jettison.errors import BrokenArtifact, StepFailed
from jettison.language import Ask, Continuation, LanguageModel
from jettison.task.prompt import Message
from jettison.testing import check_backend, check_step
from language_steps import DATA, TEXTS, apply, context_in, language_candidate

pytest.importorskip("openvino")
STEP = {"step": "quantize_openvino_language"}
pytestmark = [
    pytest.mark.slow,  # importing torch, OpenVINO and NNCF and tracing take seconds
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return language_candidate(tmp_path_factory.mktemp("openvino") / "whole", kind="qwen2", hidden=64)


@pytest.fixture(scope="module")
def exact(whole: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return apply(tmp_path_factory.mktemp("made"), whole, {**STEP, "precision": "float32"})


def test_float32_likelihoods_are_the_checkpoints(whole: Candidate, exact: Candidate) -> None:
    asked = [
        Continuation(context=f"Text: {text}\nLabel:", text=f" {label}")
        for text in TEXTS[:5]
        for label in DATA.labels
    ]
    ours, theirs = OpenVinoCausalEngine(exact), CausalEngine(whole)
    assert isinstance(ours, LanguageModel)
    for a, b in zip(ours.likelihoods(asked), theirs.likelihoods(asked), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
        assert (a.n_tokens, a.greedy) == (b.n_tokens, b.greedy)
    for a, b in zip(ours.logits(TEXTS[:3]), theirs.logits(TEXTS[:3]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    # The same again, in another order: what was kept before changes nothing.
    turned = ours.likelihoods(asked[::-1])[::-1]
    assert [one.logprob for one in turned] == pytest.approx(
        [one.logprob for one in ours.likelihoods(asked)], abs=1e-4
    )
    assert ours.token_ids(TEXTS[0]) == theirs.token_ids(TEXTS[0])
    ours.close()
    ours.close()


def test_float32_completions_are_the_checkpoints(whole: Candidate, exact: Candidate) -> None:
    ours, theirs = OpenVinoCausalEngine(exact), CausalEngine(whole)
    asks = [Ask(text=text, max_tokens=6) for text in TEXTS[:4]]
    asks.append(Ask(messages=(Message(role="user", content="show me"),), max_tokens=4))
    for a, b in zip(ours.complete(asks), theirs.complete(asks), strict=True):
        assert (a.text, a.finish) == (b.text, b.finish)
        assert a.token_logprobs == pytest.approx(b.token_logprobs, abs=1e-4)
        assert a.cost.completion_tokens == b.cost.completion_tokens


def test_another_family_converts(tmp_path: Path) -> None:
    gpt2 = language_candidate(tmp_path / "gpt2", kind="gpt2")
    made = apply(tmp_path, gpt2, {**STEP, "precision": "float32"})
    assert made.lineage[-1].notes["next_token_divergence"] < 1e-6


def test_fewer_bits_answer_less_alike_and_take_less_room(
    whole: Candidate, exact: Candidate, tmp_path: Path
) -> None:
    int8, int4 = (apply(tmp_path, whole, {**STEP, "precision": bits}) for bits in ("int8", "int4"))
    assert int8.backend == int4.backend == "openvino_causal"
    assert int4.artifact_bytes < int8.artifact_bytes < exact.artifact_bytes
    of = [one.lineage[-1].notes["next_token_divergence"] for one in (exact, int8, int4)]
    assert of[0] < 1e-6 < of[1] < of[2] < 2.0
    assert of[1] < 0.2
    check_backend(int8, TEXTS[:5], tolerance=1e-4)
    outputs, wanted = (open_model(one).predict(TEXTS[:6]) for one in (int8, whole))
    assert all(output.logits is not None for output in outputs)
    assert sum(o.label == w.label for o, w in zip(outputs, wanted, strict=True)) >= 5


def test_the_step_conforms(whole: Candidate, tmp_path: Path) -> None:
    step = step_from({**STEP, "precision": "float32", "n_texts": 2})
    check_step(step, whole, context_in(tmp_path, whole), texts=TEXTS[:3])


def test_what_cannot_be_made_or_opened_is_said(exact: Candidate, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"must start from a candidate of backend 'hf_causal'"):
        apply(tmp_path, exact, STEP)
    folder = tmp_path / "broken"
    folder.mkdir()
    for entry in exact.files:
        content = (exact.path / entry.path).read_bytes()
        (folder / entry.path).write_bytes(content if entry.path != "model.xml" else content[:500])
    broken = write_candidate(
        folder, name="b", backend="openvino_causal", labels=exact.labels, settings=exact.settings
    )
    with pytest.raises(BrokenArtifact, match=r"must be a model that OpenVINO loads"):
        open_model(broken)
    (folder / "model.xml").unlink()
    with pytest.raises(BrokenArtifact, match=r"must hold model\.xml, got none"):
        open_model(broken)
