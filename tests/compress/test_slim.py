"""What is taken out of a fused graph changes no logit; what could, stays."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from jettison.backends.hf import HEAD, load_torch, open_hf
from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.compress.anatomy import anatomy_of, layers_of
from jettison.compress.checkpoint import save_torch
from jettison.compress.export import Export
from jettison.compress.narrow import silence_heads
from jettison.compress.slim import slim
from jettison.compress.step import StepContext, apply_step
from tiny import make_tiny_bert, make_tiny_development, tiny_candidate, write_tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
DATA = make_tiny_development(train=0, dev=12, unlabelled=0)
TEXTS = [example.input for example in DATA.dev]
BATCHES = (TEXTS, TEXTS[:1], [""], [TEXTS[0], " ".join(TEXTS), ""])
RNG = np.random.default_rng(0)


def export_fused(candidate: Candidate, folder: Path) -> tuple[Candidate, list[str]]:
    """The exported candidate and the operators of its graph."""
    context = StepContext(data=DATA, incumbent=candidate, folder=folder, workspace=folder)
    made = apply_step(Export(method="fused"), candidate, context, cache=folder / "cache")
    graph = onnx.load(str(made.path / "model.onnx")).graph
    return made, [node.op_type for node in graph.node]


def assert_same_answers(made: Candidate, candidate: Candidate) -> None:
    for texts in BATCHES:
        wanted, found = open_hf(candidate).logits(texts), open_model(made).logits(texts)  # type: ignore[attr-defined]
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_classifier_keeps_one_token_after_the_last_attention(tmp_path: Path) -> None:
    candidate = tiny_candidate(make_tiny_bert(tmp_path / "hf", DATA.labels, layers=2, seed=2), DATA)
    made, operators = export_fused(candidate, tmp_path)
    notes = made.lineage[-1].notes
    # Two products and two layer norms around the perceptron, its activation, and the product in it.
    assert notes["first_token_nodes"] == 6
    assert notes["fixed_positions"] is True
    assert {"Where", "Expand", "GatherElements", "SkipLayerNormalization"}.isdisjoint(operators)
    # Words; the first token of the attention and of what is added to it.
    assert operators.count("Gather") == 3
    assert_same_answers(made, candidate)


def test_a_mean_over_tokens_keeps_them_all(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import BertModel

    folder = make_tiny_bert(tmp_path / "hf", DATA.labels, layers=2)
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    torch.manual_seed(0)
    save_file({"weight": torch.randn(5, 32), "bias": torch.randn(5)}, folder / HEAD)
    candidate = tiny_candidate(folder, DATA, pooling="mean")
    made, _ = export_fused(candidate, tmp_path)
    assert made.lineage[-1].notes["first_token_nodes"] == 0
    assert_same_answers(made, candidate)


def test_positions_that_depend_on_the_padding_are_left_alone(tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=5,
        max_position_embeddings=40, pad_token_id=1, type_vocab_size=1, vocab_size=250,
    )  # fmt: skip
    folder = tmp_path / "hf"
    RobertaForSequenceClassification(config).save_pretrained(folder)
    write_tiny_tokenizer(folder)
    candidate = tiny_candidate(folder, DATA)
    made, _ = export_fused(candidate, tmp_path)
    assert made.lineage[-1].notes["fixed_positions"] is False
    assert_same_answers(made, candidate)


def small_graph(*, read_twice: bool = False, axis: int = 1) -> onnx.ModelProto:
    """x, shape (batch, tokens, 4), through a softmax over tokens and a product; token 0 of it."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["mixed"], axis=1),
        helper.make_node("MatMul", ["mixed", "w"], ["made"], name="made"),
        helper.make_node("BiasGelu", ["made", "b"], ["active"], name="active", domain="com.microsoft"),
        helper.make_node("Gather", ["active", "zero"], ["y"], name="pick", axis=axis),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    if read_twice:
        outputs.append(helper.make_tensor_value_info("active", TensorProto.FLOAT, None))
    constants = {
        "w": RNG.normal(size=(4, 4)).astype(np.float32),
        "b": RNG.normal(size=4).astype(np.float32),
        "zero": np.array(0),
    }
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", 4])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=versions, ir_version=8)


