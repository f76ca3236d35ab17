"""The torch backend answers as the stock checkpoint does, and says why one does not load."""

import json
from pathlib import Path

import numpy as np
import pytest

from jettison.backends.hf import HEAD, load_torch
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.errors import BrokenArtifact, InvalidInput, UnsafeArtifact
from tiny import make_tiny_bert, make_tiny_development, tiny_candidate, tiny_encode

DEVELOPMENT = make_tiny_development()
TEXTS = [example.input for example in DEVELOPMENT.dev[:40]] + ["", "zzzq"]


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    return tiny_candidate(make_tiny_bert(tmp_path / "tiny", DEVELOPMENT.labels), DEVELOPMENT)


def stock_logits(folder: Path, texts: list[str]) -> np.ndarray:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids, mask = tiny_encode(folder, texts)
    with torch.inference_mode():
        return model(ids, attention_mask=mask).logits.numpy()


def as_pooled(folder: Path, seed: int = 0, **settings: object) -> Candidate:
    """The encoder of a tiny BERT with a random head beside it."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertModel

    make_tiny_bert(folder, DEVELOPMENT.labels, seed=seed)
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    torch.manual_seed(seed)
    n = len(DEVELOPMENT.labels)
    save_file({"weight": torch.randn(n, 32), "bias": torch.randn(n)}, folder / HEAD)
    return tiny_candidate(folder, DEVELOPMENT, pooling="mean", **settings)


def test_logits_are_those_of_the_stock_model_in_the_order_of_the_inputs(candidate: Candidate) -> None:
    outputs = open_model(candidate).predict(TEXTS)
    ours = np.stack([output.logits for output in outputs])
    np.testing.assert_allclose(ours, stock_logits(candidate.path, TEXTS), atol=1e-5)


def test_a_text_alone_answers_as_it_does_in_a_batch(candidate: Candidate) -> None:
    model = open_model(candidate)
    batch = model.predict(TEXTS)
    for text, together in zip(TEXTS[:8], batch, strict=False):
        np.testing.assert_allclose(model.predict([text])[0].logits, together.logits, atol=1e-5)
    assert model.predict([]) == []
    model.close()
    model.close()


def test_mean_pooling_is_the_mean_of_token_vectors_times_the_head(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel

    candidate = as_pooled(tmp_path / "pooled")
    ours = open_model(candidate).predict(TEXTS)
    head = load_file(candidate.path / HEAD)
    encoder = AutoModel.from_pretrained(candidate.path, add_pooling_layer=False).eval()
    for text, output in zip(TEXTS[:5], ours, strict=False):
        ids, mask = tiny_encode(candidate.path, [text])
        with torch.inference_mode():
            mean = encoder(ids, attention_mask=mask).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(output.logits, head["weight"] @ mean + head["bias"], atol=1e-4)


def test_normalized_cls_pooling_gives_vectors_of_length_one(tmp_path: Path) -> None:
    candidate = as_pooled(tmp_path / "pooled", normalize=True)
    module = load_torch(candidate)
    ids, mask = tiny_encode(candidate.path, TEXTS)
    lengths = module.embed(ids, mask).detach().norm(dim=1).numpy()
    np.testing.assert_allclose(lengths, 1.0, atol=1e-5)


def test_bfloat16_is_near_float32(tmp_path: Path, candidate: Candidate) -> None:
    half = tiny_candidate(make_tiny_bert(tmp_path / "b", DEVELOPMENT.labels), DEVELOPMENT, dtype="bfloat16")
    exact = np.stack([o.logits for o in open_model(candidate).predict(TEXTS)])
    rounded = np.stack([o.logits for o in open_model(half).predict(TEXTS)])
    assert 0 < np.abs(exact - rounded).max() < 0.2


def test_corrupt_weights_are_a_broken_artifact(candidate: Candidate) -> None:
    weights = candidate.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BrokenArtifact, match=r"must be a checkpoint that AutoModelForSeq.* loads, got"):
        open_model(candidate)


def test_missing_weights_are_refused_and_not_filled_with_random_numbers(candidate: Candidate) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(candidate.path / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, candidate.path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        BrokenArtifact, match=r"every weight of its model, got none for 'classifier.weight'"
    ):
        open_model(candidate)


def test_a_head_of_the_wrong_shape_is_refused(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    candidate = as_pooled(tmp_path / "pooled")
    save_file({"weight": torch.zeros(2, 32), "bias": torch.zeros(2)}, candidate.path / HEAD)
    with pytest.raises(BrokenArtifact, match=r"must hold tensors of shape .*\(5, 32\).*, got .*\(2, 32\)"):
        open_model(candidate)


def test_labels_must_match_the_logits(tmp_path: Path) -> None:
    folder = make_tiny_bert(tmp_path / "tiny", DEVELOPMENT.labels)
    candidate = write_candidate(folder, name="t", backend="hf", labels=["a", "b"])
    with pytest.raises(BrokenArtifact, match=r"one logit per label \(2\), got 5"):
        open_model(candidate)


def test_pickled_weights_are_refused(candidate: Candidate) -> None:
    (candidate.path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(UnsafeArtifact, match=r"must be safetensors, ONNX or GGUF"):
        open_model(candidate)


@pytest.mark.parametrize(("setting", "value"), [("dtype", "float8"), ("pooling", "max")])
def test_an_unknown_setting_value_is_refused(tmp_path: Path, setting: str, value: str) -> None:
    candidate = as_pooled(tmp_path / "pooled", **{setting: value} if setting == "dtype" else {})
    if setting == "pooling":
        candidate = tiny_candidate(candidate.path, DEVELOPMENT, pooling=value)
    with pytest.raises(InvalidInput, match=rf"{setting}.* must be one of \[.*\], got '{value}'"):
        open_model(candidate)


@pytest.mark.parametrize(
    ("setting", "value", "tensor", "stored"),
    [
        ("max_position_embeddings", 7, "position_embeddings.weight", "64, 32"),
        ("vocab_size", 50, "word_embeddings.weight", r"\d+, 32"),
        ("hidden_size", 64, "LayerNorm.bias", "32,"),
    ],
)
def test_weights_of_another_shape_are_named(
    candidate: Candidate, setting: str, value: int, tensor: str, stored: str
) -> None:
    path = candidate.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    said = rf"got '.*{tensor}' of \({stored}\) where it says \({value},.*\)\. Save both again"
    with pytest.raises(BrokenArtifact, match=said):
        load_torch(candidate)
