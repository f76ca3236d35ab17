"""Small changes to a text that leave its right answer as it is, each a function of text and generator.

A perturbation gives the changed text, or None where it does not apply. It never touches `kept` words:
those of an answer that must be found in the text. Contractions, number words and distractors are
English; the rest works on any script that it finds letters in.

Source: the kinds follow Ribeiro et al. 2020 (CheckList), Wang et al. 2021 (TextFlint) and Moradi &
Samwald 2021; keyboard neighbors are those of a QWERTY layout.
"""

import re
from collections.abc import Callable
from datetime import date

import numpy as np

from jettison.release.sketch import is_common_word

Perturbation = Callable[[str, np.random.Generator, frozenset[str]], str | None]

WORDS_PER_TYPO = 8
LEAST_LETTERS = 4
"""Shorter words may become another word by one slip."""
LONG_WORDS = 20
"""A text must have so many words before its end is cut."""
_NEIGHBORS = {
    "q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij",
    "i": "uok", "o": "ipl", "p": "ol", "a": "qsz", "s": "adwx", "d": "sfec", "f": "dgrv",
    "g": "fhtb", "h": "gjyn", "j": "hkum", "k": "jli", "l": "ko", "z": "xa", "x": "zcs",
    "c": "xvd", "v": "cbf", "b": "vng", "n": "bmh", "m": "nj",
}  # fmt: skip
_LOOKALIKES = dict(zip("aceiopxyABCEHKMOPTX", "асеіорхуАВСЕНКМОРТХ", strict=True))
_CONTRACTIONS = {
    "do not": "don't", "does not": "doesn't", "did not": "didn't", "can not": "can't", "cannot": "can't",
    "could not": "couldn't", "would not": "wouldn't", "should not": "shouldn't", "is not": "isn't",
    "are not": "aren't", "was not": "wasn't", "will not": "won't", "have not": "haven't",
    "has not": "hasn't",
    "i am": "i'm", "i have": "i've", "i will": "i'll", "what is": "what's", "that is": "that's",
    "it is": "it's", "how is": "how's", "where is": "where's", "who is": "who's", "let us": "let's",
    "you are": "you're", "we are": "we're", "they are": "they're",
}  # fmt: skip
_EXPANSIONS = {short: long for long, short in _CONTRACTIONS.items() if long != "can not"}
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six",
    "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_PREFIXES = ("Hi there, ", "Hello! ", "Good morning. ", "Quick question: ", "Sorry to bother you, ")
_SUFFIXES = (" Thanks in advance!", " Sent from my phone.", " Thank you.", " Have a nice day.", " Cheers")


