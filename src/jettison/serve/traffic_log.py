"""The traffic log's one writer: a thread with a bounded queue that never holds up an answer.

Rows are committed to SQLite (WAL) in batches of at most 200 or 50 ms. What was committed survives
kill -9; a crash loses at most what was queued. A disk that is full, read-only or broken is said, rows are
counted as dropped, and the file is tried again; answers go on.
"""

import contextlib
import hashlib
import os
import queue
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from jettison.record import Record
from jettison.serve.config import LogConfig
from jettison.serve.tell import tell
from jettison.task.pii import mask
from jettison.traffic import LIVE_FILE, SCHEMA, SEGMENTS, Feedback

BATCH, BATCH_S = 200, 0.05
RETRY_S = 5.0
encode = msgspec.json.encode
_Row = tuple[Record | Feedback, bool]


@dataclass
class LogState:
    """How the log is doing; read by health and metrics."""

    n_written: int = 0
    n_dropped: int = 0
    n_rolled: int = 0
    problem: str | None = None
    """Why rows cannot be written; None while they can."""
    roll_problem: str | None = None


class TrafficLog:
    """Takes records and feedback from the event loop, writes them from one thread.

    Args:
        folder: Made if need be.
        config: What is kept, and for how long.
        salt: Of the digests of inputs, so that short inputs cannot be guessed from them.
    """

    def __init__(self, folder: Path, config: LogConfig, *, salt: bytes = b"") -> None:
        self.folder, self.config = folder, config
        self.state = LogState()
        self._salt = salt
        self._queue: queue.Queue[_Row | threading.Event | None] = queue.Queue(config.queue)
        self._db: sqlite3.Connection | None = None
        self._tried_s = -RETRY_S
        self._since_roll_s = time.monotonic()
        self._n_live = 0
        self._roller: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="traffic-log", daemon=True)
        self._thread.start()

    def put(self, row: Record | Feedback, *, is_label: bool = False) -> None:
        """Hand over one row; where the queue is full it is counted as dropped.

        Args:
            row: With its texts as they are.
            is_label: Whether the output is a label, which is always kept.
        """
        try:
            self._queue.put_nowait((row, is_label))
        except queue.Full:
            self.state.n_dropped += 1

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until everything handed over so far is written, or dropped."""
        done = threading.Event()
        with contextlib.suppress(queue.Full):
            self._queue.put(done, timeout=timeout_s)
            done.wait(timeout_s)

    def close(self) -> None:
        """Write the rest and stop. May be called twice."""
        if self._thread.is_alive():
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=10)
            self._thread.join(10)

    def _run(self) -> None:
        while True:
            batch, waiting, is_over = self._gather()
            if batch:
                self._write(batch)
            for event in waiting:
                event.set()
            if not is_over:
                self._tend()
                continue
            if self._roller is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._roller.wait(30)
                self._take_roll()
            if self._db is not None:
                with contextlib.suppress(sqlite3.Error):
                    self._db.close()
            return

    def _gather(self) -> tuple[list[_Row], list[threading.Event], bool]:
        """Up to one batch; waits for the first row, and then no longer than a batch may."""
        batch: list[_Row] = []
        waiting: list[threading.Event] = []
        deadline: float | None = None
        while len(batch) < BATCH:
            left_s = 0.5 if deadline is None else deadline - time.monotonic()
            try:
                row = self._queue.get(timeout=max(0.0, left_s)) if left_s > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
            if row is None:
                return batch, waiting, True
            if isinstance(row, threading.Event):
                waiting.append(row)
                break
            batch.append(row)
            if deadline is None:
                deadline = time.monotonic() + BATCH_S
        return batch, waiting, False

    def _write(self, batch: list[_Row]) -> None:
        try:
            db = self._opened()
            if db is None:
                self.state.n_dropped += len(batch)
                return
            records = [self._row(one, known) for one, known in batch if isinstance(one, Record)]
            said = [(f.time, f.request_id, encode(f)) for f, _ in batch if isinstance(f, Feedback)]
            with db:
                if records:
                    db.executemany("INSERT INTO records (time, request_id, body) VALUES (?, ?, ?)", records)
                if said:
                    db.executemany("INSERT INTO feedback (time, request_id, body) VALUES (?, ?, ?)", said)
        except (sqlite3.Error, OSError) as error:
            self.state.n_dropped += len(batch)
            self._broken(error)
        else:
            self.state.n_written += len(batch)
            self._n_live += len(batch)
            if self.state.problem is not None:
                self.state.problem = None
                tell("log_works_again", dropped=self.state.n_dropped)

    def _broken(self, error: Exception) -> None:
        if self.state.problem is None:
            tell("log_broken", error=str(error), folder=str(self.folder))
        self.state.problem = str(error)
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def _opened(self) -> sqlite3.Connection | None:
        """The live file; None while it is too early to try it again."""
        if self._db is not None:
            return self._db
        if time.monotonic() - self._tried_s < RETRY_S and self.state.problem is not None:
            return None
        self._tried_s = time.monotonic()
        (self.folder / SEGMENTS).mkdir(parents=True, exist_ok=True)
        path = self.folder / LIVE_FILE
        try:
            self._db = _connect(path)
        except sqlite3.DatabaseError as error:
            if "not a database" not in str(error) and "malformed" not in str(error):
                raise
            # Put aside, not thrown away: somebody may want to save what is in it.
            aside = path.with_name(f"{LIVE_FILE}.broken-{int(time.time())}")
            os.replace(path, aside)
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(OSError):
                    os.replace(f"{path}{suffix}", f"{aside}{suffix}")
            tell("log_was_broken", kept_as=str(aside), error=str(error))
            self._db = _connect(path)
        self._n_live = self._db.execute("SELECT count(*) FROM records").fetchone()[0]
        return self._db

    def _row(self, record: Record, is_label: bool) -> tuple[float | None, str, bytes]:
        record = self._as_kept(record, is_label)
        return record.time, record.example_id, encode(record)

    def _as_kept(self, record: Record, is_label: bool) -> Record:
        """What the setting leaves of input and output."""
        text, output = record.input, record.output
        policy = self.config.text
        digest = None if text is None else self._digest(text)
        changes: dict[str, Any] = {"input_sha256": digest}
        if policy == "keep":
            if self.config.mask_pii:
                texts = tuple(one for one in (text, None if is_label else output) if one is not None)
                masked = list(mask(texts)[0])
                if text is not None:
                    changes["input"] = masked.pop(0)
                if output is not None and not is_label:
                    changes["output"] = masked.pop(0)
        else:
            changes["input"] = None
            if policy == "drop":
                changes["input_sha256"] = None
            if output is not None and not is_label:
                changes["output"] = f"sha256:{self._digest(output)}" if policy == "hash" else ""
        return msgspec.structs.replace(record, **changes)

    def _digest(self, text: str) -> str:
        return hashlib.sha256(self._salt + text.encode("utf-8", "surrogatepass")).hexdigest()

    def _tend(self) -> None:
        """Roll when it is time, in a process of its own: Arrow would triple the gateway's memory."""
        if self._roller is not None:
            if self._roller.poll() is None:
                return
            self._take_roll()
        now = time.monotonic()
        is_due = self._n_live >= self.config.roll_rows or (
            self._n_live > 0 and now - self._since_roll_s >= self.config.roll_s
        )
        if not is_due or self._db is None:
            return
        self._since_roll_s = now
        try:
            self._roller = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "jettison.serve.roll",
                    str(self.folder),
                    str(self.config.keep_days),
                    str(self.config.max_bytes),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self._roll_failed(str(error))

    def _take_roll(self) -> None:
        """Delete what the roller has put into segments: it only reads, this thread alone writes."""
        assert self._roller is not None
        out, err = self._roller.communicate()
        code, self._roller = self._roller.returncode, None
        try:
            if code != 0:
                raise OSError(
                    err.decode("utf-8", "replace").strip().splitlines()[-1][:300] if err else "killed"
                )
            last = msgspec.json.decode(out, type=dict[str, int])
            if self._db is not None:
                with self._db:
                    for table in ("records", "feedback"):
                        self._db.execute(f"DELETE FROM {table} WHERE seq <= ?", (last[table],))
                self._n_live = self._db.execute("SELECT count(*) FROM records").fetchone()[0]
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except (sqlite3.Error, OSError, msgspec.DecodeError, KeyError) as error:
            self._roll_failed(str(error))
        else:
            self.state.n_rolled += 1
            self.state.roll_problem = None

    def _roll_failed(self, why: str) -> None:
        self.state.roll_problem = why
        tell("log_roll_failed", error=why)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=2.0, isolation_level="DEFERRED", check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(SCHEMA)
    except BaseException:
        db.close()
        raise
    return db
