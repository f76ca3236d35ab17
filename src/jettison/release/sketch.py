"""What a reference profile keeps for drift: counts and moments of the inputs and answers, no text.

Words and runs of seven bytes are hashed; what fewer than `FEWEST_HOLDERS` texts hold is not kept. They are
counted on other texts than the scores are, so that a new input of the same kind scores as the
reference does. How common words are in English at large comes with jettison (`loop/english_words.py`).
"""

import math
import re
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

N_WORD_BUCKETS, N_GRAM_BUCKETS = 65_536, 131_072
FEWER_WORD_BUCKETS = 8192
"""Of releases made before, which know no `off_topic`; the words' random directions are as many still."""
RUN_BYTES = {N_GRAM_BUCKETS: 7, 32_768: 5}
"""Length of the runs that a table of so many buckets counts. Releases made before have the smaller one.

Runs of seven tell news from film reviews better than five do (area under the curve 0.84 and 0.78), for a
table three times as large."""
FEWEST_HOLDERS = 2
EMBEDDING = 64
"""Random features of a text's words: their mean stands for the distribution (MMD)."""
MOST_CHARACTERS = 20_000
"""Of a text that are looked at."""
ENGLISH = Path(__file__).with_name("english_words.bin")
"""Log2-scaled counts of English words in so many, hashed, as in `Sketch.word_counts`."""
N_ENGLISH = 1_000_000
RAREST_SHARE = 1e-5
"""Of a word in English: what is rarer, or no word that is known, is taken to be as common as this."""
NEW_SHARE = 3e-6
"""Added to the share of a word in the reference, which may not have it at all."""
_WORDS = re.compile(r"\w+")
SCORE_EDGES: dict[str, tuple[float, ...]] = {
    "length": tuple(round(2 ** (k / 4), 3) for k in range(4, 61)),
    "rare_text": tuple(round(0.125 * k, 3) for k in range(64, 177)),
    "unseen_words": tuple(round(k / 40 + 0.0125, 4) for k in range(40)),
    "capitals": tuple(round(k / 100 + 0.0001, 4) for k in range(40)),
    "punctuation": tuple(round(k / 200 + 0.0001, 4) for k in range(60)),
    "off_topic": tuple(round(3 * math.sinh(k / 25), 3) for k in range(-100, 101)),
    "confidence": tuple(round(1 / (1 + math.exp(-k / 4)), 6) for k in range(-16, 33)),
    "in_scope": tuple(round(k / 64, 6) for k in range(1, 64)),
    "tokens": tuple(round(2 ** (k / 4), 3) for k in range(65)),
}
"""Upper edges of the bins of each score, ascending; what is above the last is in one more bin.

`length`: characters. `rare_text`: mean -log2 of the shares that its runs of seven bytes have in the
reference. `unseen_words`: share of words that the reference has not. `capitals`, `punctuation`: share of
the characters. `off_topic`: log2 of how much more common its words are in English at large than in the
reference, summed over the words, by the root of their number.
`tokens`: of the answer, where the log has them.
"""
TEXT_SCORES = ("length", "rare_text", "unseen_words", "capitals", "punctuation", "off_topic")
FEATURES = (*(f"words {k}" for k in range(EMBEDDING)), *TEXT_SCORES)
"""What `Sketch.features` are the moments of: `embed` of the words, then the scores; the last is missing
where the sketch has no `off_topic`."""
_SCRIPTS = (
    ("latin", 0x0000, 0x024F),
    ("greek", 0x0370, 0x03FF),
    ("cyrillic", 0x0400, 0x052F),
    ("hebrew", 0x0590, 0x05FF),
    ("arabic", 0x0600, 0x077F),
    ("indic", 0x0900, 0x0DFF),
    ("thai", 0x0E00, 0x0E7F),
    ("kana", 0x3040, 0x30FF),
    ("han", 0x3400, 0x9FFF),
    ("hangul", 0xAC00, 0xD7AF),
)


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """Mean and covariance of vectors."""

    n: int
    mean: bytes
    """Float32, shape (n_features,)."""
    covariance: bytes
    """Float32, its upper triangle row by row."""

    @property
    def mean_array(self) -> np.ndarray:
        """Shape (n_features,), float64."""
        return np.frombuffer(self.mean, np.float32).astype(float)

    @property
    def covariance_array(self) -> np.ndarray:
        """Shape (n_features, n_features), float64."""
        size = len(self.mean) // 4
        found = np.zeros((size, size))
        found[np.triu_indices(size)] = np.frombuffer(self.covariance, np.float32)
        return found + np.triu(found, 1).T


