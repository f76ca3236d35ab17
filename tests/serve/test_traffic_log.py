"""The traffic log survives what happens to disks and processes, and never stops an answer."""

import os
import sqlite3
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from gateways import ask, config_of, records_in, request, rows_in, running, wait_until
from jettison.record import Record, read_records
from jettison.serve.config import LogConfig
from jettison.serve.roll import drop_old, last_rolled, roll
from jettison.serve.traffic_log import TrafficLog
from jettison.traffic import LIVE_FILE, SEGMENTS, Feedback


def record(i, **given):
    given = {"output": "pear", "input": f"a pear {i}", "time": 1e9 + i, "role": "answer", **given}
    return Record(candidate="c", example_id=f"r{i}", split="live", **given)


def written(folder, config, *rows, is_label=False):
    log = TrafficLog(folder, config, salt=b"s")
    for row in rows:
        log.put(row, is_label=is_label)
    log.flush()
    log.close()
    return rows_in(folder, "records", Record)


@pytest.mark.parametrize(
    ("policy", "text", "output", "has_digest"),
    [
        ("keep", "write to [EMAIL_1]", "from [EMAIL_1]", True),
        ("hash", None, "sha256:", True),
        ("drop", None, "", False),
    ],
)
def test_what_becomes_of_texts(tmp_path, policy, text, output, has_digest):
    row = record(0, input="write to a.b@example.org", output="from a.b@example.org")
    (found,) = written(tmp_path, LogConfig(text=policy), row)
    assert found.input == text
    assert found.output is not None
    assert found.output.startswith(output)
    assert (found.input_sha256 is not None) == has_digest
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"example.org" not in everything
    (label,) = written(tmp_path / "labels", LogConfig(text=policy), record(0), is_label=True)
    assert label.output == "pear"


def test_texts_stay_as_they_are_where_that_is_asked_for(tmp_path):
    (found,) = written(tmp_path, LogConfig(text="keep", mask_pii=False), record(0, input="a.b@example.org"))
    assert found.input == "a.b@example.org"


def test_rolling_moves_rows_into_segments_and_loses_none(tmp_path):
    log = TrafficLog(tmp_path, LogConfig(text="keep", roll_rows=50, roll_s=1e6))
    for i in range(120):
        log.put(record(i, guardrails={"pii": "redact"}, slices={"operation": "chat"}))
    log.put(Feedback(request_id="r1", time=2.0, score=0.5))
    log.flush()
    wait_until(lambda: list((tmp_path / SEGMENTS).glob("records-*.parquet")), 20)
    wait_until(lambda: log.state.n_rolled >= 1, 20)
    log.put(record(200))
    log.flush()
    log.close()
    rolled = {}
    for path in sorted((tmp_path / SEGMENTS).glob("records-*.parquet")):
        first, last = (int(part) for part in path.stem.split("-")[1:])
        sequence = pq.read_table(path).column("seq").to_pylist()
        assert (sequence[0], sequence[-1]) == (first, last)
        for seq, one in zip(sequence, read_records(path), strict=True):
            rolled[seq] = one
    live = rows_in(tmp_path, "records", Record)
    ids = [one.example_id for one in (*rolled.values(), *live)]
    assert sorted(ids) == sorted([f"r{i}" for i in range(120)] + ["r200"])
    assert rolled[1] == record(
        0, guardrails={"pii": "redact"}, slices={"operation": "chat"}, input_sha256=rolled[1].input_sha256
    )
    (said,) = pq.read_table(next((tmp_path / SEGMENTS).glob("feedback-*.parquet"))).to_pylist()
    assert (said["request_id"], said["score"], said["seq"]) == ("r1", 0.5, 1)


def test_rows_that_come_while_rolled_ones_are_deleted_are_written_between_the_steps(tmp_path, monkeypatch):
    monkeypatch.setattr("jettison.serve.traffic_log.DELETE_AT_ONCE", 10)
    written(tmp_path, LogConfig(roll_rows=1000), *[record(i) for i in range(100)])
    last = roll(tmp_path)["records"]
    log = TrafficLog(tmp_path, LogConfig(roll_rows=1000))
    log.put(record(100))
    log.flush()
    log.close()
    # The writer's thread has ended: what it does after a roll is done here, step by step.
    db = sqlite3.connect(tmp_path / LIVE_FILE)
    log._db = db
    left = []
    write = log._write
    log._write = lambda batch: (
        left.append(db.execute("SELECT count(*) FROM records").fetchone()[0]),
        write(batch),
    )
    for i in range(101, 104):
        log.put(record(i))
    log._delete(db, "records", last)
    db.close()
    assert left == [91]  # 101 less the first step of 10, not after all 100
    assert [one.example_id for one in rows_in(tmp_path, "records", Record)] == [
        f"r{i}" for i in range(100, 104)
    ]


def test_a_roll_that_died_before_its_rows_were_deleted_is_not_rolled_twice(tmp_path):
    written(tmp_path, LogConfig(), *(record(i) for i in range(5)))
    assert roll(tmp_path) == {"records": 5, "feedback": 0}
    assert roll(tmp_path) == {"records": 5, "feedback": 0}
    assert len(list((tmp_path / SEGMENTS).glob("*.parquet"))) == 1
    assert last_rolled(tmp_path, "records") == 5


