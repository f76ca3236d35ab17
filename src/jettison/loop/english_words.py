"""Makes the table of how common words are in English at large, which `release/sketch.py` compares with.

    python -m jettison.loop.english_words

From the word list of symspellpy (MIT), counts of 82,765 English words in Google Books Ngram (CC BY 3.0).
Words are kept as the drift sketch keeps them, by a hash and the logarithm of their count, from one in
100,000 up.
"""

import zlib

import numpy as np

from jettison.loop.packages import Package, open_wheel
from jettison.release.sketch import (
    ENGLISH,
    N_ENGLISH,
    N_WORD_BUCKETS,
    RAREST_SHARE,
    hashed_words,
    scaled_counts,
)

LIST = Package(
    requirement="symspellpy==6.10.1",
    sha256="a653a6c125839a21ada87c3e044d690fc3b39872efbd7b7270db3de9471315e1",
)


NAME = "symspellpy/frequency_dictionary_en_82_765.txt"


def english_counts(listed: str) -> bytes:
    """The table, as `Sketch.word_counts` are.

    Args:
        listed: A word and its count a line.
    """
    pairs = [line.split() for line in listed.splitlines()]
    total = sum(int(count) for _, count in pairs)
    counts = np.zeros(N_WORD_BUCKETS)
    for word, count in pairs:
        share = int(count) / total
        if share >= RAREST_SHARE:
            counts[hashed_words(word)] += N_ENGLISH * share
    return zlib.compress(scaled_counts(counts), 9)


if __name__ == "__main__":
    ENGLISH.write_bytes(english_counts(open_wheel(LIST).read(NAME).decode("utf-8-sig")))