def typos(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """One keyboard slip for every eight words: a neighbor key, a letter swapped, dropped or doubled."""
    spots = [
        m
        for m in re.finditer(r"[^\W\d_]+", text)
        if len(m[0]) >= LEAST_LETTERS and m[0].casefold() not in kept
    ]
    if not spots:
        return None
    n = min(len(spots), max(1, len(text.split()) // WORDS_PER_TYPO))
    for i in sorted(rng.choice(len(spots), n, replace=False).tolist(), reverse=True):
        found = spots[i]
        text = text[: found.start()] + slip(found[0], rng) + text[found.end() :]
    return text


def slip(word: str, rng: np.random.Generator) -> str:
    """A word of at least four letters with one slip inside it; its first letter stays.

    A slip that makes another common English word is passed over: `date` is never `dare`.
    """
    for _ in range(16):
        at = int(rng.integers(1, len(word) - 1))
        kind = int(rng.integers(4))
        near = _NEIGHBORS.get(word[at].lower())
        if kind == 0 and near:
            made = word[:at] + near[int(rng.integers(len(near)))] + word[at + 1 :]
        elif kind == 1:
            made = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        elif kind == 2:
            made = word[:at] + word[at + 1 :]
        else:
            made = word[:at] + word[at] + word[at:]
        if made != word and not is_common_word(made):
            return made
    return word[0] + word[1:].replace(word[1], word[1] * 2, 1)


def casing(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """All upper, all lower, or Each Word Capital."""
    forms = [f for f in (text.upper(), text.lower(), text.title()) if f != text] if not kept else []
    return forms[int(rng.integers(len(forms)))] if forms else None


def spacing(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """Doubled spaces, and white space around the whole."""
    gaps = [m.start() for m in re.finditer(r"(?<=\S) (?=\S)", text)]
    if not gaps:
        return None
    for at in sorted(rng.choice(gaps, max(1, len(gaps) // 3), replace=False).tolist(), reverse=True):
        text = text[:at] + "  " + text[at:]
    return f" {text} " if rng.integers(2) else text


def punctuation(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """The mark at the end dropped, changed or added, and commas left out. A question stays one."""
    bare = re.sub(r"[.!\s]+$", "", text)
    if not bare:
        return None
    ends = ["", ".", "...", "!"] if not bare.endswith("?") else ["", "?"]
    made = bare + ends[int(rng.integers(len(ends)))]
    if rng.integers(2):
        made = re.sub(r",(?=\s)", "", made)
    return made if made != text else bare + "!!" if not bare.endswith("?") else f"{bare}?"


def contractions(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """English contractions drawn together or written out."""
    del rng
    for pairs in (_CONTRACTIONS, _EXPANSIONS):
        pattern = r"\b(" + "|".join(sorted(map(re.escape, pairs), key=len, reverse=True)) + r")\b(?!')"

        def swap(match: re.Match[str], pairs: dict[str, str] = pairs) -> str:
            made = pairs[match[0].lower()]
            return made[0].upper() + made[1:] if match[0][0].isupper() else made

        made = re.sub(pattern, swap, text, flags=re.IGNORECASE)
        if made != text and not _lost(text, made, kept):
            return made
    return None


def lookalikes(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """One letter in ten, at least one, replaced by a Cyrillic one that looks the same."""
    guarded = [(m.start(), m.end()) for m in re.finditer(r"[^\W\d_]+", text) if m[0].casefold() in kept]
    spots = [
        i
        for i, letter in enumerate(text)
        if letter in _LOOKALIKES and not any(a <= i < b for a, b in guarded)
    ]
    if not spots:
        return None
    letters = list(text)
    n_letters = sum(letter.isalpha() for letter in text)
    n = min(len(spots), max(1, n_letters // 10))
    for i in rng.choice(spots, n, replace=False).tolist():
        letters[i] = _LOOKALIKES[letters[i]]
    return "".join(letters)


def numbers(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """Numbers and dates written otherwise: 2 as two, 12000 as 12,000, 2024-03-05 as March 5, 2024."""
    del rng
    made = re.sub(r"\b(\d{4})-(\d{2})-(\d{2})\b", _long_date, text)
    if made == text:
        made = re.sub(r"(?<![\d.,:/-])\d{5,9}(?![\d.,:/-])", lambda m: f"{int(m[0]):,}", text)
    if made == text:
        made = re.sub(
            r"(?<![\w.,:/$€£-])(?:[0-9]|1[0-2])(?![\w.,:/%-])", lambda m: _NUMBERS[int(m[0])], text
        )
    if made == text:
        words = "|".join(word for word in _NUMBERS if word != "one")  # "the one" is no number
        made = re.sub(
            rf"\b({words})\b(?!-)",
            lambda m: str(_NUMBERS.index(m[0].lower())),
            text,
            flags=re.IGNORECASE,
        )
    return None if made == text or _lost(text, made, kept) else made


def truncation(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """The last tenth of a text of twenty words or more cut off."""
    del rng
    words = list(re.finditer(r"\S+", text))
    if len(words) < LONG_WORDS:
        return None
    made = text[: words[len(words) - max(1, len(words) // 10) - 1].end()]
    return None if _lost(text, made, kept) else made


def prefix(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """A greeting before the text."""
    return _PREFIXES[int(rng.integers(len(_PREFIXES)))] + text


def suffix(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """Thanks or a signature after the text."""
    joint = "" if re.search(r"[.!?]\s*$", text) else "."
    return text.rstrip() + joint + _SUFFIXES[int(rng.integers(len(_SUFFIXES)))]


def list_order(text: str, rng: np.random.Generator, kept: frozenset[str] = frozenset()) -> str | None:
    """`a, b and c` with the items before the last turned round; three items or more, of one word each."""
    del rng
    match = re.search(r"\b([\w'-]+(?:, [\w'-]+)+)(,? (?:and|or) )([\w'-]+)", text)
    if match is None or {w.casefold() for w in re.findall(r"[\w'-]+", match[0])} & kept:
        return None
    items = match[1].split(", ")
    made = ", ".join(reversed(items)) + match[2] + match[3]
    return text[: match.start()] + made + text[match.end() :] if items != items[::-1] else None


PERTURBATIONS: dict[str, Perturbation] = {
    "typos": typos,
    "casing": casing,
    "spacing": spacing,
    "punctuation": punctuation,
    "contractions": contractions,
    "lookalikes": lookalikes,
    "numbers": numbers,
    "truncation": truncation,
    "prefix": prefix,
    "suffix": suffix,
    "list_order": list_order,
}


def _long_date(match: re.Match[str]) -> str:
    try:
        day = date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return match[0]
    return f"{day:%B} {day.day}, {day.year}"


def _lost(text: str, made: str, kept: frozenset[str]) -> bool:
    """Whether a word that must stay is there less often than before."""
    if not kept:
        return False
    before, after = (re.findall(r"\w+", t.casefold()) for t in (text, made))
    return any(before.count(word) > after.count(word) for word in kept)