class SliceMean(msgspec.Struct, frozen=True, kw_only=True):
    """Mean of the features of the inputs of one slice."""

    n: int
    mean: bytes
    """Float32, shape (n_features,)."""

    @property
    def mean_array(self) -> np.ndarray:
        """Shape (n_features,), float64."""
        return np.frombuffer(self.mean, np.float32).astype(float)


class Sketch(msgspec.Struct, frozen=True, kw_only=True):
    """Distributions of the reference, for drift."""

    n: int
    """Inputs that were scored."""
    word_counts: bytes
    """Log2-scaled counts of hashed words, uint8, shape (N_WORD_BUCKETS,), compressed by zlib; or of
    `FEWER_WORD_BUCKETS`."""
    gram_counts: bytes
    """The same of runs of bytes; its size tells their length (`RUN_BYTES`)."""
    scores: dict[str, tuple[int, ...]]
    """Score → how often it fell in each bin of `SCORE_EDGES`."""
    categories: dict[str, dict[str, int]]
    """`label`, `script`, `language`, `flagged`, `refused`, `error`: how often each value came."""
    slices: dict[str, dict[str, tuple[int, ...]]]
    """Slice as `name=value` → the same scores on it alone."""
    features: Moments | None
    """Of `FEATURES` of each input; None where the inputs were not looked at."""
    slice_features: dict[str, SliceMean] = {}
    """Slice as `name=value` → the same on it alone; none in releases written before there were any."""


def moments_of(vectors: np.ndarray) -> Moments:
    """Mean and covariance of vectors, shape (n, n_features)."""
    size = vectors.shape[1]
    covariance = np.cov(vectors, rowvar=False).reshape(size, size) if len(vectors) > 1 else np.eye(size)
    return Moments(
        n=len(vectors),
        mean=vectors.mean(axis=0).astype(np.float32).tobytes(),
        covariance=covariance[np.triu_indices(size)].astype(np.float32).tobytes(),
    )


def hashed_words(text: str) -> list[int]:
    """Bucket of each word of a text, lower-case, in order."""
    crc = zlib.crc32
    words = _WORDS.findall(text[:MOST_CHARACTERS].lower())
    return [crc(word.encode("utf-8", "surrogatepass")) % N_WORD_BUCKETS for word in words]


def hashed_grams(text: str) -> np.ndarray:
    """Bucket of each run of seven bytes of a text, lower-case, in order, shape (n_runs,)."""
    raw = text[:MOST_CHARACTERS].lower().encode("utf-8", "surrogatepass")
    return _run_buckets(np.frombuffer(raw, np.uint8), N_GRAM_BUCKETS)


def _run_buckets(raw: np.ndarray, n_buckets: int) -> np.ndarray:
    """Bucket of each run of these bytes, of the length that a table of `n_buckets` counts."""
    run = RUN_BYTES[n_buckets]
    one = raw.astype(np.uint32)
    if len(one) < run:
        return np.zeros(0, np.int64)
    n = len(one) - run + 1
    # A polynomial of the bytes, of two, of four, of all: fewer passes than byte by byte.
    base, square = np.uint32(16777619), np.uint32(16777619**2 % 2**32)
    two = one[:-1] * base + one[1:]
    code = two[:-2] * square + two[2:]
    if run == 7:
        code = (code[:n] * square + two[4 : 4 + n]) * base + one[6 : 6 + n]
    else:
        code = code[:n] * base + one[4 : 4 + n]
    code = (code ^ (code >> np.uint32(15))) * np.uint32(2246822519)
    return np.asarray((code ^ (code >> np.uint32(13))) % np.uint32(n_buckets)).astype(np.int64)


def count_table(hashed: Sequence[Sequence[int] | np.ndarray], n_buckets: int) -> bytes:
    """Log2-scaled counts of what at least `FEWEST_HOLDERS` texts hold, compressed, for `TextScorer`."""
    holders, counts = np.zeros(n_buckets, np.int64), np.zeros(n_buckets, np.int64)
    for found in hashed:
        buckets, times = np.unique(np.asarray(found, np.int64), return_counts=True)
        holders[buckets] += 1
        counts[buckets] += times
    counts[holders < FEWEST_HOLDERS] = 0
    return zlib.compress(scaled_counts(counts), 9)


