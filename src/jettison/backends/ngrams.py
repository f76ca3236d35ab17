"""Words, word pairs and character n-grams of a text as 32-bit keys, the same on every machine.

A key is a CRC-32: of the word; of `left \\0 right` for a pair; of `\\1 gram` for a run of
characters of `<word>`. Two of 100,000 features share a key about once; no text is kept.
"""

import re
import zlib

_WORDS = re.compile(r"\w+|[^\w\s]")
MOST_WORDS = 4096
"""Of a text, that are read."""
MOST_CHARACTERS = 64
"""Of a word, whose n-grams are read; longer ones are no language."""
_RUN = zlib.crc32(b"\1")
"""Where the key of a run of characters begins."""


def split_words(text: str) -> list[str]:
    """Lower-case words and punctuation marks, in order, the first 4,096."""
    return _WORDS.findall(text.lower())[:MOST_WORDS]


def word_key(word: str) -> int:
    """Key of a word."""
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def pair_tail(word: str) -> bytes:
    """What `pair_key` needs to know of the second word."""
    return b"\0" + word.encode("utf-8", "surrogatepass")


def pair_key(left_key: int, right_tail: bytes) -> int:
    """Key of two words that follow each other: the CRC-32 of the first reads on over the second."""
    return zlib.crc32(right_tail, left_key)


def character_keys(word: str, shortest: int, longest: int) -> list[int]:
    """Keys of the runs of `shortest` to `longest` characters of `<word>`, repetitions included."""
    framed = f"<{word[:MOST_CHARACTERS]}>"
    sizes = range(shortest, longest + 1)
    if framed.isascii():  # a character is a byte, and need not be encoded each time
        raw, crc32 = framed.encode(), zlib.crc32
        return [
            crc32(raw[start : start + size], _RUN) for size in sizes for start in range(len(raw) - size + 1)
        ]
    return [
        zlib.crc32(framed[start : start + size].encode("utf-8", "surrogatepass"), _RUN)
        for size in sizes
        for start in range(len(framed) - size + 1)
    ]
