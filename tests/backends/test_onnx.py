"""The ONNX Runtime backend answers as the checkpoint does, and refuses a broken file in plain words."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from jettison.backends.hf import open_hf
from jettison.backends.machine import cpu_features, describe_machine, has_vnni
from jettison.backends.onnx import open_onnx
from jettison.backends.text import load_tokenizer
from jettison.backends.words import FramedIds
from jettison.candidate import Candidate, write_candidate
from jettison.compress.export import Export
from jettison.compress.step import StepContext, apply_step
from jettison.errors import BrokenArtifact, InvalidInput
from tiny import make_tiny_bert, make_tiny_development, tiny_candidate, write_tiny_tokenizer

DATA = make_tiny_development(train=0, dev=40, unlabelled=0)
TEXTS = [example.input for example in DATA.dev]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = tmp_path_factory.mktemp("hf") / "tiny"
    return tiny_candidate(make_tiny_bert(folder, DATA.labels, layers=2), DATA)


@pytest.fixture(scope="module")
def exported(checkpoint: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = tmp_path_factory.mktemp("made")
    context = StepContext(data=DATA, incumbent=checkpoint, folder=folder, workspace=folder)
    return apply_step(Export(), checkpoint, context, cache=folder / "cache")


def graph_candidate(
    folder: Path, inputs: dict[str, int], output: tuple[str, int, list[object]]
) -> Candidate:
    """A candidate whose graph adds its inputs up, casts them, and spreads the sum over 5 logits."""
    write_tiny_tokenizer(folder)
    name, kind, shape = output
    first, *others = inputs
    nodes = [helper.make_node("Cast", [key], [f"{key}_f"], to=TensorProto.FLOAT) for key in inputs]
    nodes.append(helper.make_node("Sum", [f"{key}_f" for key in (first, *others)], ["sum"]))
    nodes.append(helper.make_node("ReduceMean", ["sum"], ["mean"], axes=[1], keepdims=1))
    nodes.append(helper.make_node("Mul", ["mean", "ramp"], ["spread"]))
    nodes.append(helper.make_node("Cast", ["spread"], [name], to=kind))
    n_labels = int(str(shape[1]))
    ramp = helper.make_tensor("ramp", TensorProto.FLOAT, [1, n_labels], np.arange(n_labels, dtype=float))
    graph = helper.make_graph(
        nodes,
        "sum",
        [helper.make_tensor_value_info(key, given, ["n", "tokens"]) for key, given in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape)],
        [ramp],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    return write_candidate(folder, name="graph", backend="onnx", labels=DATA.labels)


def test_logits_are_those_of_the_checkpoint(checkpoint: Candidate, exported: Candidate) -> None:
    wanted, found = open_hf(checkpoint).logits(TEXTS), open_onnx(exported).logits(TEXTS)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.dtype == np.float32


def test_threads_of_the_settings_are_those_of_the_session(exported: Candidate) -> None:
    two = msgspec.structs.replace(exported, settings={**exported.settings, "threads": 2})
    options = open_onnx(two)._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_graph_of_32_bit_ids_and_token_types_is_fed_what_it_asks_for(tmp_path: Path) -> None:
    inputs = {
        "token_type_ids": TensorProto.INT32,
        "input_ids": TensorProto.INT32,
        "attention_mask": TensorProto.INT64,
    }
    candidate = graph_candidate(tmp_path, inputs, ("logits", TensorProto.FLOAT, ["n", 5]))
    model = open_onnx(candidate)
    ids = load_tokenizer(candidate.path / "tokenizer.json").encode(TEXTS[0]).ids
    # types are 0 and the mask 1 for each token: the mean is that of the ids, plus 1
    wanted = (np.mean(ids) + 1) * np.arange(5)
    np.testing.assert_allclose(model.logits(TEXTS[:1])[0], wanted, rtol=1e-5)


def test_an_input_that_no_text_can_fill_is_named(tmp_path: Path) -> None:
    inputs = {"input_ids": TensorProto.INT64, "pixel_values": TensorProto.INT64}
    candidate = graph_candidate(tmp_path, inputs, ("logits", TensorProto.FLOAT, ["n", 5]))
    with pytest.raises(
        BrokenArtifact, match=r"must have inputs among .* got \['input_ids', 'pixel_values'\]"
    ):
        open_onnx(candidate)


def test_ids_of_another_type_are_refused(tmp_path: Path) -> None:
    candidate = graph_candidate(
        tmp_path, {"input_ids": TensorProto.FLOAT}, ("logits", TensorProto.FLOAT, ["n", 5])
    )
    with pytest.raises(BrokenArtifact, match=r"must take input_ids as .* got tensor\(float\)"):
        open_onnx(candidate)


@pytest.mark.parametrize(
    "output", [("logits", TensorProto.INT64, ["n", 5]), ("logits", TensorProto.FLOAT, ["n", 7])]
)
def test_a_graph_without_one_logit_per_label_is_refused(
    tmp_path: Path, output: tuple[str, int, list]
) -> None:
    candidate = graph_candidate(tmp_path, {"input_ids": TensorProto.INT64}, output)
    with pytest.raises(BrokenArtifact, match=r"must have a float output of shape \(n, 5\)"):
        open_onnx(candidate)


@pytest.mark.parametrize("content", [b"", b"not a graph", None])
def test_a_missing_or_corrupt_file_is_refused(
    exported: Candidate, tmp_path: Path, content: bytes | None
) -> None:
    (tmp_path / "tokenizer.json").write_bytes((exported.path / "tokenizer.json").read_bytes())
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(BrokenArtifact, match=r"model.onnx must be"):
        open_onnx(msgspec.structs.replace(exported, path=tmp_path))


def test_a_file_cut_short_is_refused(exported: Candidate, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((exported.path / "tokenizer.json").read_bytes())
    whole = (exported.path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BrokenArtifact, match="must be an ONNX model that loads"):
        open_onnx(msgspec.structs.replace(exported, path=tmp_path))


def test_missing_external_data_is_refused(exported: Candidate, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((exported.path / "tokenizer.json").read_bytes())
    model = onnx.load(str(exported.path / "model.onnx"))
    onnx.save(
        model, str(tmp_path / "model.onnx"), save_as_external_data=True, location="w.data", size_threshold=0
    )
    moved = msgspec.structs.replace(exported, path=tmp_path)
    assert open_onnx(moved).logits(TEXTS[:1]).shape == (1, 5)
    (tmp_path / "w.data").unlink()
    with pytest.raises(BrokenArtifact, match="must be an ONNX model that loads"):
        open_onnx(moved)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"threads": "two"}, "threads must be a whole number of at least 1, got 'two'"),
        ({"precision": "bfloat16"}, "precision of backend 'onnx' must be 'float32', got 'bfloat16'"),
    ],
)
def test_settings_that_cannot_be_honored_are_refused(
    exported: Candidate, settings: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        open_onnx(msgspec.structs.replace(exported, settings=settings))


def test_a_text_without_a_token_gets_the_same_answer_alone_and_in_a_batch(exported: Candidate) -> None:
    model = open_onnx(exported)
    tokenizer = load_tokenizer(exported.path / "tokenizer.json")
    tokenizer.post_processor = None  # no [CLS], no [SEP]
    model._ids = FramedIds(tokenizer, 32)
    assert model._ids("") == []
    alone, together = model.logits([""]), model.logits(["", TEXTS[0]])
    np.testing.assert_allclose(alone[0], together[0], atol=1e-5)


def test_half_a_surrogate_pair_is_answered_as_a_question_mark(exported: Candidate) -> None:
    model = open_onnx(exported)
    np.testing.assert_array_equal(model.logits(["\ud800"]), model.logits(["?"]))
    with pytest.raises(InvalidInput, match="inputs must be text, got int"):
        model.logits([3])  # type: ignore[list-item]


def test_the_machine_is_described_in_text_alone() -> None:
    found = describe_machine()
    assert all(isinstance(value, str) and value for value in found.values())
    assert {"architecture", "cores", "os", "python", "onnxruntime"} <= set(found)
    assert found.get("features", "") == " ".join(sorted(cpu_features()))
    if "avx512_vnni" in cpu_features():
        assert has_vnni()
