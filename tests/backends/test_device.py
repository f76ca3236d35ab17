"""A GPU in bfloat16 where there is one: the rule everywhere, the figures on either."""

from pathlib import Path

import numpy as np
import pytest

from jettison.backends.causal import CausalEngine
from jettison.backends.device import Placed, cast, placed_on
from jettison.candidate import Candidate, write_candidate
from jettison.errors import InvalidInput
from jettison.language import Ask, Continuation
from tiny import make_tiny_language

torch = pytest.importorskip("torch")
ASKED = [Continuation(context=f"one two {i} three", text=f" four {i}") for i in range(12)]
TEXTS = [one.context + one.text for one in ASKED]


@pytest.mark.parametrize(
    ("settings", "has_gpu", "has_bfloat16", "expected"),
    [
        ({}, False, False, Placed("cpu", "float32")),
        ({}, True, True, Placed("cuda", "bfloat16")),
        ({}, True, False, Placed("cuda", "float32")),
        ({"device": "cpu"}, True, True, Placed("cpu", "float32")),
        ({"dtype": "float32"}, True, True, Placed("cuda", "float32")),
        ({"dtype": "bfloat16"}, False, False, Placed("cpu", "bfloat16")),
    ],
)
def test_the_gpu_is_taken_where_there_is_one(settings, has_gpu, has_bfloat16, expected):
    found = placed_on(settings, backend="hf_causal", has_gpu=has_gpu, has_bfloat16=has_bfloat16)
    assert found == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "float8"}, "dtype of backend 'hf_causal' must be one of"),
        ({"device": "tpu"}, "device of backend 'hf_causal' must be one of"),
        ({"device": "cuda"}, "must be there, got 'cuda' where torch sees no GPU"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(InvalidInput, match=said):
        placed_on(settings, backend="hf_causal", has_gpu=False, has_bfloat16=False)


def candidate(folder: Path, **settings: object) -> Candidate:
    return write_candidate(folder, name="tiny", backend="hf_causal", labels=(), settings=settings)


def likelihoods(made: Candidate) -> np.ndarray:
    engine = CausalEngine(made)
    found = [one.logprob for one in engine.likelihoods(ASKED)]
    engine.close()
    return np.array(found)


def test_bfloat16_moves_likelihoods_by_its_rounding_alone(tmp_path):
    folder = make_tiny_language(tmp_path / "tiny", TEXTS)
    exact = likelihoods(candidate(folder, device="cpu"))
    rounded = likelihoods(candidate(folder, device="cpu", dtype="bfloat16"))
    assert 0 < np.abs(exact - rounded).max() < 0.02 * np.abs(exact).max()


def test_a_precision_rounds_weights_and_not_the_frequencies_of_positions():
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=8, **size))
    cast(model, "bfloat16")
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    frequencies = model.model.rotary_emb.inv_freq
    assert frequencies.dtype == torch.float32
    torch.testing.assert_close(frequencies[1].item(), 10_000 ** (-1 / 4))


def test_requests_are_packed_in_bfloat16_too(tmp_path):
    folder = make_tiny_language(tmp_path / "tiny", TEXTS)
    engine = CausalEngine(candidate(folder, device="cpu", dtype="bfloat16"))
    assert engine._packs
    assert engine._model.dtype == torch.bfloat16
    engine.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_answers_as_the_cpu_does(tmp_path):
    folder = make_tiny_language(tmp_path / "tiny", TEXTS)
    exact = likelihoods(candidate(folder, device="cpu"))
    assert np.abs(likelihoods(candidate(folder, dtype="float32")) - exact).max() < 1e-3
    assert np.abs(likelihoods(candidate(folder)) - exact).max() < 0.02 * np.abs(exact).max()
    asks = [Ask(text=text, max_tokens=6) for text in TEXTS]
    said = []
    for device in ("cpu", "cuda"):
        engine = CausalEngine(candidate(folder, device=device, dtype="float32"))
        said.append([one.text for one in engine.complete(asks)])
        engine.close()
    assert said[0] == said[1]