def test_old_and_too_many_segments_go_and_the_last_stays(tmp_path):
    """Written at 0, 100 and 200 s; a day keeps until 86,400 s after."""
    for i in range(3):
        written(tmp_path, LogConfig(), record(i))
        roll(tmp_path)
    files = sorted((tmp_path / SEGMENTS).glob("*.parquet"))
    assert len(files) == 3
    for i, file in enumerate(files):
        os.utime(file, (100.0 * i, 100.0 * i))

    def dropped(now, max_bytes=10**9):
        return drop_old(tmp_path, keep_days=1, max_bytes=max_bytes, now=now)

    assert dropped(86_400.0) == []
    assert dropped(300.0, max_bytes=files[0].stat().st_size * 2) == [files[0].name]
    assert dropped(86_500.0) == []
    assert dropped(90_000.0) == [files[1].name]
    assert [path.name for path in (tmp_path / SEGMENTS).glob("*.parquet")] == [files[2].name]


def test_a_full_queue_drops_and_counts(tmp_path):
    log = TrafficLog(tmp_path, LogConfig(queue=5))
    for i in range(2000):
        log.put(record(i))
    log.flush()
    log.close()
    assert log.state.n_dropped > 0
    assert log.state.n_dropped + log.state.n_written == 2000


CHILD = """
import resource, signal, sys, time
from pathlib import Path
from jettison.record import Record
from jettison.serve.config import LogConfig
from jettison.serve.traffic_log import TrafficLog
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
log = TrafficLog(folder, LogConfig(text="keep"))
for i in range(int(sys.argv[3])):
    row = Record(candidate="c", example_id=f"r{i}", split="live", output="x" * 200, input=f"{i}", time=1.0)
    log.put(row)
    if i % 100 == 99:
        log.flush()
        print(i + 1, log.state.n_written, log.state.n_dropped, log.state.problem is not None, flush=True)
print("done", log.state.problem, flush=True)
if not limit:
    time.sleep(60)
"""


def test_what_was_committed_survives_kill_9(tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path), "0", "500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("done"):
                break
        process.kill()
    found = rows_in(tmp_path, "records", Record)
    assert [one.example_id for one in found] == [f"r{i}" for i in range(500)]
    # And the next writer goes on where it was.
    assert len(written(tmp_path, LogConfig(), record(1000))) == 501


def test_a_disk_that_takes_no_more_is_said_and_stops_nothing(tmp_path):
    # The kernel refuses writes past 300 kB of a file, as it does on a full disk.
    command = [sys.executable, "-c", CHILD, str(tmp_path), "300000", "3000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    last = done.stdout.strip().splitlines()[-2].split()
    n_written, n_dropped, is_broken = int(last[1]), int(last[2]), last[3] == "True"
    assert is_broken
    assert n_written > 0
    assert n_dropped > 0
    assert n_written + n_dropped == 3000
    assert len(rows_in(tmp_path, "records", Record)) >= n_written


def test_a_gateway_whose_log_has_no_place_answers_and_says_so(tmp_path, release):
    state = tmp_path / "state"
    state.mkdir()
    (state / "traffic").write_text("a file where the folder is to be")
    with running(config_of(tmp_path, release=release)) as gateway:
        for i in range(5):
            assert ask(gateway, f"pear {i}").status == 200
        wait_until(lambda: gateway.gateway.log.state.problem is not None)
        gateway.gateway._probe = None
        found = request(gateway.port, "GET", "/health/ready")
        assert (found.status, found.json["log"]["status"]) == (200, "broken")
        assert b"jettison_log_broken 1.0" in request(gateway.port, "GET", "/metrics").raw
        # Once there is room again, it goes on by itself.
        (state / "traffic").unlink()
        gateway.gateway.log._tried_s = -100.0
        ask(gateway, "pear")
        wait_until(lambda: gateway.gateway.log.state.problem is None)
        assert [one.input for one in records_in(gateway)][-1] == "pear"


def test_a_broken_file_is_put_aside(tmp_path):
    (tmp_path / LIVE_FILE).write_bytes(b"this is no database, whatever it is" * 100)
    assert len(written(tmp_path, LogConfig(), record(0))) == 1
    assert len(list(tmp_path.glob(f"{LIVE_FILE}.broken-*"))) >= 1


def test_a_locked_file_costs_rows_not_answers(tmp_path, release):
    with running(config_of(tmp_path, release=release)) as gateway:
        ask(gateway, "pear")
        gateway.gateway.log.flush()
        other = sqlite3.connect(gateway.gateway.log.folder / LIVE_FILE, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        assert ask(gateway, "pear").status == 200
        assert time.monotonic() - started < 1
        wait_until(lambda: gateway.gateway.log.state.problem is not None, 10)
        other.execute("ROLLBACK")
        other.close()


def test_readers_go_on_while_it_writes(tmp_path):
    log = TrafficLog(tmp_path, LogConfig(text="keep"))
    log.put(record(0))
    log.flush()
    reader = sqlite3.connect(tmp_path / LIVE_FILE)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM records").fetchone() == (1,)
    log.put(record(1))
    log.flush()
    assert log.state.problem is None
    reader.close()
    log.close()
    assert len(rows_in(tmp_path, "records", Record)) == 2
