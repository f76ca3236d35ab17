"""Who may ask, and how much: API keys by their digests, rates, concurrency, budgets."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from jettison.errors import InvalidInput
from jettison.files import read_json, write_json
from jettison.serve.api_error import ApiError
from jettison.serve.config import KeyConfig

PREFIX = "jt-"
USAGE_FILE = "usage.json"


def new_key() -> tuple[str, str]:
    """A fresh key, and the digest that goes into the configuration."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, key_digest(key)


def key_digest(key: str) -> str:
    """SHA-256 in hex. Keys are 256 random bits: there is nothing to guess, and so nothing to slow down."""
    return hashlib.sha256(key.encode()).hexdigest()


class Used(msgspec.Struct, kw_only=True):
    """What one key has used, over restarts too."""

    tokens: int = 0
    usd: float = 0.0


class Bucket:
    """So much a minute, refilled evenly, with a minute's worth in hand."""

    def __init__(self, per_minute: float, clock: Callable[[], float]) -> None:
        self._rate, self._most, self._clock = per_minute / 60.0, max(1.0, per_minute), clock
        self._level, self._at = self._most, clock()

    def wait_s(self, amount: float) -> float:
        """How long until so much is there; 0 where it is now. More than fits waits for a full bucket."""
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (min(amount, self._most) - self._level) / self._rate)

    def take(self, amount: float) -> None:
        """Use so much, into debt if need be: what an answer took is known only afterwards."""
        self._level -= amount


class Key:
    """One key with its counters."""

    def __init__(self, config: KeyConfig, used: Used, clock: Callable[[], float]) -> None:
        self.config, self.used = config, used
        self.name = config.name
        self._digest = config.sha256.encode()
        self._requests = (
            None if config.requests_per_minute is None else Bucket(config.requests_per_minute, clock)
        )
        self._tokens = None if config.tokens_per_minute is None else Bucket(config.tokens_per_minute, clock)
        self._n_open = 0

    def matches(self, digest: str) -> bool:
        """In time that does not depend on where they differ."""
        return hmac.compare_digest(self._digest, digest.encode())

    def enter(self, estimated_tokens: int) -> None:
        """Admit one request.

        Raises:
            ApiError: 429, with how long to wait where waiting helps.
        """
        config = self.config
        if config.budget_tokens is not None and self.used.tokens >= config.budget_tokens:
            raise _spent(self.name, "tokens")
        if config.budget_usd is not None and self.used.usd >= config.budget_usd:
            raise _spent(self.name, "money")
        if config.concurrency is not None and self._n_open >= config.concurrency:
            raise _limited(self.name, "requests at once", config.concurrency, 1.0)
        if self._requests is not None and (wait_s := self._requests.wait_s(1.0)) > 0:
            raise _limited(self.name, "requests a minute", config.requests_per_minute, wait_s)
        if self._tokens is not None and (wait_s := self._tokens.wait_s(estimated_tokens)) > 0:
            raise _limited(self.name, "tokens a minute", config.tokens_per_minute, wait_s)
        if self._requests is not None:
            self._requests.take(1.0)
        if self._tokens is not None:
            self._tokens.take(estimated_tokens)
        self._n_open += 1

    def leave(self, estimated_tokens: int, tokens: int | None, usd: float | None) -> None:
        """The request has ended; what it took replaces the estimate, where it is known."""
        self._n_open -= 1
        took = estimated_tokens if tokens is None else tokens
        if self._tokens is not None:
            self._tokens.take(took - estimated_tokens)
        self.used.tokens += took
        self.used.usd += usd or 0.0


class Access:
    """All keys of a configuration.

    Args:
        keys: None at all lets everybody in.
        folder: Where budgets are remembered; None forgets them.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        keys: Sequence[KeyConfig],
        folder: Path | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        before: "Access | None" = None,
    ) -> None:
        self._file = None if folder is None else folder / USAGE_FILE
        self._used: dict[str, Used] = dict(before._used) if before is not None else self._read()
        old = {key.config: key for key in before._keys} if before is not None else {}
        self._keys: list[Key] = [
            # A key that did not change keeps its buckets over a reload.
            old.get(config) or Key(config, self._used.setdefault(config.name, Used()), clock)
            for config in keys
        ]
        self._by_digest = {key.config.sha256: key for key in self._keys}

    @property
    def is_open(self) -> bool:
        """Whether there are no keys at all."""
        return not self._keys

    def key_of(self, authorization: bytes | None) -> Key | None:
        """The key of a request; None where none is asked for.

        Raises:
            ApiError: 401.
        """
        if not self._keys:
            return None
        if authorization is None or not authorization[:7].lower() == b"bearer ":
            raise ApiError(
                401, "missing_api_key", "send a key as `authorization: Bearer ...`.", should_retry=False
            )
        digest = hashlib.sha256(authorization[7:].strip()).hexdigest()
        # Found by the digest of a random key, which tells nothing of the key; then compared once more,
        # in constant time.
        key = self._by_digest.get(digest)
        if key is None or not key.matches(digest):
            raise ApiError(401, "invalid_api_key", "the API key is not known here.", should_retry=False)
        return key

    def _read(self) -> dict[str, Used]:
        if self._file is None or not self._file.is_file():
            return {}
        try:
            return read_json(self._file, dict[str, Used])
        except InvalidInput:
            return {}

    def save(self) -> None:
        """Write what has been used.

        Raises:
            CannotWrite: The disk is full.
        """
        if self._file is not None and self._keys:
            write_json(self._file, self._used)


def _limited(name: str, what: str, limit: float | None, wait_s: float) -> ApiError:
    return ApiError(
        429,
        "rate_limit_exceeded",
        f"key {name!r} may have {limit:g} {what}.",
        retry_after_s=wait_s,
        is_passable=False,
    )


def _spent(name: str, what: str) -> ApiError:
    return ApiError(
        429,
        "insufficient_quota",
        f"key {name!r} has spent its budget of {what}.",
        should_retry=False,
        is_passable=False,
    )
