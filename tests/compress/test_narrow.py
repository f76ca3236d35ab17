"""Narrowing takes neurons away and refits the rest so that the layers give what they gave."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from clocks import over_once_begun
from jettison.backends.hf import load_torch
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.compress.anatomy import NEURONS_LEAVE, anatomy_of, layers_of
from jettison.compress.checkpoint import save_torch
from jettison.compress.checkpoint_facts import loses_parts
from jettison.compress.narrow import drawn_answers, most_needed
from jettison.compress.prune import keep_neurons
from jettison.compress.refit import Cut, Waiting, refit
from jettison.compress.training import pad_rows, predict_rows, tokenize
from jettison.errors import InvalidInput, NotEnoughData, StepFailed
from jettison.task import Development
from tiny import make_tiny_bert, make_tiny_development, tiny_candidate
from torch_steps import accuracy, make, trained


def logits(candidate: Candidate, development: Development) -> np.ndarray:
    texts = [example.input for example in development.dev]
    return np.stack([output.logits for output in open_model(candidate).predict(texts)])


def test_a_stock_class_loads_it_and_it_answers_nearer_than_pruned_alone(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    incumbent, development = trained()
    narrow = make(tmp_path, incumbent, {"step": "narrow", "width": 0.5})
    pruned = make(tmp_path, incumbent, {"step": "prune", "width": 0.5})
    stock, loading = AutoModelForSequenceClassification.from_pretrained(
        narrow.path, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert stock.config.intermediate_size == narrow.lineage[-1].settings["neurons"] == 32
    wanted = logits(incumbent, development)
    off = [float(np.abs(logits(c, development) - wanted).mean()) for c in (narrow, pruned)]
    assert off[0] < 0.5 * off[1]
    assert accuracy(narrow) >= accuracy(incumbent) - 0.02
    notes = narrow.lineage[-1].notes
    assert notes["parameters"] < notes["parameters_before"]
    assert len(notes["unexplained_share"]) == 4
    assert all(0 <= share < 0.2 for share in notes["unexplained_share"])


def test_what_left_is_taken_over_by_those_that_fire_alike() -> None:
    """Neuron i + 32 fires as neuron i does. Without the second half, the first must give A + B."""
    import torch

    incumbent, development = trained()
    whole, module = load_torch(incumbent).float(), load_torch(incumbent).float()
    for one in (whole, module):
        layer = one.body.encoder.layer[1]
        with torch.no_grad():
            layer.intermediate.dense.weight[32:] = layer.intermediate.dense.weight[:32]
            layer.intermediate.dense.bias[32:] = layer.intermediate.dense.bias[:32]
    ids = tokenize(incumbent.path, [example.input for example in development.train], 64)
    batch = pad_rows(ids, 0)
    anatomy = anatomy_of(module.config)
    cut = Cut(1, partial(keep_neurons, anatomy=anatomy, kept=np.arange(32)), anatomy.down, anatomy.after)
    cut.make(module.body.encoder.layer[1])
    with torch.no_grad():
        wanted, without = whole(*batch), module(*batch)
    left = refit(*(Waiting(one, anatomy, [batch]) for one in (whole, module)), cut, 1e-9)
    with torch.no_grad():
        refitted = module(*batch)
    assert left < 1e-6
    assert float((wanted - without).abs().max()) > 0.05
    np.testing.assert_allclose(refitted, wanted, atol=2e-3)


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("DistilBert", {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2}),
        ("MPNet", {}),
        ("ModernBert", {}),
        ("DebertaV2", {}),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_goes_around_the_neurons_is_found_in_every_family(
    tmp_path: Path, family: str, extra: dict[str, int]
) -> None:
    """Nothing is left unexplained where the neurons that leave had no weight out."""
    import torch
    import transformers

    development = make_tiny_development(train=40, dev=12, unlabelled=8)
    folder = make_tiny_bert(tmp_path / "tiny", development.labels)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 2}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=200, max_position_embeddings=64, pad_token_id=0, bos_token_id=2, eos_token_id=3,
        cls_token_id=2, sep_token_id=3, num_labels=5, **(extra or shape),
    )  # fmt: skip
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        body = model.base_model
        anatomy = anatomy_of(config)
        for layer in body.get_submodule(anatomy.layers):
            layer.get_submodule(anatomy.down).weight[:, ::2] = 0.0
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    candidate = tiny_candidate(folder, development)
    narrow = make(tmp_path, candidate, {"step": "narrow", "width": 0.5})
    assert len(layers_of(load_torch(narrow), anatomy)) == 2
    assert_looks_alike(candidate, development, follows=True)
    np.testing.assert_allclose(logits(narrow, development), logits(candidate, development), atol=2e-3)
    assert max(narrow.lineage[-1].notes["unexplained_share"]) < 1e-4


def test_it_is_the_same_twice_and_reads_no_more_tokens_than_it_may(tmp_path: Path) -> None:
    incumbent, _ = trained()
    step = {"step": "narrow", "width": 0.5, "n_tokens": 200}
    once, again = (make(tmp_path / name, incumbent, step) for name in ("a", "b"))
    assert once.digest == again.digest
    assert 10 < once.lineage[-1].notes["n_texts"] < 100


def test_what_cannot_be_narrowed_is_said(tmp_path: Path) -> None:
    incumbent, _ = trained()
    with pytest.raises(InvalidInput, match=r"step 'narrow': Expected `float` < 1.0"):
        make(tmp_path, incumbent, {"step": "narrow", "width": 1.0})
    with pytest.raises(InvalidInput, match=r"width of step 'narrow' must leave out some of the 64 neurons"):
        make(tmp_path, incumbent, {"step": "narrow", "width": 0.8})
    with pytest.raises(InvalidInput, match=r"some of the 64 neurons of a layer, got 0.99, which keeps all"):
        make(tmp_path, incumbent, {"step": "narrow", "width": 0.99, "uneven": True})
    with pytest.raises(InvalidInput, match=r"some of the 4 heads in each of 4 layers, got 0.99, which"):
        make(tmp_path, incumbent, {"step": "narrow", "heads": 0.99})
    with pytest.raises(StepFailed, match=r"must refit 4 maps before the deadline, got 0. Allow it more"):
        make(tmp_path, incumbent, {"step": "narrow"}, deadline=over_once_begun())
    folder = tmp_path / "fake"
    folder.mkdir()
    fake = write_candidate(folder, name="f", backend="fake", labels=["a", "b"])
    with pytest.raises(StepFailed, match=r"step 'narrow' must start from a candidate of backend 'hf'"):
        make(tmp_path, fake, {"step": "narrow"})


def test_no_label_is_needed_to_choose_and_refit(tmp_path: Path) -> None:
    incumbent, development = trained()
    bare = tuple(msgspec.structs.replace(example, expected=None) for example in development.train)
    data = replace(development, train=(), unlabelled=(*bare, *development.unlabelled))
    narrow = make(tmp_path, incumbent, {"step": "narrow", "width": 0.5}, data=data)
    assert accuracy(narrow) >= accuracy(incumbent) - 0.02
    with pytest.raises(NotEnoughData, match="step 'narrow' needs train or unlabelled texts, got none"):
        make(tmp_path, incumbent, {"step": "narrow"}, data=replace(development, train=(), unlabelled=()))


def test_answers_are_drawn_as_likely_as_the_model_finds_them() -> None:
    logits = np.log(np.tile([0.2, 0.7, 0.1], (20_000, 1)))
    drawn = drawn_answers(logits, seed=0)
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / len(drawn), [0.2, 0.7, 0.1], atol=0.01)
    np.testing.assert_array_equal(drawn_answers(logits, seed=0), drawn)
    sure = np.array([[0.0, 50.0], [50.0, 0.0]], np.float32)
    assert drawn_answers(sure, seed=3).tolist() == [1, 0]


def test_heads_leave_the_export_and_the_rest_is_refitted(tmp_path: Path) -> None:
    """A stock class loads the rest; training leaves heads silent, and the graph is without them."""
    import onnx
    from transformers import AutoModelForSequenceClassification

    incumbent, development = trained()
    step = {"step": "narrow", "width": 0.75, "heads": 0.5}
    narrow = make(tmp_path, incumbent, step)
    stock = AutoModelForSequenceClassification.from_pretrained(narrow.path)
    anatomy = anatomy_of(stock.config)
    assert anatomy.heads is not None
    healed = make(tmp_path, narrow, {"step": "distill", "epochs": 1, "hidden_weight": 1.0})
    n_heads = stock.config.num_attention_heads
    for candidate in (narrow, healed):
        n_left = []
        for layer in layers_of(load_torch(candidate), anatomy):
            out = layer.get_submodule(anatomy.heads.out).weight
            n_left.append(sum(bool(part.any()) for part in out.chunk(n_heads, dim=1)))
        assert sum(n_left) == 4 * n_heads // 2
        assert min(n_left) >= 1
        exported = make(tmp_path, candidate, {"step": "export"})
        nodes = onnx.load(str(exported.path / "model.onnx")).graph.node
        left = [a.i for node in nodes for a in node.attribute if a.name == "num_heads"]
        assert left == n_left
        lean = make(tmp_path, exported, {"step": "quantize", "method": "dynamic"})
        assert accuracy(lean) >= accuracy(candidate) - 0.05
    assert len(narrow.lineage[-1].notes["unexplained_share"]) == 8
    assert accuracy(narrow) >= accuracy(incumbent) - 0.05
    wanted = logits(incumbent, development)
    silenced = load_torch(incumbent).float()
    for layer, other in zip(
        layers_of(silenced, anatomy), layers_of(load_torch(narrow), anatomy), strict=True
    ):
        kept = other.get_submodule(anatomy.heads.out).weight.abs().sum(0) > 0
        out = layer.get_submodule(anatomy.heads.out)
        out.weight.data *= kept
    ids = tokenize(incumbent.path, [example.input for example in development.dev], 64)
    off = float(np.abs(predict_rows(silenced, ids, 0) - wanted).mean())
    assert np.abs(logits(narrow, development) - wanted).mean() < 0.7 * off


def test_what_no_export_takes_out_is_refused(tmp_path: Path) -> None:
    from transformers import MPNetConfig, MPNetForSequenceClassification

    development = make_tiny_development(train=20, dev=12, unlabelled=8)
    folder = make_tiny_bert(tmp_path / "tiny", development.labels)
    config = MPNetConfig(
        hidden_size=32, num_hidden_layers=1, intermediate_size=64, num_attention_heads=2, vocab_size=200,
        max_position_embeddings=64, num_labels=5,
    )  # fmt: skip
    (folder / "model.safetensors").unlink()
    MPNetForSequenceClassification(config).save_pretrained(folder)
    candidate = tiny_candidate(folder, development)
    assert not loses_parts(candidate)
    for setting in ({"heads": 0.5}, {"uneven": True}):
        with pytest.raises(
            StepFailed, match="must have neither heads nor uneven for a model of family 'mpnet'"
        ):
            make(tmp_path, candidate, {"step": "narrow", **setting})
    assert loses_parts(trained()[0])


def test_the_most_needed_are_kept_of_all_layers_and_one_of_each() -> None:
    importance = np.array([[5.0, 4.0, 3.0], [0.1, 0.2, 0.3], [6.0, 0.5, 0.4]])
    kept = most_needed(importance, 5 / 9)
    assert kept.tolist() == [[True, True, True], [False, False, True], [True, False, False]]
    assert most_needed(importance, 0.01).sum(axis=1).tolist() == [1, 1, 1]
    assert most_needed(np.ones((2, 4)), 0.5).tolist() == [
        [True, True, True, False],
        [True, False, False, False],
    ]


def test_layers_keep_what_they_need_and_the_rest_leaves_the_export(tmp_path: Path) -> None:
    """As many neurons in all as with even layers; a stock class loads them, and training adds none."""
    import onnx
    from transformers import AutoModelForSequenceClassification

    incumbent, _ = trained()
    module = load_torch(incumbent).float()
    anatomy = anatomy_of(module.config)
    # Nothing reads half of the neurons of the last layer, so that the others need them more.
    with torch.no_grad():
        layers_of(module, anatomy)[3].get_submodule(anatomy.down).weight[:, 32:] = 0.0
    lopsided = tiny_candidate(copied(incumbent, tmp_path / "lopsided"), trained()[1])
    save_torch(module, lopsided.path, source=lopsided.path)
    narrow = make(tmp_path, lopsided, {"step": "narrow", "width": 0.75, "uneven": True})
    notes = narrow.lineage[-1].notes
    counts = notes["neurons_by_layer"]
    assert counts[3] == 32
    assert max(counts) == 64
    assert all(count % 32 == 0 for count in counts)
    stock = AutoModelForSequenceClassification.from_pretrained(narrow.path)
    assert stock.config.intermediate_size == 64
    healed = make(tmp_path, narrow, {"step": "distill", "epochs": 1, "hidden_weight": 1.0})
    for candidate in (narrow, healed):
        exported = make(tmp_path, candidate, {"step": "export"})
        graph = onnx.load(str(exported.path / "model.onnx")).graph
        shapes = {tuple(t.dims) for t in graph.initializer}
        assert (32, 32) in shapes
        assert exported.lineage[-1].notes["neurons_left"] == [count for count in counts if count < 64]
        found, wanted = (
            open_model(c).logits([e.input for e in trained()[1].dev])  # type: ignore[attr-defined]
            for c in (exported, candidate)
        )
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def with_dead_neurons(folder: Path, activation: str) -> Candidate:
    """A tiny BERT of one layer, the second half of whose 64 neurons has no weights."""
    development = make_tiny_development(train=20, dev=12, unlabelled=8)
    make_tiny_bert(folder, development.labels, layers=1)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "hidden_act": activation}))
    candidate = tiny_candidate(folder, development)
    module = load_torch(candidate).float()
    (layer,) = layers_of(module, anatomy_of(module.config))
    with torch.no_grad():
        for tensor in (layer.intermediate.dense.weight, layer.intermediate.dense.bias):
            tensor[32:] = 0.0
        layer.output.dense.weight[:, 32:] = 0.0
    save_torch(module, folder, source=folder)
    return tiny_candidate(folder, development)


@pytest.mark.parametrize("activation", sorted(NEURONS_LEAVE))
def test_neurons_without_weights_leave_the_export_past_every_activation_named(
    tmp_path: Path, activation: str
) -> None:
    candidate = with_dead_neurons(tmp_path / "model", activation)
    assert loses_parts(candidate)
    exported = make(tmp_path, candidate, {"step": "export"})
    assert exported.lineage[-1].notes["neurons_left"] == [32]
    assert "kept_without_weights" not in exported.lineage[-1].notes
    assert exported.lineage[-1].notes["parity"]["max_abs_difference"] < 1e-4


@pytest.mark.parametrize("export", [{}, {"method": "plain"}, {"target": "openvino"}])
def test_what_has_no_weights_and_stays_is_noted(tmp_path: Path, export: dict[str, str]) -> None:
    candidate = with_dead_neurons(tmp_path / "model", "mish")
    exported = make(tmp_path, candidate, {"step": "export", **export})
    assert exported.lineage[-1].notes["kept_without_weights"] == {"neurons": 32}
    heads = make(tmp_path, trained()[0], {"step": "narrow", "width": 0.5, "heads": 0.5})
    exported = make(tmp_path, heads, {"step": "export", **export})
    assert exported.lineage[-1].notes.get("kept_without_weights") == ({"heads": 8} if export else None)


def test_neurons_that_would_stay_in_the_export_do_not_leave_unevenly(tmp_path: Path) -> None:
    candidate = with_dead_neurons(tmp_path / "model", "mish")
    assert not loses_parts(candidate)
    with pytest.raises(StepFailed, match=r"must not be uneven for a model of activation 'mish'"):
        make(tmp_path, candidate, {"step": "narrow", "uneven": True})


def copied(candidate: Candidate, folder: Path) -> Path:
    """A copy of a candidate's checkpoint."""
    shutil.copytree(candidate.path, folder)
    (folder / "candidate.json").unlink(missing_ok=True)
    return folder


