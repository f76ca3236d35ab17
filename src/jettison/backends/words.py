"""Token ids of a text by looking its words up, exactly as the tokenizer itself gives them.

A BERT tokenizer cuts ASCII text into words and punctuation marks and then works on each by
itself, so that the ids of a word seen before need not be computed again. Whatever is not
provably so (accents, other scripts, added tokens, other kinds of tokenizer) is handed to the
tokenizer.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from jettison.errors import InvalidInput

_MAX_WORD_CHARS = 100
"""Longer words are not kept: hostile traffic must not fill the memory."""


class WordIds:
    """Token ids of texts, special tokens left out.

    Args:
        tokenizer: A `tokenizers.Tokenizer` without truncation and padding.
        on_new: Called with the ids of a word before it is first used from the cache, and with
            all ids of a text that the tokenizer itself had to encode.
        capacity: Words kept.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        on_new: Callable[[Sequence[int]], None] | None = None,
        capacity: int = 65_536,
    ) -> None:
        self._encode = tokenizer.encode
        self._on_new = on_new or (lambda ids: None)
        self._capacity = capacity
        self._known: dict[str, tuple[int, ...]] = {}
        self._lowercase, self._split, self._stops = _word_rules(tokenizer)

    def __call__(self, text: str, limit: int | None = None) -> list[int]:
        """Ids of one text, the first `limit` of them."""
        if self._split is None or not text.isascii() or not text.isprintable() or self._has_added(text):
            ids: list[int] = self._encode(without_surrogates(text), add_special_tokens=False).ids[:limit]
            self._on_new(ids)
            return ids
        known = self._known
        found: list[int] = []
        for word in self._split(text.lower() if self._lowercase else text):
            found += known.get(word) or self._learn(word)
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    def _has_added(self, text: str) -> bool:
        """Whether a character that begins an added token such as `[MASK]` is in the text."""
        for stop in self._stops:  # noqa: SIM110 - a generator takes longer than the search
            if stop in text:
                return True
        return False

    def _learn(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._encode(word, add_special_tokens=False).ids)
        self._on_new(ids)
        if len(self._known) < self._capacity and len(word) <= _MAX_WORD_CHARS:
            self._known[word] = ids
        return ids


class FramedIds:
    """Token ids of whole texts as a model reads them: special tokens around them, cut to a length.

    Where the words of a text may be looked up, one at a time costs a tenth of what the tokenizer takes.

    Args:
        tokenizer: A `tokenizers.Tokenizer`, which is set to this length and to no padding.
        max_tokens: Of a text, special tokens included.
        side: Where a longer text is cut: `right`, or `left`, which leaves its end.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, *, side: str = "right") -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        # Words are looked up from the first on, which is not what is read of a text cut on the left.
        frame = _frame(tokenizer) if side == "right" else None
        tokenizer.enable_truncation(max_length=max_tokens, direction=side)
        self._tokenizer = tokenizer
        self._words: WordIds | None = None
        if frame is not None:
            self._before, self._after = frame
            self._limit = max_tokens - len(self._before) - len(self._after)
            if self._limit > 0:
                # Words are cut to `max_tokens` too, which is more than is read of the text.
                self._words = WordIds(tokenizer)

    def __call__(self, text: str) -> list[int]:
        """Ids of one text.

        Raises:
            InvalidInput: It is no text.
        """
        if self._words is None or not isinstance(text, str):
            return self.of_many([text])[0]
        return [*self._before, *self._words(text, self._limit), *self._after]

    def of_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text.

        Raises:
            InvalidInput: One is no text.
        """
        try:
            if len(texts) == 1:
                return [self._tokenizer.encode(texts[0]).ids]
            return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        except TypeError:  # not text, or half of a surrogate pair in it
            whole = [without_surrogates(text) for text in texts]
            return [encoding.ids for encoding in self._tokenizer.encode_batch(whole)]


def without_surrogates(text: str) -> str:
    """The text with `?` for each half of a surrogate pair, which no encoding can hold.

    Raises:
        InvalidInput: It is no text at all.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"inputs must be text, got {type(text).__name__}.")
    return text.encode("utf-8", "replace").decode()


def _frame(tokenizer: Any) -> tuple[list[int], list[int]] | None:
    """Special tokens before and after every text; None where words are not looked up or that is not all."""
    from tokenizers.processors import BertProcessing, TemplateProcessing

    if _word_rules(tokenizer)[1] is None:
        return None
    if tokenizer.post_processor is None:
        return [], []
    if not isinstance(tokenizer.post_processor, BertProcessing | TemplateProcessing):
        return None
    ids = tokenizer.encode("a").ids
    own = tokenizer.encode("a", add_special_tokens=False).ids
    if len(own) != 1 or ids.count(own[0]) != 1:
        return None
    place = ids.index(own[0])
    return ids[:place], ids[place + 1 :]


def _word_rules(tokenizer: Any) -> tuple[bool, Callable[[str], list[str]] | None, tuple[str, ...]]:
    """How ASCII text falls into words: lowercased or not, by what, and which characters forbid it.

    Source: `BertPreTokenizer` drops white space and isolates each punctuation mark;
    `BertNormalizer` changes nothing else in printable ASCII text.
    """
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer = tokenizer.normalizer
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    stops = tuple(sorted({content[0] for content in added if content}))
    plain = (
        isinstance(normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(tokenizer.model, WordPiece)
        and not any(stop.isalnum() or stop.isspace() for stop in stops)
    )
    if not plain:
        return False, None, ()
    return bool(normalizer.lowercase), re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9\s]").findall, stops