def scaled_counts(counts: np.ndarray) -> bytes:
    """Counts to 9 %, a byte each."""
    return bytes(np.minimum(255, np.round(8 * np.log2(counts + 1))).astype(np.uint8))


class TextScorer:
    """Scores texts against the counts of a reference."""

    def __init__(self, word_counts: bytes, gram_counts: bytes) -> None:
        words = _counts(word_counts, N_WORD_BUCKETS, FEWER_WORD_BUCKETS)
        self._is_new, self._excess = words < 0.5, _excess(words)
        self.names = TEXT_SCORES if self._excess is not None else TEXT_SCORES[:-1]
        """Of the scores, in order."""
        counts = _counts(gram_counts, *RUN_BYTES)
        self._n_buckets = len(counts)
        # What is not in the table shares half a count each, as if it were always about to come.
        self._surprise = -np.log2((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))

    def scores(self, texts: Sequence[str], hashed: Sequence[Sequence[int]]) -> np.ndarray:
        """Of texts with their `hashed_words`, shape (n_texts, len(names)); of each text by itself."""
        found = np.zeros((len(texts), len(self.names)))
        starts = [text[:MOST_CHARACTERS] for text in texts]
        found[:, 0] = [len(text) for text in texts]
        for part in _parts([len(start) for start in starts]):
            found[part, 1] = self._rareness(starts[part])
            found[part, 3:5] = _letters(starts[part])
        n_words = np.array([len(words) for words in hashed], np.int64)
        flat = np.concatenate([np.asarray(words, np.int64) for words in hashed] or [np.zeros(0, np.int64)])
        flat %= len(self._is_new)
        of_text = np.repeat(np.arange(len(texts)), n_words)
        found[:, 2] = np.bincount(of_text, self._is_new[flat], len(texts)) / np.maximum(1, n_words)
        if self._excess is not None:
            found[:, 5] = np.bincount(of_text, self._excess[flat], len(texts)) / np.sqrt(n_words + 1)
        return found

    def _rareness(self, texts: Sequence[str]) -> np.ndarray:
        """Mean surprise of the texts' runs, 0 where they are too short to have one."""
        raw = [text.lower().encode("utf-8", "surrogatepass") for text in texts]
        if not raw:
            return np.zeros(0)
        sizes = np.array([len(one) for one in raw])
        n_runs = np.maximum(0, sizes - RUN_BYTES[self._n_buckets] + 1)
        of_text = np.repeat(np.arange(len(raw)), n_runs)
        # Place of each run in the joined bytes: runs that reach into the next text are left out.
        places = np.arange(n_runs.sum()) + np.repeat(
            np.cumsum(sizes) - sizes - (np.cumsum(n_runs) - n_runs), n_runs
        )
        buckets = _run_buckets(np.frombuffer(b"".join(raw), np.uint8), self._n_buckets)
        means = np.bincount(of_text, self._surprise[buckets[places]], len(raw)) / np.maximum(1, n_runs)
        # A sketch of the smaller table has one bin for all above 16 bits.
        return np.asarray(means if self._n_buckets == N_GRAM_BUCKETS else np.minimum(means, 16.05))


def _parts(sizes: Sequence[int]) -> list[slice]:
    """Consecutive texts of a million characters or so: bounds memory."""
    found, start, total = [], 0, 0
    for place, size in enumerate(sizes):
        total += size
        if total > 1_000_000 or place == len(sizes) - 1:
            found.append(slice(start, place + 1))
            start, total = place + 1, 0
    return found


