"""Answers that were paid for, kept: one SQLite file, safe in threads, whole after a kill.

The key is the digest of the model (see `Endpoint.revision`) and of every field of the request.
"""

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import CannotWrite
from jettison.files import value_sha256

VARIABLE = "JETTISON_ANSWERS"
"""Environment variable that names the folder; child processes see the same one."""
_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer BLOB NOT NULL)"

Answer = dict[str, Any]


class AnswerCache:
    """Answers by request. Use `answer_key` for the keys."""

    def __init__(self, folder: Path) -> None:
        connection = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Each commit is on disk before an answer counts as kept.
            connection = sqlite3.connect(
                folder / "answers.sqlite", timeout=30.0, check_same_thread=False, isolation_level=None
            )
            with contextlib.suppress(sqlite3.OperationalError):  # some network disks have no shared memory
                connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            if connection is not None:
                connection.close()
            raise CannotWrite(
                f"answers must be kept in a folder that can be written, got {folder}: {error}. "
                f"Name another in the environment variable {VARIABLE}, or move a damaged file away."
            ) from error
        self._connection = connection
        self._lock = threading.Lock()
        self._closed = False
        self._under_way: dict[str, Future[Answer]] = {}

    def get_or_ask(self, key: str, ask: Callable[[], Answer]) -> Answer:
        """The answer kept under a key, or else what `ask` gives, which is then kept.

        Threads that want one key at one time ask once.

        Raises:
            CannotWrite: The disk is full.
            Exception: Whatever `ask` raises.
        """
        with self._lock:
            future = self._under_way.get(key)
            if future is None:
                mine: Future[Answer] = Future()
                self._under_way[key] = mine
        if future is not None:
            return future.result()
        try:
            answer = self.get(key)
            if answer is None:
                answer = ask()
                self.put(key, answer)
        except BaseException as error:  # whoever waits for this thread must hear of it
            mine.set_exception(error)
            raise
        else:
            mine.set_result(answer)
            return answer
        finally:
            with self._lock:
                del self._under_way[key]

    def get(self, key: str) -> Answer | None:
        """The answer kept under a key; a damaged one counts as none."""
        with self._lock:
            if self._closed:
                return None
            try:
                row = self._connection.execute(
                    "SELECT answer FROM answers WHERE key = ?", (key,)
                ).fetchone()
            except sqlite3.DatabaseError:
                return None
        if row is None:
            return None
        try:
            found: Answer = msgspec.json.decode(row[0], type=dict[str, Any])
        except msgspec.DecodeError:
            return None
        return found

    def put(self, key: str, answer: Answer) -> None:
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


def answer_key(model: str, revision: str, path: str, request: Answer, sample: int = 0) -> str:
    """Identity of a request: the model, every field, and which of several samples it is."""
    return value_sha256([model, revision, path, request, sample])


def answers_folder() -> Path:
    """Where answers are kept: as the environment says, or the user's cache."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "jettison" / "answers"


@contextlib.contextmanager
def answers_kept_in(folder: Path) -> Iterator[None]:
    """Keep answers in a folder while the block runs, in child processes too, unless the user named one."""
    if os.environ.get(VARIABLE):
        yield
        return
    os.environ[VARIABLE] = str(folder.absolute())
    try:
        yield
    finally:
        os.environ.pop(VARIABLE, None)
