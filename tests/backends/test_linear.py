"""The linear backend adds up the rows that its definition says, whichever path a text takes."""

import itertools
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from jettison.backends import linear
from jettison.backends.linear import WEIGHTS
from jettison.backends.ngrams import character_keys, pair_key, pair_tail, split_words, word_key
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.errors import BrokenArtifact

LABELS = ("a", "b", "c")
WORDS = ["please", "show", "me", "the", "weather", "rain", "flight", "album", "it's", "漢字", "naïve"]
TEXTS = [
    "please show me the weather",
    "",
    "unheard",
    "Weather WEATHER weather!",
    "naïve 漢字",
    "it's",
    "\ud800",
]


def keys_of(text: str) -> list[int]:
    """Keys of all features of a text, by the definition."""
    words = split_words(text)
    keys = [word_key(word) for word in words]
    keys += [pair_key(word_key(a), pair_tail(b)) for a, b in itertools.pairwise(words)]
    return keys + [key for word in words for key in character_keys(word, 3, 5)]


def write_linear(folder: Path, dtype: type = np.float32) -> Candidate:
    """A linear candidate of random weights over a few words."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(5)
    texts = [" ".join(rng.permutation(WORDS)) for _ in range(6)]
    keys = np.array(sorted({key for text in texts for key in keys_of(text)}), np.uint32)
    arrays = {
        "keys": keys,
        "rows": rng.normal(size=(len(keys), len(LABELS))).astype(dtype),
        "mass": rng.uniform(0.5, 4.0, len(keys)).astype(np.float32),
        "bias": rng.normal(size=len(LABELS)).astype(np.float32),
    }
    if dtype is np.int8:
        arrays["rows"] = rng.integers(-127, 128, (len(keys), len(LABELS)), dtype=np.int8)
        arrays["rows_scale"] = rng.uniform(0.001, 0.02, len(keys)).astype(np.float32)
    save_file(arrays, folder / WEIGHTS)
    return write_candidate(
        folder, name="l", backend="linear", labels=LABELS, settings={"characters": [3, 5]}
    )


def by_hand(candidate: Candidate, text: str) -> np.ndarray:
    w = {name: array.astype(np.float64) for name, array in load_file(candidate.path / WEIGHTS).items()}
    place = {int(key): index for index, key in enumerate(w["keys"])}
    rows = w["rows"] * w.get("rows_scale", np.ones(len(w["rows"])))[:, None]
    found = [place[key] for key in keys_of(text) if key in place]
    mass = w["mass"][found].sum()
    return rows[found].sum(0) / np.sqrt(mass if mass else 1.0) + w["bias"]


def test_a_key_is_the_crc_of_what_it_stands_for() -> None:
    assert word_key("123456789") == 0xCBF43926  # the check value of CRC-32
    assert pair_key(word_key("the"), pair_tail("rain")) == zlib.crc32(b"the\0rain")
    # <at> holds two runs of three characters and one of four.
    assert character_keys("at", 3, 5) == [zlib.crc32(b"\1" + gram) for gram in (b"<at", b"at>", b"<at>")]
    assert len(character_keys("x" * 10_000, 3, 3)) == 64
    # Runs of characters, not of bytes, and half of a surrogate pair is one.
    runs = ("<né".encode(), "né>".encode(), "<né>".encode())
    assert character_keys("né", 3, 5) == [zlib.crc32(b"\1" + run) for run in runs]
    assert character_keys("\ud800", 3, 3) == [zlib.crc32(b"\1<\xed\xa0\x80>")]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_logits_are_those_of_the_definition(tmp_path: Path, dtype: type) -> None:
    candidate = write_linear(tmp_path, dtype)
    model = open_model(candidate)
    wanted = np.stack([by_hand(candidate, text) for text in TEXTS])
    np.testing.assert_allclose(model.logits(TEXTS), wanted, atol=2e-5)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(model.logits([text])[0], wanted[row], atol=2e-5)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return write_linear(tmp_path_factory.mktemp("linear"))


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(
        st.one_of(st.text(max_size=30), st.lists(st.sampled_from(WORDS)).map(" ".join)), min_size=2
    )
)
def test_one_text_and_many_give_the_same_row(candidate: Candidate, texts: list[str]) -> None:
    model = open_model(candidate)
    together = model.logits(texts)
    alone = np.concatenate([model.logits([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together[0], by_hand(candidate, texts[0]), atol=2e-5)


def test_memory_is_bounded_and_answers_do_not_change(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "_CAPACITY", 8)
    model = open_model(candidate)
    rng = np.random.default_rng(0)
    texts = [" ".join([*rng.choice(WORDS, 6), f"weather{n}", f"new{n}"]) for n in range(40)]
    wanted = np.stack([by_hand(candidate, text) for text in texts])
    np.testing.assert_allclose(model.logits(texts), wanted, atol=2e-5)
    np.testing.assert_allclose([model.logits([t])[0] for t in texts], wanted, atol=2e-5)
    assert len(model._ngrams._seen._words) < 8 + 20
    assert len(model.logits(["word " * 100_000, "rain"])) == 2


def test_threads_may_share_a_model(candidate: Candidate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_CAPACITY", 12)
    model = open_model(candidate)
    rng = np.random.default_rng(1)
    texts = [" ".join([*rng.choice(WORDS, 5), f"rain{n}"]) for n in range(200)]
    wanted = {text: by_hand(candidate, text) for text in texts}
    wrong: list[str] = []

    def ask(order: np.ndarray) -> None:
        for index in order:
            if not np.allclose(model.logits([texts[index]])[0], wanted[texts[index]], atol=1e-4):
                wrong.append(texts[index])

    threads = [threading.Thread(target=ask, args=(rng.permutation(200),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    candidate = write_linear(tmp_path)
    arrays = load_file(candidate.path / WEIGHTS)
    save_file({**arrays, "mass": arrays["mass"][:-1].copy()}, candidate.path / WEIGHTS)
    with pytest.raises(BrokenArtifact, match=r"mass in .* must have shape \(\d+,\), got \(\d+,\)"):
        open_model(candidate)
    save_file({**arrays, "rows": arrays["rows"].astype(np.int8)}, candidate.path / WEIGHTS)
    with pytest.raises(BrokenArtifact, match=r"rows_scale in .* must have shape \(\d+,\), got None"):
        open_model(candidate)
