"""Quantized files are smaller, answer nearly as before, and say what was measured of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from clocks import over_once_begun
from jettison.backends import machine
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.compress import quantize as quantize_module
from jettison.compress import quantize_onnx
from jettison.compress.export import Export
from jettison.compress.mixed import MixedPrecision, _growing
from jettison.compress.quantize import Quantize, calibration_texts, has_float_weights, mean_kl, token_feeds
from jettison.compress.step import Made, StepContext, apply_step
from jettison.errors import InvalidInput, NotEnoughData, StepFailed
from jettison.model import softmax
from tiny import make_tiny_development, tiny_candidate, train_tiny_bert

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
DATA = make_tiny_development(train=100, dev=120, unlabelled=30)
TEXTS = [example.input for example in DATA.dev_fit]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = tmp_path_factory.mktemp("hf") / "tiny"
    return tiny_candidate(train_tiny_bert(folder, DATA, layers=2, epochs=8), DATA)


@pytest.fixture(scope="module")
def context(checkpoint: Candidate, tmp_path_factory: pytest.TempPathFactory) -> StepContext:
    folder = tmp_path_factory.mktemp("context")
    return StepContext(data=DATA, incumbent=checkpoint, folder=folder, workspace=folder)


@pytest.fixture(scope="module")
def exports(checkpoint: Candidate, context: StepContext) -> dict[str, Candidate]:
    steps = {"fused": Export(), "plain": Export(method="plain"), "openvino": Export(target="openvino")}
    return {
        name: apply_step(step, checkpoint, context, cache=context.folder / "exports")
        for name, step in steps.items()
    }


def applied(step, candidate: Candidate, context: StepContext) -> Candidate:  # type: ignore[no-untyped-def]
    return apply_step(step, candidate, context, cache=context.folder / "cache")


@pytest.mark.parametrize(
    ("parent", "method"),
    [
        ("fused", "dynamic"),
        ("plain", "dynamic"),
        ("plain", "static"),
        ("plain", "weights8"),
        ("plain", "weights4"),
        ("openvino", "nncf"),
        ("openvino", "weights8"),
        ("openvino", "weights4"),
        pytest.param("plain", "nncf", marks=pytest.mark.slow),
    ],
)
def test_each_method_keeps_the_answers(
    parent: str, method: str, exports: dict[str, Candidate], context: StepContext
) -> None:
    source = exports[parent]
    made = applied(Quantize(method=method, n_calibration=40), source, context)  # type: ignore[arg-type]
    before, after = (open_model(c).logits(TEXTS) for c in (source, made))  # type: ignore[attr-defined]
    agreement = (before.argmax(1) == after.argmax(1)).mean()
    # 4 bits flip what a barely trained model is unsure of
    assert agreement >= (0.75 if method == "weights4" else 0.95)
    assert 0 < np.abs(before - after).max() < 1.0
    fidelity = made.lineage[-1].notes["fidelity"]
    assert fidelity["agreement_share"] == pytest.approx(agreement)
    assert fidelity["n_texts"] == len(TEXTS)
    alone = {"batch_size": 1} if method == "dynamic" else {}
    assert (made.backend, made.settings) == (source.backend, {**source.settings, **alone})


@pytest.mark.parametrize(
    ("method", "backend"), [("dynamic", "onnx"), ("static", "onnx"), ("nncf", "openvino")]
)
def test_a_checkpoint_is_exported_as_the_method_needs_it(
    method: str, backend: str, checkpoint: Candidate, context: StepContext
) -> None:
    made = applied(Quantize(method=method, n_calibration=10), checkpoint, context)  # type: ignore[arg-type]
    assert made.backend == backend
    assert made.lineage[-1].notes["export"]["parity"]["max_abs_difference"] < 1e-4
    assert len(made.lineage) == 1


@pytest.mark.parametrize("step", [Quantize(), Quantize(method="weights4"), MixedPrecision()])
def test_what_is_int8_already_is_not_quantized_again(
    step: Quantize | MixedPrecision, exports: dict[str, Candidate], context: StepContext
) -> None:
    """The tables of positions that stay in float are not taken for what is left to do."""
    once = applied(Quantize(), exports["fused"], context)
    assert not has_float_weights(once)
    assert has_float_weights(exports["fused"])
    with pytest.raises(StepFailed, match=r"weights must be float32 to be quantized, got .*already int8"):
        applied(step, once, context)


@pytest.mark.parametrize("step", [Quantize(), Quantize(method="static"), MixedPrecision()])
def test_half_precision_weights_are_refused_beforehand(
    step: Quantize | MixedPrecision, exports: dict[str, Candidate], context: StepContext, tmp_path: Path
) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    shutil.copy(exports["plain"].path / "tokenizer.json", tmp_path)
    graph = onnx.load(exports["plain"].path / "model.onnx")
    onnx.save(convert_float_to_float16(graph, keep_io_types=True), tmp_path / "model.onnx")
    half = write_candidate(tmp_path, name="half", backend="onnx", labels=DATA.labels)
    assert not has_float_weights(half)
    with pytest.raises(StepFailed, match=r"weights must be float32 to be quantized, got float16"):
        applied(step, half, context)


def test_a_quantizer_that_adds_no_int8_node_has_failed(
    exports: dict[str, Candidate], tmp_path: Path
) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    plan = quantize_onnx.Int8(embeddings=False)
    quantize_onnx.quantize_dynamic(exports["plain"].path / "model.onnx", first, plan)
    with pytest.raises(StepFailed, match=r"must make nodes int8, got the \d+ that were already int8"):
        quantize_onnx.quantize_dynamic(first, second, plan)


@pytest.mark.parametrize("step", [Quantize(), MixedPrecision(quality_loss=0.5)])
def test_an_answer_of_dynamic_int8_does_not_depend_on_what_else_is_asked(
    step: Quantize | MixedPrecision, exports: dict[str, Candidate], context: StepContext
) -> None:
    made = applied(step, exports["fused"], context)
    model = open_model(made)
    alone = np.concatenate([model.logits([text]) for text in TEXTS])  # type: ignore[attr-defined]
    assert np.array_equal(model.logits(TEXTS), alone)  # type: ignore[attr-defined]
    batched = msgspec.structs.replace(made, settings={**made.settings, "batch_size": 32})
    assert not np.array_equal(open_model(batched).logits(TEXTS), alone)  # type: ignore[attr-defined]


def test_static_is_never_taken_to_be_better_than_dynamic(
    exports: dict[str, Candidate], context: StepContext
) -> None:
    """Which loses less depends on the model (ModernBERT: static, 40-fold), so both say it."""
    lost = {
        method: applied(Quantize(method=method), exports["plain"], context)  # type: ignore[arg-type]
        .lineage[-1]
        .notes["fidelity"]["mean_kl"]
        for method in ("dynamic", "static")
    }
    assert all(value > 0 for value in lost.values())
    assert lost["dynamic"] != lost["static"]


def test_fused_nodes_are_quantized_whose_shapes_cannot_be_inferred(
    exports: dict[str, Candidate], context: StepContext
) -> None:
    made = applied(Quantize(), exports["fused"], context)
    kinds = [node.op_type for node in onnx.load(str(made.path / "model.onnx")).graph.node]
    assert kinds.count("QAttention") == 2
    # dense after attention, two of the feed-forward, in two layers; pooler and classifier
    assert kinds.count("MatMulInteger") == 8
    assert "Gemm" not in kinds


def test_only_the_token_table_of_the_embeddings_is_quantized(
    exports: dict[str, Candidate], context: StepContext
) -> None:
    table = quantize_onnx.token_table(exports["fused"].path / "model.onnx")
    assert table is not None
    assert "word_embeddings" in table
    made, without = (applied(Quantize(embeddings=e), exports["fused"], context) for e in (True, False))
    graphs = [onnx.load(str(c.path / "model.onnx")).graph for c in (made, without)]
    names = [
        [t.name for t in graph.initializer if t.data_type == 1 and "embeddings" in t.name]
        for graph in graphs
    ]
    assert not any(name.endswith("word_embeddings.weight") for name in names[0])
    assert any(name.endswith("position_embeddings.weight") for name in names[0])
    assert any(name.endswith("word_embeddings.weight") for name in names[1])
    assert made.artifact_bytes < without.artifact_bytes < exports["fused"].artifact_bytes


def largest_weight(candidate: Candidate) -> int:
    """The largest int8 number among the weights of matrix products."""
    graph = onnx.load(str(candidate.path / "model.onnx")).graph
    tensors = {t.name: t for t in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulInteger"]
    weights = [onnx.numpy_helper.to_array(tensors[node.input[1]]) for node in products]
    assert all(weight.dtype == np.int8 for weight in weights)
    return max(int(np.abs(weight.astype(int)).max()) for weight in weights)


def test_weights_keep_to_seven_bits_where_full_range_would_saturate(
    exports: dict[str, Candidate], context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    for vnni, largest in ((True, 127), (False, 64)):
        monkeypatch.setattr(quantize_onnx, "has_vnni", lambda vnni=vnni: vnni)
        made = apply_step(Quantize(), exports["fused"], context, cache=context.folder / "two processors")
        assert made.lineage[-1].settings["reduce_range"] is not vnni
        assert largest_weight(made) == largest


def test_every_weight_of_nncf_keeps_to_seven_bits_too(
    exports: dict[str, Candidate], context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openvino

    for vnni, largest in ((True, 127), (False, 64)):
        monkeypatch.setattr(quantize_onnx, "has_vnni", lambda vnni=vnni: vnni)
        made = applied(Quantize(method="nncf", n_calibration=4), exports["openvino"], context)
        assert made.lineage[-1].settings["reduce_range"] is not vnni
        graph = openvino.Core().read_model(str(made.path / "model.xml"))
        constants = [node for node in graph.get_ops() if node.get_type_name() == "Constant"]
        weights = [
            c.data for c in constants if c.get_element_type() == openvino.Type.i8 and c.data.ndim > 1
        ]
        # The three tables of the embeddings are read, not multiplied: they keep all of their bits.
        found = sorted(int(np.abs(weight.astype(int)).max()) for weight in weights)[:-3]
        assert len(found) == 14
        assert largest - 1 <= found[0] <= found[-1] <= largest


@pytest.mark.parametrize(
    "step", [Quantize(), Quantize(method="static"), Quantize(method="nncf"), MixedPrecision()]
)
def test_a_cache_carried_to_another_processor_is_not_taken_for_its_own(
    step: Quantize | MixedPrecision,
    exports: dict[str, Candidate],
    context: StepContext,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    made: list[bool] = []

    def make(self, candidate, context):  # type: ignore[no-untyped-def]
        made.append(quantize_onnx.needs_reduced_range())
        (context.folder / "model.onnx").write_bytes(b"made")
        return Made()

    monkeypatch.setattr(type(step), "make", make)
    for vnni in (True, False, True, False):
        monkeypatch.setattr(quantize_onnx, "has_vnni", lambda vnni=vnni: vnni)
        found = apply_step(step, exports["plain"], context, cache=tmp_path)
        assert found.lineage[-1].settings["reduce_range"] is not vnni
    assert made == [False, True]


def test_the_processor_decides_on_full_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(machine, "cpu_features", lambda: frozenset({"avx2", "avx512f"}))
    assert quantize_onnx.needs_reduced_range()
    monkeypatch.setattr(machine, "cpu_features", lambda: frozenset({"avx2", "avx_vnni"}))
    assert not quantize_onnx.needs_reduced_range()
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(machine, "cpu_features", lambda: frozenset())
    assert not quantize_onnx.needs_reduced_range()


def test_excluded_nodes_stay_in_float(exports: dict[str, Candidate], context: StepContext) -> None:
    made = applied(Quantize(exclude=("*classifier*", "*pooler*")), exports["fused"], context)
    kinds = [node.op_type for node in onnx.load(str(made.path / "model.onnx")).graph.node]
    assert kinds.count("MatMulInteger") == 6
    with pytest.raises(InvalidInput, match=r"exclude must name nodes of the graph, got 'nowhere\*'"):
        applied(Quantize(exclude=("nowhere*",)), exports["fused"], context)


@pytest.mark.parametrize(
    ("parent", "method", "said"),
    [
        ("openvino", "dynamic", r"one of \['nncf', 'weights8', 'weights4'\] .* got 'dynamic'"),
        (
            "fused",
            "static",
            "must start from standard operators, got Attention. Export with method 'plain'",
        ),
        ("fused", "nncf", "must start from standard operators, got Attention"),
    ],
)
def test_a_method_that_does_not_fit_the_format_is_refused(
    parent: str, method: str, said: str, exports: dict[str, Candidate], context: StepContext
) -> None:
    with pytest.raises(InvalidInput, match=said):
        applied(Quantize(method=method), exports[parent], context)  # type: ignore[arg-type]


def test_a_backend_without_weights_is_refused(exports: dict[str, Candidate], context: StepContext) -> None:
    fake = msgspec.structs.replace(exports["fused"], backend="fake")
    with pytest.raises(
        InvalidInput, match="must start from backend 'hf', 'onnx' or 'openvino', got 'fake'"
    ):
        Quantize().make(fake, context)
    with pytest.raises(
        InvalidInput, match="mixed_precision must start from backend 'hf' or 'onnx', got 'fake'"
    ):
        MixedPrecision().make(fake, context)


def test_calibration_reads_unlabelled_and_the_first_half_of_dev_alone(context: StepContext) -> None:
    allowed = {e.input for e in (*DATA.unlabelled, *DATA.dev_fit)}
    texts = calibration_texts(context, 1000)
    assert set(texts) == allowed
    assert texts == calibration_texts(context, 1000)
    assert calibration_texts(context, 7) == texts[:7]
    assert not set(texts) & {e.input for e in DATA.dev_certify} - allowed


def test_calibration_without_a_text_says_so(context: StepContext) -> None:
    nothing = replace(context, data=make_tiny_development(train=0, dev=0, unlabelled=0))
    with pytest.raises(
        NotEnoughData, match="calibration needs at least 1 text in dev, unlabelled or train, got 0"
    ):
        calibration_texts(nothing, 10)
    with pytest.raises(
        NotEnoughData, match="mixed_precision needs at least 1 example in the first half of dev"
    ):
        MixedPrecision().make(context.incumbent, nothing)


def test_calibration_inputs_show_padding(exports: dict[str, Candidate]) -> None:
    feeds = token_feeds(exports["plain"], ["weather", "please show me the forecast today"])
    assert [feed["input_ids"].shape for feed in feeds] == [(1, 8), (1, 8)]
    assert feeds[0]["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]
    assert not feeds[0]["token_type_ids"].any()


def test_a_result_without_finite_logits_is_refused(
    exports: dict[str, Candidate], context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def logits_of(candidate, texts):  # type: ignore[no-untyped-def]
        return np.full((len(texts), 5), np.nan if candidate.path != exports["fused"].path else 0.0)

    monkeypatch.setattr(quantize_module, "logits_of", logits_of)
    with pytest.raises(StepFailed, match="must give finite logits, got nan or inf"):
        apply_step(Quantize(), exports["fused"], context, cache=context.folder / "refused")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_not_told_as_a_quantizer_that_fails(
    exports: dict[str, Candidate], context: StepContext, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        Quantize().make(exports["fused"], replace(context, folder=tmp_path))


def test_divergence_by_hand() -> None:
    # p = (0.5, 0.5), q = (0.8, 0.2): 0.5 ln(0.5 / 0.8) + 0.5 ln(0.5 / 0.2) = 0.22314
    reference, other = np.array([[0.0, 0.0]]), np.log(np.array([[0.8, 0.2]]))
    np.testing.assert_allclose(softmax(other), [[0.8, 0.2]])
    assert mean_kl(reference, other) == pytest.approx(0.22314, abs=1e-5)
    assert mean_kl(other, other) == 0.0


def test_mixed_precision_keeps_the_layer_that_int8_ruins(
    exports: dict[str, Candidate], context: StepContext, tmp_path: Path
) -> None:
    """Scaling one channel of one layer up by 3000, and its use down, changes nothing in float.

    One scale for the whole matrix (`per_channel=False`) then leaves the other channels no
    digit, so that layer has to stay in float, and the search has to find it.
    """
    source = exports["fused"]
    folder = tmp_path / "spoiled"
    folder.mkdir()
    model = onnx.load(str(source.path / "model.onnx"))
    name = spoil(model)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "tokenizer.json").write_bytes((source.path / "tokenizer.json").read_bytes())
    spoiled = msgspec.structs.replace(source, path=folder, digest="spoiled")
    before, after = (open_model(c).logits(TEXTS) for c in (source, spoiled))  # type: ignore[attr-defined]
    np.testing.assert_allclose(after, before, atol=1e-3)

    made = applied(
        MixedPrecision(per_channel=False, quality_loss=0.0, measure="agreement"), spoiled, context
    )
    link = made.lineage[-1]
    assert link.settings["kept_in_float"][0] == name
    assert link.notes["layers"][0] == {
        "layer": name,
        "kl": link.notes["layers"][0]["kl"],
        "kept_in_float": True,
    }
    assert [entry["kl"] for entry in link.notes["layers"]] == sorted(
        (entry["kl"] for entry in link.notes["layers"]), reverse=True
    )
    assert link.notes["quality"] == 1.0
    assert link.notes["search"][0]["quality"] < 1.0
    kinds = [node.op_type for node in onnx.load(str(made.path / "model.onnx")).graph.node]
    assert "MatMul" in kinds
    assert "MatMulInteger" in kinds


def spoil(model: onnx.ModelProto) -> str:
    """Scale one output channel of the pooler's successor up in its weight and back after it."""
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    node = next(
        n
        for n in graph.node
        if n.op_type == "MatMul" and "layer.1/output/dense" in n.name and n.input[1] in tensors
    )
    weight = onnx.numpy_helper.to_array(tensors[node.input[1]]).copy()
    scale = np.ones(weight.shape[1], np.float32)
    scale[0] = 3000.0
    tensors[node.input[1]].CopyFrom(onnx.numpy_helper.from_array(weight * scale, node.input[1]))
    graph.initializer.append(onnx.numpy_helper.from_array(1 / scale, "back"))
    after = f"{node.output[0]}_back"
    for other in graph.node:
        for index, given in enumerate(other.input):
            if given == node.output[0]:
                other.input[index] = after
    position = list(graph.node).index(node)
    graph.node.insert(position + 1, onnx.helper.make_node("Mul", [node.output[0], "back"], [after], "back"))
    return str(node.name)


