"""The generative ONNX runtime says what the checkpoint says, and shares what requests have in common."""

from pathlib import Path

import numpy as np
import pytest

from jettison.backends.causal import CausalEngine
from jettison.backends.onnx_genai import GenaiEngine
from jettison.backends.open import open_model
from jettison.backends.text import load_tokenizer
from jettison.candidate import Candidate, write_candidate
from jettison.compress.step import step_from
from jettison.errors import BrokenArtifact, StepFailed
from jettison.language import Ask, Continuation, LanguageModel
from jettison.task.prompt import Message
from jettison.testing import check_backend, check_step
from language_steps import DATA, TEXTS, apply, context_in, language_candidate

pytest.importorskip("onnxruntime_genai")
STEP = {"step": "quantize_genai"}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    # Heads of 16: the runtime's attention takes no narrower ones.
    return language_candidate(tmp_path_factory.mktemp("genai") / "whole", kind="qwen2", hidden=64)


@pytest.fixture(scope="module")
def exact(whole: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return apply(tmp_path_factory.mktemp("made"), whole, {**STEP, "precision": "float32"})


def test_float32_likelihoods_are_the_checkpoints(whole: Candidate, exact: Candidate) -> None:
    asked = [
        Continuation(context=f"Text: {text}\nLabel:", text=f" {label}")
        for text in TEXTS[:5]
        for label in DATA.labels
    ]
    ours, theirs = GenaiEngine(exact), CausalEngine(whole)
    assert isinstance(ours, LanguageModel)
    for a, b in zip(ours.likelihoods(asked), theirs.likelihoods(asked), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
        assert (a.n_tokens, a.greedy) == (b.n_tokens, b.greedy)
    for a, b in zip(ours.logits(TEXTS[:3]), theirs.logits(TEXTS[:3]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    # The same again, in another order: what the cache held before changes nothing.
    turned = ours.likelihoods(asked[::-1])[::-1]
    assert [one.logprob for one in turned] == pytest.approx(
        [one.logprob for one in ours.likelihoods(asked)], abs=1e-4
    )
    ours.close()
    ours.close()


def test_the_tokenizer_stays_the_checkpoints_own(whole: Candidate, exact: Candidate) -> None:
    """A generic tokenizer under a Qwen2 config, written anew by the builder, gains a token."""
    kept, given = (load_tokenizer(c.path / "tokenizer.json") for c in (exact, whole))
    assert kept.get_vocab(with_added_tokens=True) == given.get_vocab(with_added_tokens=True)
    assert [kept.encode(text).ids for text in TEXTS] == [given.encode(text).ids for text in TEXTS]
    assert GenaiEngine(exact).token_ids(TEXTS[0]) == CausalEngine(whole).token_ids(TEXTS[0])


def test_float32_completions_are_the_checkpoints(whole: Candidate, exact: Candidate) -> None:
    ours, theirs = GenaiEngine(exact), CausalEngine(whole)
    asks = [Ask(text=text, max_tokens=6) for text in TEXTS[:4]]
    asks.append(Ask(messages=(Message(role="user", content="show me"),), max_tokens=4))
    for a, b in zip(ours.complete(asks), theirs.complete(asks), strict=True):
        assert a.text == b.text
        assert a.finish == b.finish
        assert a.token_logprobs == pytest.approx(b.token_logprobs, abs=1e-4)
        assert a.cost.prompt_tokens == b.cost.prompt_tokens
        assert a.cost.completion_tokens == b.cost.completion_tokens
    drawn = [
        ours.complete([Ask(text=TEXTS[0], max_tokens=6, temperature=1.5, seed=s)])[0] for s in (1, 1, 2)
    ]
    assert drawn[0].text == drawn[1].text != drawn[2].text
    said = ours.complete([Ask(text=TEXTS[0], max_tokens=6)])[0].text
    (stopped,) = ours.complete([Ask(text=TEXTS[0], max_tokens=6, stop=(said[2:4],))])
    assert stopped.text == said[: said.index(said[2:4])]
    assert stopped.finish == "stop"


def test_fewer_bits_answer_less_alike_and_take_less_room(
    whole: Candidate, exact: Candidate, tmp_path: Path
) -> None:
    int8 = apply(tmp_path, whole, {**STEP, "precision": "int8"})
    assert int8.backend == "onnx_genai"
    assert int8.artifact_bytes < exact.artifact_bytes
    of = [one.lineage[-1].notes["next_token_divergence"] for one in (exact, int8)]
    assert of[0] < 1e-6 < of[1] < 0.5
    check_backend(int8, TEXTS[:5], tolerance=1e-4)
    outputs = open_model(int8).predict(TEXTS[:6])
    wanted = open_model(whole).predict(TEXTS[:6])
    assert all(o.logits is not None for o in outputs)
    assert sum(o.label == w.label for o, w in zip(outputs, wanted, strict=True)) >= 5


def test_the_step_conforms(whole: Candidate, tmp_path: Path) -> None:
    step = step_from({**STEP, "precision": "float32", "n_texts": 2})
    check_step(step, whole, context_in(tmp_path, whole), texts=TEXTS[:3])


def test_what_cannot_be_built_or_opened_is_said(exact: Candidate, tmp_path: Path) -> None:
    gpt2 = language_candidate(tmp_path / "gpt2", kind="gpt2")
    with pytest.raises(StepFailed, match=r"must be of a family that onnxruntime-genai builds, got"):
        apply(tmp_path, gpt2, STEP)
    with pytest.raises(StepFailed, match=r"must start from a candidate of backend 'hf_causal'"):
        apply(tmp_path, exact, STEP)
    narrow = language_candidate(tmp_path / "narrow")
    with pytest.raises(StepFailed, match=r"must run, got: .*head_size"):
        apply(tmp_path, narrow, {**STEP, "precision": "float32"})
    folder = tmp_path / "broken"
    folder.mkdir()
    for entry in exact.files:
        if not entry.path.endswith(".data"):
            (folder / entry.path).write_bytes((exact.path / entry.path).read_bytes())
    broken = write_candidate(
        folder, name="b", backend="onnx_genai", labels=exact.labels, settings=exact.settings
    )
    with pytest.raises(BrokenArtifact, match=r"must hold a model that onnxruntime-genai loads"):
        open_model(broken)
