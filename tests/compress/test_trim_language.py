"""A trimmed causal model says the same of every answer whose tokens are left."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jettison.backends.open import open_model
from jettison.backends.text import load_tokenizer
from jettison.candidate import Candidate
from jettison.compress.step import step_from
from jettison.task import Example
from jettison.testing import check_step
from language_steps import DATA, TEXTS, apply, context_in, language_candidate
from tiny import UNUSED

STEP = {"step": "trim_vocabulary"}


def odds(candidate: Candidate, texts: list[str]) -> np.ndarray:
    """Log-odds of the labels against the first; the lump of tokens that left is in none of them."""
    logits = np.stack([output.logits for output in open_model(candidate).predict(texts)])
    return np.asarray(logits - logits[:, :1])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_answers_stay_the_same_and_the_table_shrinks(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # A tokenizer that has seen more than the task ever says.
    rare = " ".join(UNUSED)
    more = [Example(id=e.id, input=f"{e.input} {rare}", expected=e.expected) for e in DATA.train]
    wide = replace(DATA, train=tuple(more))
    whole = language_candidate(tmp_path / "whole", wide, kind=kind)
    trimmed = apply(tmp_path, whole, STEP)
    notes = trimmed.lineage[-1].notes
    assert notes["tokens"] < notes["tokens_before"]
    assert notes["unseen"]["n_texts"] > 0
    assert "llama.cpp" in notes["warning"]
    model = AutoModelForCausalLM.from_pretrained(trimmed.path).eval()
    tokenizer = AutoTokenizer.from_pretrained(trimmed.path)
    assert model.config.vocab_size == notes["tokens"]
    assert load_tokenizer(trimmed.path / "tokenizer.json").get_vocab_size() == notes["tokens"]
    assert model.get_output_embeddings().weight.shape[0] == notes["tokens"]
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        assert getattr(model.generation_config, name, None) in (None, getattr(tokenizer, name))
    assert model.config.eos_token_id == tokenizer.eos_token_id
    # Next-token logits of the tokens left are exactly what they were.
    text = TEXTS[0]
    before = AutoModelForCausalLM.from_pretrained(whole.path).eval()
    old = load_tokenizer(whole.path / "tokenizer.json")
    new = load_tokenizer(trimmed.path / "tokenizer.json")
    ids_old, ids_new = old.encode(text), new.encode(text)
    assert ids_old.tokens == ids_new.tokens
    with torch.inference_mode():
        a = before(torch.tensor([ids_old.ids])).logits[0, -1].numpy()
        b = model(torch.tensor([ids_new.ids])).logits[0, -1].numpy()
    kept = [(i, old.token_to_id(token)) for token, i in new.get_vocab().items()]
    np.testing.assert_allclose([b[i] for i, _ in kept], [a[j] for _, j in kept], atol=1e-5)
    # One-token differences between labels aside, their order is the same.
    assert (odds(trimmed, TEXTS).argmax(1) == odds(whole, TEXTS).argmax(1)).mean() > 0.9


def test_the_step_conforms(tmp_path: Path) -> None:
    whole = language_candidate(tmp_path / "whole")
    check_step(step_from(STEP), whole, context_in(tmp_path, whole), texts=TEXTS[:3])