def _letters(texts: Sequence[str]) -> np.ndarray:
    """Shares of capitals and of punctuation among the characters, shape (n_texts, 2)."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    used, places = np.unique(codes, return_inverse=True)
    letters = [chr(code) for code in used.tolist()]
    is_capital = np.array([letter.isupper() for letter in letters], float)
    is_mark = np.array([not (letter.isalnum() or letter.isspace()) for letter in letters], float)
    sizes = np.array([len(text) for text in texts], np.int64)
    of_text = np.repeat(np.arange(len(texts)), sizes)
    sums = [np.bincount(of_text, values[places], len(texts)) for values in (is_capital, is_mark)]
    return np.asarray(np.stack(sums, axis=1) / np.maximum(1, sizes)[:, None])


def _excess(counts: np.ndarray) -> np.ndarray | None:
    """Of each word log2 of how much more common it is in English than in the reference.

    Rarity asks whether a text is unlike the reference; what it would be like instead is not known. The
    language at large stands for that. None where there are too few buckets.

    Source:
        Moore & Lewis 2010, "Intelligent selection of language model training data".
    """
    if len(counts) != N_WORD_BUCKETS:
        return None
    return np.asarray(np.log2(_english_shares() / (counts / max(1.0, counts.sum()) + NEW_SHARE)))


def is_common_word(word: str) -> bool:
    """Whether a word is one of English with a share of `RAREST_SHARE` at least, or is taken for one by its
    hash, as one in eight of all others is."""
    (bucket,) = hashed_words(word) or (None,)
    return bucket is not None and bool(_english_shares()[bucket] > RAREST_SHARE)


@cache
def _english_shares() -> np.ndarray:
    return np.maximum(_counts(ENGLISH.read_bytes(), N_WORD_BUCKETS) / N_ENGLISH, RAREST_SHARE)


def _counts(table: bytes, *allowed: int) -> np.ndarray:
    raw = np.frombuffer(zlib.decompress(table), np.uint8)
    if len(raw) not in allowed:
        numbers = " or ".join(map(str, allowed))
        raise ValueError(f"a table of counts must hold {numbers} buckets, got {len(raw)}")
    return np.asarray(2 ** (raw.astype(float) / 8) - 1)


def bin_of(score: str, values: Any) -> np.ndarray:
    """Bins of values, shape (n,), by `SCORE_EDGES`."""
    return np.searchsorted(np.asarray(SCORE_EDGES[score]), np.asarray(values, float), side="left")


def binned(score: str, values: Any) -> tuple[int, ...]:
    """How often values fall in each bin."""
    n_bins = len(SCORE_EDGES[score]) + 1
    return tuple(np.bincount(bin_of(score, values), minlength=n_bins).tolist())


def embed(hashed: Sequence[Sequence[int]]) -> np.ndarray:
    """Random Fourier features of the texts' words, shape (n_texts, EMBEDDING).

    A text is the mean of fixed random directions of its words; the distance of two means of features is the
    maximum mean discrepancy with a Gaussian kernel of width 1 on those.

    Source:
        Rahimi & Recht 2007; Gretton et al. 2012, section 3.
    """
    directions, frequencies, phases = _projection()
    texts = _directions_of(hashed, directions)
    return np.asarray(np.sqrt(2 / EMBEDDING) * np.cos(texts @ frequencies + phases))


def script_of(text: str) -> str:
    """The script of most letters of a text: `latin`, `cyrillic`, `han`, ...; `none` without letters."""
    text = text[:1000]
    if text.isascii():
        return "latin" if any(map(str.isalpha, text)) else "none"
    found: dict[str, int] = {}
    for letter in filter(str.isalpha, text):
        code = ord(letter)
        name = next((name for name, low, high in _SCRIPTS if low <= code <= high), "other")
        found[name] = found.get(name, 0) + 1
    return max(found, key=lambda name: found[name]) if found else "none"


def _directions_of(hashed: Sequence[Sequence[int]], directions: np.ndarray) -> np.ndarray:
    """Sum of the directions of each text's words over the root of their number."""
    sizes = np.array([len(words) for words in hashed], np.int64)
    total = np.zeros((len(hashed), directions.shape[1]))
    filled = np.flatnonzero(sizes)
    if len(filled):
        flat = np.concatenate([np.asarray(hashed[place], np.int64) for place in filled.tolist()])
        flat %= len(directions)
        starts = np.cumsum(sizes[filled]) - sizes[filled]
        total[filled] = np.add.reduceat(directions[flat], starts, axis=0)
    return np.asarray(total / np.sqrt(np.maximum(1, sizes))[:, None])


_kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []


def _projection() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same in every process and version: the reference's mean is of these very features."""
    if not _kept:
        rng = np.random.Generator(np.random.Philox(20260101))
        # Sums of uniforms, not `normal`: NumPy keeps the stream of `random`, not that of distributions.
        directions = _bell(rng, (FEWER_WORD_BUCKETS, 32)) / np.sqrt(32)
        _kept.append((directions, _bell(rng, (32, EMBEDDING)), 2 * np.pi * rng.random(EMBEDDING)))
    return _kept[0]


def _bell(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return np.asarray(rng.random((12, *shape)).sum(axis=0) - 6.0)