def test_layers_that_do_not_simply_follow_each_other_are_looked_at_from_the_tokens_on(
    tmp_path: Path,
) -> None:
    """A convolution of the tokens is added to what the first layer gives."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    development = make_tiny_development(train=20, dev=12, unlabelled=8)
    folder = make_tiny_bert(tmp_path / "tiny", development.labels)
    config = DebertaV2Config(
        hidden_size=32, num_hidden_layers=3, intermediate_size=64, num_attention_heads=2, vocab_size=200,
        max_position_embeddings=64, num_labels=5, conv_kernel_size=3, conv_act="gelu",
    )  # fmt: skip
    (folder / "model.safetensors").unlink()
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    assert_looks_alike(tiny_candidate(folder, development), development, follows=False)


def assert_looks_alike(candidate: Candidate, development: Development, *, follows: bool) -> None:
    """Texts that wait before the last layer give what they give on their way from the tokens."""
    module = load_torch(candidate).float()
    anatomy = anatomy_of(module.config)
    ids = tokenize(candidate.path, [example.input for example in development.train], 64)
    batches = [pad_rows(ids[:8], 0), pad_rows(ids[8:20], 0)]
    waiting, anew = Waiting(module, anatomy, batches), Waiting(module, anatomy, batches)
    assert waiting._follow is follows
    anew._follow = False
    last = len(waiting.layers) - 1
    cut = Cut(last, lambda _: None, anatomy.down, anatomy.after)
    with torch.no_grad():
        looks = [list(one.look(cut)) for one in (waiting, anew)]
        for one, other in zip(*looks, strict=True):
            for found, wanted in zip(one, other, strict=True):
                np.testing.assert_allclose(found, wanted, atol=1e-6)