@pytest.mark.parametrize(
    ("read_twice", "axis", "moved"),
    [(False, 1, 2), (True, 1, 0), (False, 0, 0)],
    ids=["first token", "all tokens are read too", "first text"],
)
def test_the_pick_moves_only_where_nothing_else_reads(read_twice: bool, axis: int, moved: int) -> None:
    model = small_graph(read_twice=read_twice, axis=axis)
    x = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    wanted = run(model, x)
    assert slim(model, "bert") == {"fixed_positions": False, "first_token_nodes": moved}
    for one, other in zip(run(model, x), wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert [n.op_type for n in model.graph.node].index("Gather") == (1 if moved else 3)


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_heads_without_weights_leave_and_the_answers_stay(tmp_path: Path, family: str) -> None:
    folder = make_tiny_bert(tmp_path / "hf", DATA.labels, layers=2, seed=2)
    if family == "distilbert":
        save_tiny_distilbert(folder)
    candidate = tiny_candidate(folder, DATA)
    module = load_torch(candidate).float()
    anatomy = anatomy_of(module.config)
    assert anatomy.heads is not None
    first = layers_of(module, anatomy)[0]
    n_heads = getattr(module.config, anatomy.heads.count)
    silence_heads(first, anatomy.heads, n_heads, np.array([1]))
    save_torch(module, folder, source=folder)
    made, _ = export_fused(candidate, tmp_path)
    assert made.lineage[-1].notes["heads_left"] == [n_heads - 1]
    assert heads_of(made) == [n_heads - 1, n_heads]
    assert_same_answers(made, candidate)


@pytest.mark.parametrize("left", [False, True], ids=["no weights", "one weight of its values is left"])
def test_an_attention_keeps_one_head_at_least_and_any_with_weights(tmp_path: Path, left: bool) -> None:
    candidate = tiny_candidate(make_tiny_bert(tmp_path / "hf", DATA.labels, layers=1, seed=2), DATA)
    module = load_torch(candidate).float()
    heads = anatomy_of(module.config).heads
    assert heads is not None
    (layer,) = module.body.encoder.layer
    n_heads = module.config.num_attention_heads
    silence_heads(layer, heads, n_heads, np.arange(n_heads))
    if left:  # of the last head
        with torch.no_grad():
            layer.attention.self.value.bias[-1] = 0.5
            layer.attention.output.dense.weight[2, -1] = 0.5
    save_torch(module, candidate.path, source=candidate.path)
    made, _ = export_fused(candidate, tmp_path)
    assert heads_of(made) == [1]
    assert_same_answers(made, candidate)


def heads_of(candidate: Candidate) -> list[int]:
    """Heads of each attention node, in the graph's order."""
    nodes = onnx.load(str(candidate.path / "model.onnx")).graph.node
    attributes = [a for node in nodes if node.op_type == "Attention" for a in node.attribute]
    return [a.i for a in attributes if a.name == "num_heads"]


def save_tiny_distilbert(folder: Path) -> None:
    """Put a DistilBERT in the folder's place, its tokenizer kept."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(1)
    config = DistilBertConfig(
        dim=32, hidden_dim=64, n_layers=2, n_heads=4, num_labels=5, vocab_size=250,
        max_position_embeddings=64,
    )  # fmt: skip
    (folder / "model.safetensors").unlink()
    DistilBertForSequenceClassification(config).save_pretrained(folder)


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_neurons_that_nothing_reads_or_that_read_nothing_leave(tmp_path: Path, activation: str) -> None:
    folder = make_tiny_bert(tmp_path / "hf", DATA.labels, layers=2, seed=2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": activation}))
    candidate = tiny_candidate(folder, DATA)
    module = load_torch(candidate).float()
    first, second = module.body.encoder.layer
    with torch.no_grad():
        first.output.dense.weight[:, :10] = 0.0
        first.intermediate.dense.weight[20:25] = 0.0
        first.intermediate.dense.bias[20:25] = 0.0
        second.intermediate.dense.weight[5:10] = 0.0  # their biases still make something
        second.intermediate.dense.bias[5:10] = 0.3
    save_torch(module, folder, source=folder)
    made, _ = export_fused(candidate, tmp_path)
    assert made.lineage[-1].notes["neurons_left"] == [64 - 15]
    assert_same_answers(made, candidate)
