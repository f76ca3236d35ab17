"""Every export answers as the checkpoint does, on texts of every length; what does not is refused."""

import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

from jettison.backends.hf import HEAD, load_torch, open_hf
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.compress import export as export_module
from jettison.compress.checkpoint_facts import max_tokens, read_config
from jettison.compress.export import Export, write_encoder_graph
from jettison.compress.parity import check_parity, probes
from jettison.compress.step import StepContext, apply_step
from jettison.errors import InvalidInput, MissingExtra, ParityFailed, StepFailed
from tiny import make_tiny_bert, make_tiny_development, tiny_candidate, write_tiny_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
DATA = make_tiny_development(train=0, dev=40, unlabelled=0)
TEXTS = [example.input for example in DATA.dev]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = tmp_path_factory.mktemp("hf") / "tiny"
    return tiny_candidate(make_tiny_bert(folder, DATA.labels, layers=2, seed=2), DATA)


@pytest.fixture
def context(checkpoint: Candidate, tmp_path: Path) -> StepContext:
    return StepContext(data=DATA, incumbent=checkpoint, folder=tmp_path, workspace=tmp_path)


def pooled_candidate(folder: Path, **settings: object) -> Candidate:
    """The encoder of a tiny BERT with a random linear head beside it."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertModel

    make_tiny_bert(folder, DATA.labels, layers=2)
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    torch.manual_seed(0)
    save_file({"weight": torch.randn(5, 32), "bias": torch.randn(5)}, folder / HEAD)
    return tiny_candidate(folder, DATA, **settings)


@pytest.mark.parametrize(
    "step",
    [
        Export(method="fused"),
        Export(method="plain"),
        pytest.param(Export(method="transformers"), marks=pytest.mark.slow),
        Export(target="openvino"),
        pytest.param(Export(target="openvino", method="transformers"), marks=pytest.mark.slow),
    ],
    ids=lambda step: f"{step.target} {step.method}",
)
def test_an_export_answers_as_the_checkpoint(
    step: Export, checkpoint: Candidate, context: StepContext
) -> None:
    made = apply_step(step, checkpoint, context, cache=context.folder / "cache")
    for texts in (TEXTS, TEXTS[:1], [""], ["a"], [" ".join(TEXTS)], [TEXTS[0], " ".join(TEXTS), ""]):
        wanted, found = open_hf(checkpoint).logits(texts), open_model(made).logits(texts)  # type: ignore[attr-defined]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    parity = made.lineage[-1].notes["parity"]
    assert parity["max_abs_difference"] < 1e-5
    assert parity["n_texts"] >= 12
    assert made.backend == step.target
    assert {"dtype", "pooling"}.isdisjoint(made.settings)


def test_auto_fuses_attention_and_leaves_token_types_out(
    checkpoint: Candidate, context: StepContext
) -> None:
    made = apply_step(Export(), checkpoint, context, cache=context.folder / "cache")
    link = made.lineage[-1]
    assert link.settings["method"] == "fused"
    assert link.notes["fused_nodes"]["Attention"] == 2
    assert "failed_methods" not in link.notes
    graph = onnx.load(str(made.path / "model.onnx")).graph
    assert [value.name for value in graph.input] == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_encoder_with_a_head_exports_whole(target: str, pooling: str, tmp_path: Path) -> None:
    candidate = pooled_candidate(tmp_path / "pooled", pooling=pooling, normalize=pooling == "mean")
    context = StepContext(data=DATA, incumbent=candidate, folder=tmp_path, workspace=tmp_path)
    made = apply_step(Export(target=target), candidate, context, cache=tmp_path / "cache")  # type: ignore[arg-type]
    wanted, found = open_hf(candidate).logits(TEXTS), open_model(made).logits(TEXTS)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert "pooling" not in made.settings


def test_other_families_export_with_their_own_padding(tmp_path: Path) -> None:
    """RoBERTa counts positions from the padding id on, which is 1 here; DistilBERT has no token types."""
    from transformers import (
        DistilBertConfig,
        DistilBertForSequenceClassification,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    size = {"num_labels": 5, "initializer_range": 0.2}
    roberta = RobertaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, pad_token_id=1, type_vocab_size=1, vocab_size=250, **size,
    )  # fmt: skip
    distil = DistilBertConfig(
        dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=40, vocab_size=250, **size
    )
    models = {
        "roberta": RobertaForSequenceClassification(roberta),
        "distilbert": DistilBertForSequenceClassification(distil),
    }
    for name, model in models.items():
        folder = tmp_path / name
        write_tiny_tokenizer(folder)
        model.eval().save_pretrained(folder)
        candidate = write_candidate(
            folder,
            name=name,
            backend="hf",
            labels=DATA.labels,
            settings={"pad_id": 1} if name == "roberta" else {},
        )
        context = StepContext(data=DATA, incumbent=candidate, folder=tmp_path, workspace=tmp_path)
        made = apply_step(Export(), candidate, context, cache=tmp_path / "cache")
        assert made.settings["pad_id"] == (1 if name == "roberta" else 0)
        assert made.settings["max_tokens"] == (38 if name == "roberta" else 40)
        assert made.lineage[-1].notes["parity"]["max_abs_difference"] < 1e-5
        assert made.lineage[-1].settings["method"] in ("fused", "plain")


@pytest.mark.parametrize("family", ["mpnet", "camembert"])
def test_families_that_count_from_the_padding_id_read_and_export_what_has_positions(
    family: str, tmp_path: Path
) -> None:
    """40 positions, the first of which belongs to padding id + 1 = 2: 38 tokens have one."""
    import transformers

    kind = {"mpnet": "MPNet", "camembert": "Camembert"}[family]
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=40, pad_token_id=1, type_vocab_size=1, vocab_size=250, num_labels=5,
    )  # fmt: skip
    folder = tmp_path / family
    write_tiny_tokenizer(folder)
    getattr(transformers, f"{kind}ForSequenceClassification")(config).eval().save_pretrained(folder)
    n_tokens = max_tokens(folder, read_config(folder))
    assert n_tokens == 38
    candidate = write_candidate(
        folder,
        name=family,
        backend="hf",
        labels=DATA.labels,
        settings={"max_tokens": n_tokens, "pad_id": 1},
    )
    context = StepContext(data=DATA, incumbent=candidate, folder=tmp_path, workspace=tmp_path)
    for given in (candidate, msgspec.structs.replace(candidate, settings={})):
        made = apply_step(Export(), given, context, cache=tmp_path / "cache")
        assert made.settings["max_tokens"] == 38
        model = open_model(made)
        assert model.predict(["balance " * 100])[0].error is None
        model.close()


def test_a_model_left_in_train_mode_is_exported_without_dropout(
    checkpoint: Candidate, tmp_path: Path
) -> None:
    """The exporter puts a module back into the mode it came in; the reference must not carry dropout."""
    import torch

    module = load_torch(checkpoint).train()
    sample = export_module._sample(checkpoint)
    with export_module.quiet_converters():
        export_module._trace(module, sample, tmp_path / "model.onnx", 17)
    assert not module.training
    assert not any(part.training for part in module.modules())
    with torch.inference_mode():
        once, again = module(**sample), module(**sample)
    assert torch.equal(once, again)


def test_the_traced_sample_is_padded(checkpoint: Candidate) -> None:
    mask = export_module._sample(checkpoint)["attention_mask"]
    assert mask.shape[0] == 2
    assert int(mask.min()) == 0


def test_a_file_that_answers_otherwise_is_refused(
    checkpoint: Candidate, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(module, sample, path, opset):  # type: ignore[no-untyped-def]
        import torch

        with torch.no_grad():
            module.model.classifier.bias += 0.5
        trace(module, sample, path, opset)

    trace = export_module._trace
    monkeypatch.setattr(export_module, "_trace", spoiled)
    with pytest.raises(
        ParityFailed, match=r"fused: logits of the converted model must be within .* 0.5 on"
    ):
        apply_step(Export(method="fused"), checkpoint, context, cache=context.folder / "cache")
    assert list((context.folder / "cache").iterdir()) == []


def test_auto_goes_on_to_the_next_method_and_says_so(
    checkpoint: Candidate, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(module, sample, folder, opset):  # type: ignore[no-untyped-def]
        raise RuntimeError("no such pattern")

    monkeypatch.setattr(export_module, "_write_fused", broken)
    made = apply_step(Export(), checkpoint, context, cache=context.folder / "cache")
    assert made.lineage[-1].settings["method"] == "plain"
    assert made.lineage[-1].notes["failed_methods"] == {"fused": "RuntimeError: no such pattern"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_ends_the_export_and_no_other_method_is_tried(
    checkpoint: Candidate, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted(module, sample, path, opset):  # type: ignore[no-untyped-def]
        traced.append(path)
        trace(module, sample, path, opset)

    traced: list[Path] = []
    trace = export_module._trace
    monkeypatch.setattr(export_module, "_trace", counted)
    (context.folder / "model.onnx").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        Export().make(checkpoint, context)
    module = load_torch(checkpoint).float()
    with pytest.raises(OSError, match="No space left on device"):
        write_encoder_graph(module, checkpoint, context.folder)
    assert len(traced) == 2


def test_what_cannot_be_exported_is_named(
    checkpoint: Candidate, context: StepContext, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"must start from backend 'hf' .* got 'fake'"):
        Export().make(msgspec.structs.replace(checkpoint, backend="fake"), context)
    pooled = pooled_candidate(tmp_path / "pooled")
    with pytest.raises(
        StepFailed, match="transformers: method 'transformers' must have a stock checkpoint"
    ):
        apply_step(Export(method="transformers"), pooled, context, cache=tmp_path / "cache")


def test_an_export_prints_nothing(
    checkpoint: Candidate, context: StepContext, capfd: pytest.CaptureFixture[str]
) -> None:
    apply_step(Export(), checkpoint, context, cache=context.folder / "cache")
    apply_step(Export(target="openvino"), checkpoint, context, cache=context.folder / "cache")
    sys.stdout.flush()
    assert capfd.readouterr() == ("", "")


class Fixed:
    """Logits that are a given function of the text's length."""

    def __init__(self, function) -> None:  # type: ignore[no-untyped-def]
        self.function = function

    def logits(self, inputs):  # type: ignore[no-untyped-def]
        return np.array([[self.function(len(text)), 0.0] for text in inputs], np.float32)


