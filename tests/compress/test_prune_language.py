"""Pruning a causal model removes what does least on the task's prompts; a stock class loads the rest."""

from pathlib import Path

import numpy as np
import pytest

from jettison.candidate import Candidate
from jettison.compress.answer_rows import PromptTokens, known_pairs
from jettison.compress.causal import load_causal
from jettison.compress.causal_anatomy import causal_anatomy
from jettison.compress.influence import block_influence, group_sizes, neuron_sizes
from jettison.compress.step import step_from
from jettison.errors import InvalidInput, StepFailed
from jettison.testing import check_step
from language_steps import DATA, TEXTS, apply, as_candidate, context_in, language_candidate, save_changed


def measured(candidate: Candidate, of: object) -> object:
    model = load_causal(candidate)
    tokens = PromptTokens(candidate, 256)
    rows = tokens.rows(known_pairs(DATA.train[:12], DATA.kind))
    return of(model, causal_anatomy(model.config), rows, tokens.pad_id)  # type: ignore[operator]


def idle_block(model: object, number: int) -> None:
    """A block that adds nothing to what it is given."""
    block = model.model.layers[number]  # type: ignore[attr-defined]
    block.self_attn.o_proj.weight.data.zero_()
    block.mlp.down_proj.weight.data.zero_()


def test_the_influence_of_an_identity_block_is_0_and_it_is_the_one_removed(tmp_path: Path) -> None:
    whole = language_candidate(tmp_path / "whole", layers=4)
    idle = save_changed(whole, tmp_path / "idle", lambda model: idle_block(model, 2))
    found = measured(idle, block_influence)
    assert found[2] < 1e-12  # type: ignore[index]
    assert np.delete(found, 2).min() > 1e-3  # type: ignore[arg-type]
    pruned = apply(tmp_path, idle, {"step": "prune_language", "depth": 3})
    applied = pruned.lineage[-1]
    assert applied.settings["kept_layers"] == [0, 1, 3]
    assert abs(applied.notes["divergence"]) < 1e-6
    assert applied.notes["same_token_share"] == 1.0
    assert pruned.settings["n_layers"] == 3


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_a_stock_class_loads_what_is_left_and_says_the_same(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = language_candidate(tmp_path / "whole", kind=kind, layers=3)
    step = {"step": "prune_language", "depth": 2, "width": 0.5, "n_examples": 16}
    pruned = apply(tmp_path, whole, step if kind == "gpt2" else {**step, "groups": 1})
    notes = pruned.lineage[-1].notes
    assert notes["parameters"] < notes["parameters_before"]
    model = AutoModelForCausalLM.from_pretrained(pruned.path).eval()
    assert sum(p.numel() for p in model.parameters()) == notes["parameters"]
    tokenizer = AutoTokenizer.from_pretrained(pruned.path)
    given = tokenizer(TEXTS[0], return_tensors="pt")
    with torch.inference_mode():
        stock = model(**given).logits
        ours = load_causal(pruned)(**given).logits
        model.generate(**given, max_new_tokens=3)  # the cache still numbers its layers rightly
    torch.testing.assert_close(stock, ours)
    if kind != "gpt2":
        assert model.config.num_key_value_heads == 1
        assert model.config.num_attention_heads == 2
        assert model.config.head_dim == 8


def test_neurons_and_groups_that_are_cut_off_count_0_and_leave_without_a_trace(tmp_path: Path) -> None:
    def cut_off(model: object) -> None:
        for block in model.model.layers:  # type: ignore[attr-defined]
            block.mlp.down_proj.weight.data[:, ::2] = 0.0
            block.self_attn.o_proj.weight.data[:, :16] = 0.0  # the first of two groups of two heads

    half = save_changed(language_candidate(tmp_path / "whole"), tmp_path / "half", cut_off)
    for sizes in measured(half, neuron_sizes):  # type: ignore[attr-defined]
        assert (sizes[::2] == 0).all()
        assert (sizes[1::2] > 0).all()
    for sizes in measured(half, group_sizes):  # type: ignore[attr-defined]
        assert sizes[0] == 0.0
        assert sizes[1] > 0
    pruned = apply(tmp_path, half, {"step": "prune_language", "width": 0.5, "groups": 1})
    assert abs(pruned.lineage[-1].notes["divergence"]) < 1e-6
    assert pruned.lineage[-1].settings["neurons"] == 32
    assert pruned.lineage[-1].settings["heads"] == 2


@pytest.mark.parametrize("family", ["Mistral", "Qwen3", "Gemma", "Gemma2", "Granite", "SmolLM3"])
def test_every_family_in_the_table_can_be_cut_and_loaded_again(tmp_path: Path, family: str) -> None:
    import torch
    import transformers

    whole = language_candidate(tmp_path / "whole")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 500, "pad_token_id": 0}
    config = getattr(transformers, f"{family}Config")(**shape, **heads, max_position_embeddings=256)
    other = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name in ("config.json", "generation_config.json", "model.safetensors", "candidate.json"):
        (whole.path / name).unlink()
    other.save_pretrained(whole.path)
    candidate = as_candidate(whole.path)
    step = {"step": "prune_language", "depth": 2, "width": 0.5, "groups": 1, "n_examples": 8}
    pruned = apply(tmp_path, candidate, step)
    stock = transformers.AutoModelForCausalLM.from_pretrained(pruned.path).eval()
    assert sum(p.numel() for p in stock.parameters()) == pruned.lineage[-1].notes["parameters"]
    assert np.isfinite(stock(torch.tensor([[5, 6, 7]])).logits.detach().numpy()).all()


def test_the_step_conforms(tmp_path: Path) -> None:
    whole = language_candidate(tmp_path / "whole")
    step = step_from({"step": "prune_language", "depth": 1, "n_examples": 8})
    check_step(step, whole, context_in(tmp_path, whole), texts=TEXTS[:3])


def test_what_cannot_be_cut_is_said(tmp_path: Path) -> None:
    whole = language_candidate(tmp_path / "whole", kind="gpt2")
    with pytest.raises(InvalidInput, match=r"must have depth, width or groups, got none"):
        apply(tmp_path, whole, {"step": "prune_language"})
    with pytest.raises(InvalidInput, match=r"depth of step 'prune_language' must be under 2 blocks, got 2"):
        apply(tmp_path, whole, {"step": "prune_language", "depth": 2})
    with pytest.raises(StepFailed, match=r"heads of family 'gpt2' cannot leave"):
        apply(tmp_path, whole, {"step": "prune_language", "groups": 1})
