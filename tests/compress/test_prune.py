"""Pruning removes what the answers need least, and a stock class loads the rest."""

from pathlib import Path

import numpy as np
import pytest

from jettison.backends.hf import load_torch
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.compress.anatomy import anatomy_of, layers_of
from jettison.compress.importance import layers_to_keep, neuron_importance
from jettison.compress.prune import MULTIPLE
from jettison.compress.training import Rows
from jettison.errors import InvalidInput, StepFailed
from tiny import make_tiny_bert, make_tiny_development, tiny_candidate, tiny_encode
from torch_steps import accuracy, make, trained


def rows_of(candidate: Candidate, n: int = 24) -> Rows:
    _, development = trained()
    part = development.train[:n]
    ids, mask = tiny_encode(candidate.path, [e.input for e in part])
    lengths = mask.sum(1).tolist()
    return Rows(
        ids=[row[:length] for row, length in zip(ids.tolist(), lengths, strict=True)],
        targets=np.array([candidate.labels.index(str(e.expected)) for e in part]),
    )


def silent(message: str, share: float | None = None) -> None:
    pass


def test_a_stock_class_loads_the_pruned_checkpoint_and_answers_the_same(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    incumbent, development = trained()
    pruned = make(tmp_path, incumbent, {"step": "prune", "depth": 2, "width": 0.5})
    stock, loading = AutoModelForSequenceClassification.from_pretrained(
        pruned.path, output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert (stock.config.num_hidden_layers, stock.config.intermediate_size) == (2, 32)
    texts = [e.input for e in development.dev]
    ids, mask = tiny_encode(pruned.path, texts)
    with torch.inference_mode():
        expected = stock.eval()(ids, attention_mask=mask).logits.numpy()
    ours = np.stack([o.logits for o in open_model(pruned).predict(texts)])
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert pruned.artifact_bytes < incumbent.artifact_bytes
    assert pruned.settings["n_layers"] == 2


def test_layers_that_do_nothing_go_first(tmp_path: Path) -> None:
    import torch

    incumbent, _ = trained()
    module = load_torch(incumbent)
    layers = layers_of(module, anatomy_of(module.config))
    with torch.no_grad():
        # Post-norm layers repeat their input when both branches add nothing and the input is normed.
        for number in (1, 2):
            for branch in (layers[number].attention.output, layers[number].output):
                branch.dense.weight.zero_()
                branch.dense.bias.zero_()
                branch.LayerNorm.weight.fill_(1.0)
                branch.LayerNorm.bias.zero_()
        layers[0].output.LayerNorm.weight.fill_(1.0)
        layers[0].output.LayerNorm.bias.zero_()
    kept, removals = layers_to_keep(module, anatomy_of(module.config), 2, rows_of(incumbent), 0, silent)
    assert kept == [0, 3]
    assert {r.layer for r in removals} == {1, 2}
    assert all(r.divergence < 1e-6 for r in removals)
    assert len(layers_of(module, anatomy_of(module.config))) == 4


def test_a_neuron_whose_output_is_cut_off_has_no_importance() -> None:
    import torch

    incumbent, _ = trained()
    module = load_torch(incumbent)
    anatomy = anatomy_of(module.config)
    with torch.no_grad():
        layers_of(module, anatomy)[1].output.dense.weight[:, 7] = 0.0
    importance = neuron_importance(module, anatomy, rows_of(incumbent), 0)
    assert [scores.shape for scores in importance] == [(64,)] * 4
    assert importance[1][7] == 0.0
    assert (importance[1] > 0).sum() > 32


def test_removing_cut_off_neurons_changes_nothing(tmp_path: Path) -> None:
    import torch

    incumbent, development = trained()
    module = load_torch(incumbent)
    with torch.no_grad():
        for layer in module.body.encoder.layer:
            layer.output.dense.weight[:, ::2] = 0.0
    module.model.save_pretrained(tmp_path / "half")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "half" / name).write_bytes((incumbent.path / name).read_bytes())
    half = tiny_candidate(tmp_path / "half", development)
    pruned = make(tmp_path, half, {"step": "prune", "width": 0.5})
    texts = [e.input for e in development.dev]
    before = np.stack([o.logits for o in open_model(half).predict(texts)])
    after = np.stack([o.logits for o in open_model(pruned).predict(texts)])
    np.testing.assert_allclose(after, before, atol=1e-5)
    assert pruned.lineage[-1].notes["divergence"] < 1e-9
    assert pruned.lineage[-1].settings["neurons"] == MULTIPLE


def test_notes_say_what_went_and_what_it_cost(tmp_path: Path) -> None:
    incumbent, _ = trained()
    applied = make(tmp_path, incumbent, {"step": "prune", "depth": 3}).lineage[-1]
    assert len(applied.settings["kept_layers"]) == 3
    assert applied.notes["parameters"] < applied.notes["parameters_before"]
    assert 0 <= applied.notes["same_answer_share"] <= 1
    (removed,) = applied.notes["removed_layers"]
    assert removed["layer"] not in applied.settings["kept_layers"]


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("DistilBert", {"dim": 32, "hidden_dim": 64, "n_layers": 3, "n_heads": 2}),
        ("Roberta", {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64}),
        ("Electra", {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64}),
        ("MPNet", {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64}),
        ("ModernBert", {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64}),
        ("DebertaV2", {"hidden_size": 32, "num_hidden_layers": 3, "intermediate_size": 64}),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_family_in_the_table_can_be_cut_and_loaded_again(
    tmp_path: Path, family: str, extra: dict[str, int]
) -> None:
    import torch
    import transformers

    development = make_tiny_development()
    folder = make_tiny_bert(tmp_path / "tiny", development.labels)
    torch.manual_seed(0)
    heads = {} if family == "DistilBert" else {"num_attention_heads": 2}
    config = getattr(transformers, f"{family}Config")(
        vocab_size=200,
        max_position_embeddings=64,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
        num_labels=5,
        **heads,
        **extra,
    )
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    candidate = tiny_candidate(folder, development)
    pruned = make(tmp_path, candidate, {"step": "prune", "depth": 2, "width": 0.5, "n_examples": 16})
    texts = [e.input for e in development.dev[:8]]
    ids, mask = tiny_encode(pruned.path, texts)
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(pruned.path).eval()
    with torch.inference_mode():
        expected = stock(ids, attention_mask=mask).logits.numpy()
    ours = np.stack([o.logits for o in open_model(pruned).predict(texts)])
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    assert pruned.lineage[-1].notes["parameters"] < pruned.lineage[-1].notes["parameters_before"]


def test_depth_must_be_under_what_there_is(tmp_path: Path) -> None:
    incumbent, _ = trained()
    with pytest.raises(InvalidInput, match=r"depth of step 'prune' must be under 4 layers, got 4"):
        make(tmp_path, incumbent, {"step": "prune", "depth": 4})
    with pytest.raises(InvalidInput, match=r"must have a depth or a width, got neither"):
        make(tmp_path, incumbent, {"step": "prune"})
    for width in (0.8, 1.0):  # 0.8 * 64 = 51, and the next multiple of 32 is 64
        with pytest.raises(InvalidInput, match=rf"some of the 64 neurons of a layer, got {width:g}, which"):
            make(tmp_path, incumbent, {"step": "prune", "width": width})
    with pytest.raises(InvalidInput, match=r"step 'prune': Expected `float` <= 1.0"):
        make(tmp_path, incumbent, {"step": "prune", "width": 1.5})


def test_only_torch_checkpoints_can_be_pruned(tmp_path: Path) -> None:
    folder = tmp_path / "fake"
    folder.mkdir()
    fake = write_candidate(folder, name="f", backend="fake", labels=["a", "b"])
    with pytest.raises(StepFailed, match=r"must start from a candidate of backend 'hf', got 'fake'"):
        make(tmp_path, fake, {"step": "prune", "depth": 1})


def test_pruning_twice_gives_the_same_files(tmp_path: Path) -> None:
    incumbent, _ = trained()
    step = {"step": "prune", "depth": 2, "width": 0.5}
    assert make(tmp_path / "a", incumbent, step).digest == make(tmp_path / "b", incumbent, step).digest
    assert accuracy(make(tmp_path / "a", incumbent, step)) > 0.2


def test_a_model_without_layers_is_said(tmp_path: Path) -> None:
    development = make_tiny_development(train=20, dev=12, unlabelled=8)
    candidate = tiny_candidate(make_tiny_bert(tmp_path / "tiny", development.labels, layers=0), development)
    for step in ({"step": "prune", "width": 0.5}, {"step": "narrow"}):
        with pytest.raises(
            StepFailed, match=r"num_hidden_layers of the model must be at least 1 .*, got 0"
        ):
            make(tmp_path, candidate, step)
