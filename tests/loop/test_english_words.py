"""The table of English words: what it is made of, and what ships."""

import zlib

import numpy as np

from jettison.loop.english_words import english_counts
from jettison.release.sketch import ENGLISH, N_WORD_BUCKETS, hashed_words


def test_words_are_kept_from_one_in_a_hundred_thousand_up_by_their_logarithm() -> None:
    table = np.frombuffer(zlib.decompress(english_counts("the 749995\ncard 250000\nzyzzyva 5")), np.uint8)
    # 8 log2(749,996) = 156.13 and 8 log2(250,001) = 143.45; five in a million is too rare.
    assert [int(table[hashed_words(word)[0]]) for word in ("the", "card", "zyzzyva")] == [156, 143, 0]
    assert (table > 0).sum() == 2


def test_what_ships_is_english() -> None:
    table = np.frombuffer(zlib.decompress(ENGLISH.read_bytes()), np.uint8)
    assert len(table) == N_WORD_BUCKETS
    the, government, card, unknown = (int(table[hashed_words(word)[0]]) for word in
                                      ("the", "government", "card", "zyzzyva"))  # fmt: skip
    assert the > government > card > unknown == 0
    assert 8000 < (table > 0).sum() < 9000