def test_parity_is_relative_to_the_largest_logit_and_names_the_probe() -> None:
    batches = {"short": ["ab"], "long": ["x" * 100]}
    reference = Fixed(lambda n: float(n))
    # 0.05 off at a largest logit of 100 is 5e-4 of it
    found = check_parity(reference, Fixed(lambda n: n + 0.05 * (n == 100)), batches, tolerance=1e-3)
    assert found["worst_probe"] == "long"
    assert found["max_abs_difference"] == pytest.approx(0.05, abs=1e-5)
    with pytest.raises(
        ParityFailed, match=r"must be within 0.1 of the original's, got a difference of 0.2 on short"
    ):
        check_parity(reference, Fixed(lambda n: n + 0.2 * (n == 2)), batches, tolerance=1e-3)
    with pytest.raises(ParityFailed, match="must give finite logits, got nan or inf on short"):
        check_parity(reference, Fixed(lambda n: np.nan), batches, tolerance=1e-3)


def test_probes_cover_padded_short_long_single_and_empty(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)
    found = probes(tmp_path / "tokenizer.json")
    assert found == probes(tmp_path / "tokenizer.json")
    lengths = {name: [len(text) for text in texts] for name, texts in found.items()}
    assert lengths["one empty text"] == [0]
    assert lengths["one text longer than the model reads"][0] > 10_000
    assert len(set(lengths["a padded batch"])) > 4


def test_a_library_that_was_pulled_down_is_named(
    checkpoint: Candidate, context: StepContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jettison.compress import versions

    real = versions.version
    monkeypatch.setattr(versions, "version", lambda name: "5.3.0" if name == "transformers" else real(name))
    said = r"`transformers` must be .*>=5.23.*, got 5.3.0. .* `pip install 'jettison\[torch\]'`"
    with pytest.raises(MissingExtra, match=said):
        apply_step(Export(), checkpoint, context, cache=context.folder / "cache")
    versions.check_versions("onnx", "openvino")
