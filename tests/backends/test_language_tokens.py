"""A beginning that texts share is read once, and the tokens are those of the whole texts."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from jettison.backends import language_tokens
from jettison.backends.language_tokens import apply_template, encode_sharing
from jettison.errors import InvalidInput
from jettison.task.prompt import Message, Role
from tiny import make_tiny_development

TEXTS = [example.input for example in make_tiny_development(train=100, dev=10, unlabelled=0).train]
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
HEAD = "Label each text, please.\n\nText: play  a song\nLabel: music\n\nText: it's 2024-11-24, wake me!\n"
HEAD += "Label: alarm\n\n<|end|>\nText: the rain… naïve café\n\n   indented\tLabel: weather\n\n"


def trained(kind: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=kind == "metaspace"))
    cuts = {
        "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "gpt2_prefix_space": pre_tokenizers.ByteLevel(add_prefix_space=True),
        "qwen": pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(CL100K), "isolated"),
                pre_tokenizers.ByteLevel(False, use_regex=False),
            ]
        ),
        "metaspace": pre_tokenizers.Metaspace(),
        "uncut": None,
    }[kind]
    if cuts is not None:
        tokenizer.pre_tokenizer = cuts
    if kind == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    if kind == "uncut":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = (
        pre_tokenizers.ByteLevel.alphabet() if cuts is not None else list("abcdefghijklmnopqrstuvwxyz▁")
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS, HEAD], trainer)
    return tokenizer


TOKENIZERS = {kind: trained(kind) for kind in ("gpt2", "gpt2_prefix_space", "qwen", "metaspace", "uncut")}
PIECE = st.sampled_from(
    [" ", "\n", "\n\n", "  ", "a", "Text:", "'s", "é", "\u0301", "12", "<|end|>", "<|", "!", "\t", "日"]
)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(
    head=st.lists(PIECE, max_size=60), tails=st.lists(st.lists(PIECE, max_size=8), min_size=2, max_size=4)
)
@settings(max_examples=150, deadline=None)
def test_ids_are_those_of_the_whole_texts(kind: str, head: list[str], tails: list[list[str]]) -> None:
    tokenizer = TOKENIZERS[kind]
    texts = [HEAD + "".join(head) + "".join(tail) for tail in tails]
    assert encode_sharing(tokenizer, texts) == [
        tokenizer.encode(t, add_special_tokens=False).ids for t in texts
    ]


@pytest.mark.parametrize(("kind", "shares"), [("gpt2", True), ("qwen", True), ("uncut", False)])
def test_a_shared_beginning_is_read_once(kind: str, shares: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(TOKENIZERS[kind], name)

        def encode_batch_fast(self, texts: list[str], **more: Any) -> Any:
            counted.append(sum(map(len, texts)))
            return TOKENIZERS[kind].encode_batch_fast(texts, **more)

    texts = [f"{HEAD}{text}" for text in TEXTS[:50]]
    encode_sharing(Counting(), texts)
    few = sum(map(len, texts)) - 49 * (len(HEAD) - language_tokens.MARGIN - 20)
    assert (counted[-1] < few) is shares
    assert language_tokens._word_cut(TOKENIZERS[kind], "wordwithoutanyendtoitatall" * 10) is None


TEMPLATE = """{% for m in messages %}
{%- if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}
{{- m.content }}|{% endfor %}"""


@pytest.mark.parametrize(
    ("roles", "found"),
    [
        (("user",), "text 0|"),
        (("system", "user", "assistant"), "text 0\n\ntext 1|text 2|"),
        (("user", "user"), "must alternate"),
        (("system", "user", "user"), "must alternate"),
        (("system",), "no system role"),
    ],
)
def test_a_system_message_joins_the_first_question_and_a_refusal_is_our_own_error(
    roles: tuple[Role, ...], found: str
) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS["gpt2"], chat_template=TEMPLATE)
    messages = [Message(role=role, content=f"text {i}") for i, role in enumerate(roles)]
    if found.startswith("text"):
        assert apply_template(tokenizer, messages) == found
    else:
        with pytest.raises(InvalidInput, match=f"chat template refuses the prompt: {found}"):
            apply_template(tokenizer, messages)
