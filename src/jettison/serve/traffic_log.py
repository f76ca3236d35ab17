"""The traffic log's one writer: a thread with a bounded queue that never holds up an answer.

Rows are committed to SQLite (WAL) in batches of at most 200 or 50 ms. What was committed survives
kill -9; a crash loses at most what was queued. A disk that is full, read-only or broken is said, rows are
counted as dropped, and the file is tried again; answers go on.
"""

import contextlib
import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import deque
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
DELETE_AT_ONCE = 2_000
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
        # A deque that the writer looks into: waking a thread for each row would cost more than the row.
        self._rows: deque[_Row] = deque()
        self._wake = threading.Event()
        self._is_idle = False
        self._is_over = False
        self._n_taken = 0
        self._n_put = 0
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
        if len(self._rows) >= self.config.queue:
            self.state.n_dropped += 1
            return
        self._rows.append((row, is_label))
        self._n_put += 1
        if self._is_idle:
            self._is_idle = False
            self._wake.set()

    def flush(self, timeout_s: float = 10.0) -> None:
        """Wait until everything handed over so far is written, or dropped."""
        target, deadline = self._n_put, time.monotonic() + timeout_s
        while self._n_taken < target and time.monotonic() < deadline and self._thread.is_alive():
            self._wake.set()
            time.sleep(0.002)

    def close(self) -> None:
        """Write the rest and stop. May be called twice."""
        self._is_over = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(40)

    def _run(self) -> None:
        while True:
            is_over = self._is_over  # before looking: what is put before the end is still seen
            batch = self._gather()
            if batch:
                self._write(batch)
                self._n_taken += len(batch)
            elif is_over:
                break
            if len(batch) < BATCH and not self._is_over:
                self._rest(had_rows=bool(batch))
            self._tend()
        self._end()

    def _gather(self) -> list[_Row]:
        """Up to one batch of what waits."""
        batch: list[_Row] = []
        while len(batch) < BATCH and self._rows:
            batch.append(self._rows.popleft())
        return batch

    def _rest(self, *, had_rows: bool) -> None:
        """Let a batch gather; where there is no traffic, sleep until there is."""
        if had_rows:
            self._wake.wait(BATCH_S)
        else:
            self._is_idle = True
            # A row is put before the flag is read, the flag set before the rows are: none is missed.
            if not self._rows and not self._is_over:
                self._wake.wait(0.5)
            self._is_idle = False
            if not self._is_over:
                time.sleep(BATCH_S / 5)
        self._wake.clear()

    def _end(self) -> None:
        if self._roller is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._roller.wait(30)
            if self._roller.poll() is not None:
                self._take_roll()
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()

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
                # A group of its own: a Ctrl-C is not for it. Not a session: Linux would give that a share
                # of the processor as large as all that serves, whatever its niceness.
                process_group=0,
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
                for table in ("records", "feedback"):
                    self._delete(self._db, table, last[table])
                self._n_live = self._db.execute("SELECT count(*) FROM records").fetchone()[0]
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except (sqlite3.Error, OSError, msgspec.DecodeError, KeyError) as error:
            self._roll_failed(str(error))
        else:
            self.state.n_rolled += 1
            self.state.roll_problem = None

    def _delete(self, db: sqlite3.Connection, table: str, last: int) -> None:
        """In steps, and what has come in between them written: the queue must not fill up meanwhile."""
        while True:
            with db:
                gone = db.execute(
                    f"DELETE FROM {table} WHERE seq IN "
                    f"(SELECT seq FROM {table} WHERE seq <= ? ORDER BY seq LIMIT {DELETE_AT_ONCE})",
                    (last,),
                ).rowcount
            if gone < DELETE_AT_ONCE:
                return
            if batch := self._gather():
                self._write(batch)
                self._n_taken += len(batch)
            if self._db is not db:
                raise OSError("the log broke while rows already rolled were deleted")

    def _roll_failed(self, why: str) -> None:
        self.state.roll_problem = why
        tell("log_roll_failed", error=why)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=2.0, isolation_level="DEFERRED", check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.executescript(SCHEMA)
    except BaseException:  # Ctrl-C too must leave no open file; it is raised again
        db.close()
        raise
    return db
