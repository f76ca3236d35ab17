"""New texts from old ones, without labels: what a student may ask its teacher about."""

from collections.abc import Sequence

import numpy as np

MAX_WORDS = 32
KINDS = ("cross_at_shared_word", "cross_anywhere", "drop_and_swap", "cross_same_label")


def augment(
    texts: Sequence[str], n: int, *, seed: int, labels: Sequence[str | None] | None = None
) -> list[str]:
    """Up to n new texts, all different and none among the given, the same for the same seed.

    Half are crossed with another text (the head of one, the tail of the other), at a word that
    both share where there is one; with labels, a part of those keeps to one label. The rest
    lose and swap words. What comes out is seldom grammar, and need not be: the teacher labels it.

    Args:
        texts: Train and unlabelled inputs, whitespace-separated words.
        n: How many to make; fewer come where the texts are too few or too short.
        seed: Of the draws.
        labels: Label of each text where known; None crosses without regard to it.
    """
    rng = np.random.default_rng(seed)
    words = [text.split() for text in texts]
    usable = [i for i, w in enumerate(words) if len(w) >= 2]
    if not usable:
        return []
    holders = _holders(words, usable)
    same = _same_label(labels, usable)
    seen = {" ".join(w).casefold() for w in words}
    chances = (0.3, 0.15, 0.2, 0.35) if same else (0.5, 0.25, 0.25, 0.0)
    made: list[str] = []
    for _ in range(8 * n):
        if len(made) >= n:
            break
        first = usable[int(rng.integers(len(usable)))]
        kind = KINDS[int(rng.choice(len(KINDS), p=chances))]
        if kind == "drop_and_swap":
            new = _drop_and_swap(words[first], rng)
        elif kind == "cross_at_shared_word":
            new = _cross_at_shared_word(words, first, holders, rng)
        else:
            others = same[first] if kind == "cross_same_label" and first in same else usable
            new = _cross(words[first], words[others[int(rng.integers(len(others)))]], rng)
        text = " ".join(new)
        if new and len(new) <= MAX_WORDS and text.casefold() not in seen:
            seen.add(text.casefold())
            made.append(text)
    return made


def _holders(words: list[list[str]], usable: list[int]) -> dict[str, list[tuple[int, int]]]:
    """Where each word stands: text and place."""
    found: dict[str, list[tuple[int, int]]] = {}
    for i in usable:
        for place, word in enumerate(words[i]):
            found.setdefault(word.casefold(), []).append((i, place))
    return found


def _same_label(labels: Sequence[str | None] | None, usable: list[int]) -> dict[int, list[int]]:
    """For each labelled text, the texts of its label."""
    if labels is None:
        return {}
    by_label: dict[str, list[int]] = {}
    for i in usable:
        if (label := labels[i]) is not None:
            by_label.setdefault(label, []).append(i)
    return {i: members for members in by_label.values() for i in members}


def _cross_at_shared_word(
    words: list[list[str]], first: int, holders: dict[str, list[tuple[int, int]]], rng: np.random.Generator
) -> list[str]:
    place = int(rng.integers(len(words[first])))
    options = holders[words[first][place].casefold()]
    other, there = options[int(rng.integers(len(options)))]
    return words[first][:place] + words[other][there:]


def _cross(head: list[str], tail: list[str], rng: np.random.Generator) -> list[str]:
    return head[: int(rng.integers(1, len(head) + 1))] + tail[int(rng.integers(0, len(tail))) :]


def _drop_and_swap(words: list[str], rng: np.random.Generator) -> list[str]:
    kept = [word for word, draw in zip(words, rng.random(len(words)), strict=True) if draw > 0.2]
    if len(kept) > 2 and rng.random() < 0.3:
        place = int(rng.integers(len(kept) - 1))
        kept[place], kept[place + 1] = kept[place + 1], kept[place]
    return kept
