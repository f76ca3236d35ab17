"""Trimming takes out tokens nobody uses, and changes no answer to a text that is cut as before."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jettison.backends.open import open_model
from jettison.backends.text import load_tokenizer
from jettison.candidate import Candidate
from jettison.errors import NotEnoughData
from jettison.task import Development, Example
from tiny import UNUSED, tiny_candidate, tiny_encode
from torch_steps import accuracy, make, trained

TRIM = {"step": "trim_vocabulary"}


def vocabulary(candidate: Candidate) -> dict[str, int]:
    return load_tokenizer(candidate.path / "tokenizer.json").get_vocab()


def logits(candidate: Candidate, texts: list[str]) -> np.ndarray:
    return np.stack([output.logits for output in open_model(candidate).predict(texts)])


def test_unused_words_leave_and_every_answer_stays_the_same(tmp_path: Path) -> None:
    incumbent, development = trained()
    trimmed = make(tmp_path, incumbent, TRIM)
    left = vocabulary(trimmed)
    assert not set(UNUSED) & set(left)
    assert sorted(left.values()) == list(range(len(left)))
    texts = [e.input for e in (*development.train, *development.unlabelled, *development.dev)]
    np.testing.assert_allclose(logits(trimmed, texts), logits(incumbent, texts), atol=1e-6)
    assert trimmed.artifact_bytes < incumbent.artifact_bytes


def test_the_result_is_stock(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    incumbent, development = trained()
    trimmed = make(tmp_path, incumbent, TRIM)
    model = AutoModelForSequenceClassification.from_pretrained(trimmed.path).eval()
    tokenizer = AutoTokenizer.from_pretrained(trimmed.path)
    assert model.config.vocab_size == len(vocabulary(trimmed)) == len(tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id == trimmed.settings["pad_id"]
    text = development.dev[0].input
    with torch.inference_mode():
        stock = model(**tokenizer(text, return_tensors="pt")).logits[0].numpy()
    np.testing.assert_allclose(logits(trimmed, [text])[0], stock, atol=1e-5)


def with_train(development: Development, texts: list[str]) -> Development:
    examples = tuple(Example(id=f"only-{i}", input=text, expected="alarm") for i, text in enumerate(texts))
    return replace(development, train=examples, unlabelled=())


def test_what_unseen_texts_lose_is_measured_on_dev(tmp_path: Path) -> None:
    incumbent, development = trained()
    data = with_train(development, ["show me the weather", "play music"])
    unseen = make(tmp_path, incumbent, TRIM, data=data).lineage[-1].notes["unseen"]
    assert unseen["n_texts"] == 120
    assert unseen["changed_share"] > 0.9
    # A word that left is spelled letter by letter: more tokens, none unknown.
    assert unseen["tokens_per_text"] > 2 * unseen["tokens_per_text_before"]
    assert unseen["unknown_share"] == 0
    bare = make(tmp_path, incumbent, {**TRIM, "keep_characters": False}, data=data)
    assert bare.lineage[-1].notes["unseen"]["unknown_share"] > 0.3


def test_texts_to_keep_and_rare_tokens_are_heeded(tmp_path: Path) -> None:
    incumbent, _ = trained()
    kept = make(tmp_path, incumbent, {**TRIM, "keep": [f"{UNUSED[0]} {UNUSED[3]}"]})
    assert set(UNUSED) & set(vocabulary(kept)) == {UNUSED[0], UNUSED[3]}
    fewer = make(tmp_path, incumbent, {**TRIM, "min_count": 20})
    assert len(vocabulary(fewer)) < len(vocabulary(kept))
    assert accuracy(fewer) > 0.4


def test_without_dev_the_loss_is_unknown_and_not_zero(tmp_path: Path) -> None:
    incumbent, development = trained()
    trimmed = make(tmp_path, incumbent, TRIM, data=replace(development, dev=()))
    assert trimmed.lineage[-1].notes["unseen"] is None


def test_there_must_be_texts(tmp_path: Path) -> None:
    incumbent, development = trained()
    empty = replace(development, train=(), unlabelled=())
    with pytest.raises(NotEnoughData, match=r"'trim_vocabulary' needs train or unlabelled texts, got none"):
        make(tmp_path, incumbent, TRIM, data=empty)


def with_tokenizer(folder: Path, kind: str, texts: list[str]) -> Path:
    """A tiny RoBERTa with random weights and a trained byte-pair or unigram tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import RobertaConfig, RobertaForSequenceClassification

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=66,
        pad_token_id=1,
        num_labels=5,
        initializer_range=0.2,
    )
    RobertaForSequenceClassification(config).eval().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_byte_pair_and_unigram_tokenizers_are_trimmed_as_exactly(tmp_path: Path, kind: str) -> None:
    _, development = trained()
    used = [e.input for e in development.train]
    others = ["zebra quantum xylophone bureaucracy", "the philosophers of antiquity wondered"] * 30
    folder = with_tokenizer(tmp_path / kind, kind, [*used, *others])
    candidate = tiny_candidate(folder, development, pad_id=1)
    trimmed = make(tmp_path, candidate, TRIM, data=with_train(development, used))
    assert len(vocabulary(trimmed)) < len(vocabulary(candidate))
    np.testing.assert_allclose(logits(trimmed, used), logits(candidate, used), atol=1e-5)
    whole = load_tokenizer(candidate.path / "tokenizer.json")
    cut = load_tokenizer(trimmed.path / "tokenizer.json")
    assert [e.tokens for e in whole.encode_batch(used)] == [e.tokens for e in cut.encode_batch(used)]
    assert cut.token_to_id("<pad>") == trimmed.settings["pad_id"]
    ids, _ = tiny_encode(trimmed.path, used[:2])
    assert int(ids.max()) < len(vocabulary(trimmed))