def test_mixed_precision_that_never_holds_leaves_the_float_model(
    exports: dict[str, Candidate], context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jettison.compress import mixed

    real = mixed.logits_of

    def logits_of(candidate, texts):  # type: ignore[no-untyped-def]
        found = real(candidate, texts)
        return found if candidate.path == exports["fused"].path else -found

    monkeypatch.setattr(mixed, "logits_of", logits_of)
    with pytest.raises(StepFailed, match=r"must lose at most 0.005 of .* at best. The float model stays."):
        applied(MixedPrecision(n_texts=3), exports["fused"], context)


def test_mixed_precision_stops_at_its_deadline(
    exports: dict[str, Candidate], context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no quality is good enough, so the layers would have to be tried
    step = MixedPrecision(n_texts=2)
    monkeypatch.setattr("jettison.compress.mixed._Search._holds", lambda self, tried: False)
    with pytest.raises(StepFailed, match="must end before its deadline"):
        applied(step, exports["fused"], replace(context, deadline=over_once_begun()))


def test_mixed_precision_tries_no_layer_when_all_int8_holds(
    exports: dict[str, Candidate], context: StepContext
) -> None:
    made = applied(MixedPrecision(quality_loss=0.5), exports["fused"], context)
    link = made.lineage[-1]
    assert link.settings["kept_in_float"] == []
    assert link.notes["layers"] == []
    assert [tried["n_kept_in_float"] for tried in link.notes["search"]] == [0]


def test_layers_are_put_back_one_by_one_at_first() -> None:
    assert _growing(1) == []
    assert _growing(3) == [1, 2]
    assert _growing(20) == [1, 2, 3, 4, 6, 9, 13]
