"""Looked-up token ids of whole texts are the tokenizer's own, special tokens and cut included."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from jettison.backends.words import FramedIds
from jettison.errors import InvalidInput
from tiny import write_tiny_tokenizer

TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(max_codepoint=127), max_size=80),
    st.lists(
        st.sampled_from(
            ["the", "Weather", "rain,", "zor9", "it's", "[MASK]", "[CLS]", "é", "漢字", "\t", "a"]
        ),
        max_size=12,
    ).map(" ".join),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("tokenizer")
    write_tiny_tokenizer(folder)
    return (folder / "tokenizer.json").read_text()


def own_ids(tokenizer: Any, text: str, max_tokens: int) -> list[int]:
    """What the tokenizer gives by itself."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=max_tokens)
    return list(tokenizer.encode(text.encode("utf-8", "replace").decode()).ids)


def framed_by(name: str) -> Any:
    """Another way of putting special tokens around a text, over the tiny vocabulary."""
    cls, sep = ("[CLS]", 2), ("[SEP]", 3)
    match name:
        case "none":
            return None
        case "bert":
            return processors.BertProcessing(sep, cls)
        case "two before":
            return processors.TemplateProcessing(single="[CLS] [SEP] $A [SEP]", special_tokens=[cls, sep])
        case "twice":
            return processors.TemplateProcessing(single="[CLS] $A [SEP] $A", special_tokens=[cls, sep])
    raise AssertionError(name)


@settings(max_examples=150, deadline=None)
@given(text=TEXTS, max_tokens=st.integers(2, 24))
def test_ids_of_one_text_are_the_tokenizers(made: str, text: str, max_tokens: int) -> None:
    wanted = own_ids(Tokenizer.from_str(made), text, max_tokens)
    ids = FramedIds(Tokenizer.from_str(made), max_tokens)
    assert ids(text) == wanted
    assert ids(text) == wanted, "from the cache"
    assert ids.of_many([text, text]) == [wanted, wanted]


@settings(max_examples=30, deadline=None)
@given(text=TEXTS, max_tokens=st.integers(4, 12))
@pytest.mark.parametrize("name", ["none", "bert", "two before", "twice"])
def test_ids_follow_other_special_tokens(made: str, name: str, text: str, max_tokens: int) -> None:
    reference, looked_up = Tokenizer.from_str(made), Tokenizer.from_str(made)
    if name == "none":
        stripped = made[: made.index('"post_processor"')]
        rest = made[made.index('"decoder"') :]
        reference, looked_up = (Tokenizer.from_str(f'{stripped}"post_processor":null,{rest}') for _ in "ab")
        assert looked_up.post_processor is None
    else:
        reference.post_processor = looked_up.post_processor = framed_by(name)
    assert FramedIds(looked_up, max_tokens)(text) == own_ids(reference, text, max_tokens)


def test_a_bert_tokenizer_is_not_asked_twice_for_the_words_of_a_text(made: str) -> None:
    ids = FramedIds(Tokenizer.from_str(made), 16)
    ids("the weather today")
    assert ids._words is not None
    assert set(ids._words._known) == {"the", "weather", "today"}


def test_words_are_not_looked_up_where_a_template_repeats_the_text(made: str) -> None:
    tokenizer = Tokenizer.from_str(made)
    tokenizer.post_processor = framed_by("twice")
    assert FramedIds(tokenizer, 16)._words is None


@settings(max_examples=30, deadline=None)
@given(text=TEXTS)
def test_ids_of_a_byte_level_tokenizer_are_its_own(text: str) -> None:
    def fresh() -> Any:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.normalizer = normalizers.NFC()
        return tokenizer

    assert FramedIds(fresh(), 20)(text) == own_ids(fresh(), text, 20)


@pytest.mark.parametrize("wrong", [None, 3, b"the weather"])
def test_what_is_no_text_is_refused(made: str, wrong: Any) -> None:
    ids = FramedIds(Tokenizer.from_str(made), 16)
    with pytest.raises(InvalidInput, match="inputs must be text, got"):
        ids(wrong)
    with pytest.raises(InvalidInput, match="inputs must be text, got"):
        ids.of_many([wrong, "the"])
