"""Answers that were paid for, kept: one SQLite file, safe in threads, whole after a kill.

The key is the digest of the address, the model and every field of the request.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import CannotWrite
from jettison.files import value_sha256

VARIABLE = "JETTISON_ANSWERS"
"""Environment variable that names the folder; child processes see the same one."""
_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer BLOB NOT NULL)"


class AnswerCache:
    """Answers by request. Use `answer_key` for the keys."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Each commit is on disk before an answer counts as kept.
            self._connection = sqlite3.connect(
                folder / "answers.sqlite", timeout=30.0, check_same_thread=False, isolation_level=None
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise CannotWrite(
                f"answers must be kept in a folder that can be written, got {folder}: {error}. "
                f"Name another in the environment variable {VARIABLE}."
            ) from error
        self._lock = threading.Lock()
        self._closed = False

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer kept under a key; a damaged one counts as none."""
        with self._lock:
            if self._closed:
                return None
            row = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            found: dict[str, Any] = msgspec.json.decode(row[0])
        except msgspec.DecodeError:
            return None
        return found

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer.

        Raises:
            CannotWrite: The disk is full.
        """
        try:
            with self._lock:
                if self._closed:
                    return
                self._connection.execute(
                    "INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, msgspec.json.encode(answer))
                )
        except sqlite3.Error as error:
            raise CannotWrite(f"an answer could not be kept: {error}.") from error

    def close(self) -> None:
        """Close the file. May be called twice."""
        # A thread that is still asking must find it closed, not use it while it goes.
        with self._lock:
            self._closed = True
            self._connection.close()


def answer_key(url: str, request: dict[str, Any], sample: int = 0) -> str:
    """Identity of a request: the address, every field, and which of several samples it is."""
    return value_sha256([url, request, sample])


def answers_folder() -> Path:
    """Where answers are kept: as the environment says, or the user's cache."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jettison" / "answers"


@contextlib.contextmanager
def answers_kept_in(folder: Path) -> Iterator[None]:
    """Keep answers in a folder while the block runs, in child processes too."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
