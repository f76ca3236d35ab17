"""Whether a text is of the kind that a release was proved on, by the release's own reference profile."""

import math
import re
import zlib
from bisect import bisect_right
from typing import Literal

import numpy as np

from jettison.backends.released import open_release_model
from jettison.errors import InvalidInput
from jettison.model import Model
from jettison.release import Release, open_release
from jettison.release.profile import N_TOKEN_BUCKETS, Profile
from jettison.release.read import read_profile
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where

_WORDS = re.compile(r"\w+")
_MOST_WORDS = 4096
_N_DRAWN = 2000
_MOST_DRAWN = 48


class OutOfDomainSettings(GuardSettings, frozen=True, kw_only=True):
    """Settings of `out_of_domain`."""

    action: Literal["flag", "redact", "escalate", "block"] = "escalate"
    where: tuple[Where, ...] = ("input",)
    release: str = ""
    """Folder of the release."""
    method: Literal["model", "words"] = "words"
    """`words` compares the text's words with the profile's counts, in microseconds. `model` asks the
    release's lean model, whose task must have an out-of-scope label, and knows more."""
    false_alarm_share: float = 0.02
    """Share of ordinary inputs that may be caught. With `words` it holds as far as words come
    independently of each other; measure it on your own traffic."""


class OutOfDomain:
    """Catches texts unlike the inputs that the release was proved on.

    `words`: the mean log-probability of a text's words under the profile's counts, ranked among those of
    texts of as many words (a text without words is caught only for its length).
    `model`: `in_scope` of the model's answer, the rank among in-scope inputs.
    """

    Settings = OutOfDomainSettings

    def __init__(self, settings: OutOfDomainSettings) -> None:
        if not settings.release:
            raise InvalidInput("release must be the folder of a release, got none.")
        if not 0 < settings.false_alarm_share < 0.5:
            raise InvalidInput(f"false_alarm_share must be in 0-0.5, got {settings.false_alarm_share}.")
        if settings.action == "redact":
            raise InvalidInput("action must be `flag`, `escalate` or `block`, got `redact`.")
        self._settings = settings
        opened = open_release(settings.release)
        self._words = WordSurprise(read_profile(opened)) if settings.method == "words" else None
        self._model = _model(opened) if settings.method == "model" else None

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text; `score` is one minus the share of ordinary inputs that look stranger."""
        del where
        if self._words is not None:
            rank = self._words.rank(text)
        else:
            assert self._model is not None
            output = self._model.predict([text])[0]
            if output.in_scope is None:
                raise InvalidInput("the model's answer has no in_scope.")
            rank = output.in_scope
        caught = rank < self._settings.false_alarm_share
        return Verdict(
            action=self._settings.action if caught else "pass",
            guardrail="out_of_domain",
            reason="unlike the inputs that the release was proved on" if caught else None,
            score=1.0 - rank,
        )


class WordSurprise:
    """How strange the words of a text are, against a reference profile.

    Words never seen have, together, the share of words seen once (Good and Turing). What texts of n words
    come to is drawn 2,000 times for small n, each word by itself, and taken as normal for large n.
    """

    def __init__(self, profile: Profile) -> None:
        counts = np.asarray(profile.token_counts, float)
        if counts.shape != (N_TOKEN_BUCKETS,) or not counts.sum():
            raise InvalidInput("the release's profile must hold counts of words, got none.")
        shares = _smoothed(counts)
        logs = np.log(shares)
        self._logs: list[float] = logs.tolist()
        self._mean = float(shares @ logs)
        self._deviation = float(np.sqrt(shares @ (logs - self._mean) ** 2))
        self._drawn = _drawn_means(logs, shares)
        self._longest = profile.length_quantiles[-1] if profile.length_quantiles else math.inf

    def rank(self, text: str) -> float:
        """Share, in 0-1, of ordinary texts of as many words that are stranger; small is strange."""
        words = _WORDS.findall(text.lower())[:_MOST_WORDS]
        if not words:
            return 1.0 if len(text) <= self._longest else 0.0
        logs, crc, n = self._logs, zlib.crc32, len(words)
        mean = sum(logs[crc(w.encode("utf-8", "surrogatepass")) % N_TOKEN_BUCKETS] for w in words) / n
        if n <= len(self._drawn):
            drawn = self._drawn[n - 1]
            # Ties count: a word as rare as many others is not stranger than they are.
            return (bisect_right(drawn, mean + 1e-9) + 1) / (len(drawn) + 1)
        z = (mean - self._mean) / (self._deviation / math.sqrt(n))
        return 0.5 * math.erfc(-z / math.sqrt(2))


def _smoothed(counts: np.ndarray) -> np.ndarray:
    """Shares of the buckets, none zero, shape (N_TOKEN_BUCKETS,)."""
    n, unseen = counts.sum(), counts == 0
    if not unseen.any():
        return np.asarray(counts / n)
    new_share = min(max(float((counts == 1).sum()), 0.5) / n, 0.5)
    return np.asarray(np.where(unseen, new_share / unseen.sum(), counts / n * (1 - new_share)))


def _drawn_means(logs: np.ndarray, shares: np.ndarray) -> list[list[float]]:
    """Ascending mean log-probabilities of made-up texts of 1, 2, ... words."""
    rng = np.random.default_rng(0)
    words = rng.choice(logs, size=(_N_DRAWN, _MOST_DRAWN), p=shares)
    sums = np.cumsum(words, axis=1)
    means = np.sort(sums / np.arange(1, _MOST_DRAWN + 1), axis=0)
    return [column.tolist() for column in means.T]


def _model(release: Release) -> Model:
    if release.out_of_scope is None:
        raise InvalidInput(
            f"method `model` needs a release whose task has an out-of-scope label, got {release.path}. "
            "Use method `words`."
        )
    return open_release_model(release)
