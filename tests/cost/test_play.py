"""Schedules, and what is made of them by a model here and by a server on the loopback."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from http_load_server import LoadServer
from jettison.cost.http_target import HttpTarget, http_target
from jettison.cost.play_http import HttpPlayer
from jettison.cost.play_local import QUEUE_TIMEOUT, play_local
from jettison.cost.schedule import cut_trace, poisson_schedule, read_trace
from jettison.errors import InvalidInput
from jettison.model import Output
from jettison.record import Cost


def slow_model(service_s: float) -> "tuple[list[int], object]":
    sizes: list[int] = []

    def predict(inputs: Sequence[str]) -> list[Output]:
        sizes.append(len(inputs))
        time.sleep(service_s)
        return [Output(label=text.upper(), confidence=1.0) for text in inputs]

    return sizes, predict


def test_poisson_arrivals_have_the_rate_and_come_again_from_the_seed() -> None:
    due = poisson_schedule(100, 50, rng=np.random.default_rng(0))
    assert due == poisson_schedule(100, 50, rng=np.random.default_rng(0))
    assert abs(len(due) - 5000) < 5 * np.sqrt(5000)
    gaps = np.diff(due)
    assert gaps.min() >= 0
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.1)
    with pytest.raises(InvalidInput, match=r"rate and the duration must be above 0, got 0 per second"):
        poisson_schedule(0, 5, rng=np.random.default_rng(0))
    with pytest.raises(InvalidInput, match=r"must hold 5,000,000 requests at most"):
        poisson_schedule(1e6, 50, rng=np.random.default_rng(0))


def test_a_trace_is_read_from_seconds_iso_times_and_json_lines(tmp_path: Path) -> None:
    plain, iso, lines = tmp_path / "a.csv", tmp_path / "b.txt", tmp_path / "c.jsonl"
    plain.write_text("timestamp\n5.0\n5.5\n7\n")
    iso.write_text("2026-01-01T00:00:00Z\n2026-01-01T00:00:00.500Z\n2026-01-01T00:00:02Z\n")
    lines.write_text('{"time": 5.0}\n{"time": 5.5}\n{"time": "7"}\n')
    assert read_trace(plain) == read_trace(iso) == read_trace(lines) == [0.0, 0.5, 2.0]
    assert cut_trace([0.0, 0.5, 2.0], 2) == [[0.0, 0.5], [1.0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n0.5\n", r"must not go back in time, got a gap of -0.5 s at line 2 of .* Sort it by time"),
        ("1\nsoon\n", r"an arrival must be seconds or an ISO time .* got 'soon' at line 2"),
        ('{"at": 1}\n', r"in JSON under one of"),
        ("", r"a trace must hold at least one arrival, got none"),
        ("nan\n", r"an arrival must be seconds"),
    ],
)
def test_a_bad_trace_is_named_by_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "trace.txt").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_trace(tmp_path / "trace.txt")


def test_a_queue_before_a_model_counts_from_when_each_was_due() -> None:
    _, predict = slow_model(0.02)
    calls = play_local(predict, ["a", "b"], [0, 1, 0], [0.0, 0.0, 1.0])
    # The second waits for the first: 20 ms, then 40 ms; the third finds nobody: 20 ms again. How late the
    # client was, and by how much the model overslept, is the machine's.
    assert calls.outputs == ["A", "B", "A"]
    first, second, third = calls.service_s
    assert calls.service_s.min() >= 0.02
    late = calls.late_s  # of which waiting for the model is no part
    alone = (late[0] + first, late[0] + first + late[1] + second, late[2] + third)
    assert list(calls.latency_s) == pytest.approx(alone)
    assert calls.busy_s == pytest.approx(calls.service_s.sum())


def test_a_model_that_takes_batches_takes_what_waits_and_no_more() -> None:
    sizes, predict = slow_model(0.02)
    calls = play_local(predict, ["a"], [0] * 6, [0.0, 0.001, 0.002, 0.003, 0.004, 0.5], max_batch=3)
    assert sizes[0] == 1
    assert max(sizes) == 3
    assert sizes[-1] == 1
    assert sum(sizes) == 6
    assert calls.is_ok.all()


def test_a_request_that_waited_too_long_is_a_miss_and_the_model_is_not_asked() -> None:
    sizes, predict = slow_model(0.05)
    calls = play_local(predict, ["a"], [0, 0, 0], [0.0, 0.0, 0.0], timeout_s=0.03)
    assert calls.errors == [None, QUEUE_TIMEOUT, QUEUE_TIMEOUT]
    assert sizes == [1]
    assert list(np.isinf(calls.latency_s)) == [False, True, True]


def player(server: LoadServer, **given: object) -> HttpPlayer:
    return HttpPlayer(http_target(f"{server.url}/predict", **given), ["one", "two"])  # type: ignore[arg-type]


def test_a_server_is_sent_every_request_when_it_is_due_whatever_became_of_the_others() -> None:
    with LoadServer(delay=lambda _: 0.5) as server:
        client = player(server, answer="label")
        calls = client.play([0, 1, 0], [0.0, 0.02, 0.04])
        client.close()
    assert server.bodies == [b'{"input": "one"}', b'{"input": "two"}', b'{"input": "one"}']
    assert calls.outputs == ["a", "a", "a"]
    # In a closed loop the third would have been sent after 1 s.
    assert calls.sent_s[2] < 0.49
    assert calls.wall_s < 1.4


def test_an_endpoint_that_stalls_is_seen_from_the_schedule_and_hidden_by_a_closed_loop() -> None:
    # One at a time, 1 ms each, but once, for a third of a second, the server takes none.
    def stalling(now_s: float) -> float:
        return 0.9 - now_s if 0.57 <= now_s < 0.9 else 0.001

    n = 260
    with LoadServer(delay=stalling, serial=True) as server:
        client = player(server)
        opened = client.play([0] * n, list(np.arange(n) * 0.008))
        client.close()
    with LoadServer(delay=stalling, serial=True) as server:
        client = player(server)
        # At 1 ms each at least, so many reach the stall on any machine.
        closed = client.play([0] * 700, [0.0] * 700, concurrency=1)
        client.close()
    told, truth = (float(np.quantile(t, 0.99)) for t in (closed.service_s, opened.latency_s))
    print(f"p99 of a stalling endpoint: closed loop {1e3 * told:.1f} ms, schedule {1e3 * truth:.0f} ms")
    # The closed loop met the stall with one request of 700; of the schedule's 260 some 40 were due in it.
    assert closed.is_ok.all()
    assert float(closed.service_s.max()) > 0.2
    assert 0.25 < truth < 0.6
    assert told < 0.15 * truth


def test_failures_and_time_outs_are_misses_and_never_dropped() -> None:
    with LoadServer(fail_every=4) as server:
        client = player(server)
        calls = client.play([0] * 20, list(np.arange(20) * 0.005))
        client.close()
    assert [e for e in calls.errors if e] == ["HTTP 500"] * 5
    assert np.isinf(calls.latency_s).sum() == 5
    with LoadServer(delay=lambda _: 5.0) as server:
        client = player(server, timeout_s=0.1)
        slow = client.play([0, 0], [0.0, 0.0])
        client.close()
    assert slow.errors == ["no whole answer in time"] * 2


def test_a_stream_tells_the_first_token_every_gap_and_the_tokens() -> None:
    with LoadServer(chunks=5, gap_s=0.03) as server:
        target = http_target(f"{server.url}/v1", model="m", stream=True)
        client = HttpPlayer(target, ["hi"])
        calls = client.play([0, 0], [0.0, 0.0])
        client.close()
    assert calls.outputs == ["t0 t1 t2 t3 t4 "] * 2
    assert calls.completion_tokens == [5, 5]
    assert calls.prompt_tokens == [7, 7]
    assert len(calls.gaps_s) == 8
    assert np.median(calls.gaps_s) == pytest.approx(0.03, abs=0.02)
    assert (calls.first_token_s < calls.latency_s - 0.08).all()
    assert calls.token_s[0] == pytest.approx(0.03, abs=0.02)


def test_the_first_token_counts_from_when_the_request_was_due_and_not_from_when_it_was_sent() -> None:
    with LoadServer(chunks=3, gap_s=0.01, delay=lambda _: 0.12) as server:
        client = HttpPlayer(http_target(f"{server.url}/v1", model="m", stream=True), ["hi"])
        # Both are due at once, and the second may only be sent when the first has ended.
        calls = client.play([0, 0], [0.0, 0.0], concurrency=1)
        client.close()
    assert calls.first_s[1] is not None
    from_sent = calls.first_s[1] - calls.sent_s[1]
    assert calls.sent_s[1] > 0.12
    assert calls.first_token_s[1] == pytest.approx(calls.sent_s[1] + from_sent)
    assert calls.first_token_s[1] > 0.24 > from_sent


def test_bytes_on_the_wire_are_those_that_both_sides_wrote() -> None:
    with LoadServer(answer=b'{"label": "%s"}' % (b"x" * 5000)) as server:
        client = player(server)
        calls = client.play([0, 0, 0], [0.0, 0.05, 0.1])
        client.close()
    assert calls.wire is not None
    sent = sum(len(h) + len(b) for h, b in zip(server.headers, server.bodies, strict=True))
    head = len(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5013\r\n\r\n")
    assert calls.wire.sent_bytes == sent
    assert calls.wire.received_bytes == 3 * (5013 + head)
    assert calls.wire.resent_bytes == 0
    assert sum(calls.payload_bytes) == sum(map(len, server.bodies)) + 3 * 5013


def test_a_server_that_dies_leaves_what_was_measured_up_to_then() -> None:
    server = LoadServer(die_after=40)
    client = player(server)
    n = 1000
    calls = client.play([0] * n, list(np.arange(n) * 0.005))
    client.close()
    assert calls.stopped is not None
    assert "it took no more connections" in calls.stopped
    assert len(calls.rows) < n
    assert calls.is_ok[:30].all()
    server.close()
    assert not calls.is_ok[-10:].any()


def test_a_key_comes_from_the_environment_and_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-secret")
    with LoadServer() as server:
        client = player(server, api_key_env="A_KEY")
        client.play([0], [0.0])
        client.close()
    assert b"Authorization: Bearer sk-secret" in server.headers[0]
    monkeypatch.setenv("A_KEY", "")
    with pytest.raises(InvalidInput, match=r"variable A_KEY must hold the key for .* got nothing"):
        HttpPlayer(http_target("http://127.0.0.1:9/x", api_key_env="A_KEY"), ["a"])


@pytest.mark.parametrize(
    ("url", "given", "message"),
    [
        ("ftp://host/x", {}, r"must be http\(s\)://host/path"),
        ("http://me:pw@host/x", {}, r"without user or key in it, got 'http://host'"),
        ("http://host/v1", {}, r"needs the model's name, got none .* Give --model"),
        ("http://host/v1", {"model": "m", "prompt": "no place"}, r"the prompt must hold \{input\}"),
        ("http://host/x", {"body": "{input"}, r"the body must be JSON once"),
        ("http://host/x", {"timeout_s": 0.0}, r"time-out must be in 0.01-3600 s"),
        ("http://host/x", {"api_key_env": "sk-123"}, r"NAME of an environment variable, never itself"),
    ],
)
def test_a_bad_address_is_refused_before_anything_is_sent(
    url: str, given: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        http_target(url, **given)  # type: ignore[arg-type]


def test_an_address_tells_its_api() -> None:
    apis = {
        "http://h/v1": ("chat", "http://h/v1/chat/completions"),
        "http://h/v1/chat/completions": ("chat", "http://h/v1/chat/completions"),
        "http://h/v1/completions": ("completions", "http://h/v1/completions"),
        "http://h/predict": ("http", "http://h/predict"),
    }
    for url, (api, whole) in apis.items():
        target = http_target(url, model="m")
        assert isinstance(target, HttpTarget)
        assert (target.api, target.url) == (api, whole)


def test_a_language_model_here_tells_its_tokens_and_its_first_from_the_schedule() -> None:
    def predict(inputs: Sequence[str]) -> list[Output]:
        time.sleep(0.02)
        cost = Cost(prompt_tokens=7, completion_tokens=3, first_token_s=0.01)
        return [Output(label="yes", confidence=1.0, cost=cost, escalated=True) for _ in inputs]

    calls = play_local(predict, ["a"], [0, 0], [0.0, 0.0])
    assert (calls.prompt_tokens, calls.completion_tokens) == ([7, 7], [3, 3])
    assert calls.n_escalated == 2
    # The second waited for the first: its first token comes 10 ms after 20 ms of waiting.
    assert calls.first_token_s[0] == pytest.approx(calls.late_s[0] + 0.01)
    assert calls.first_token_s[1] == pytest.approx(calls.latency_s[0] + calls.late_s[1] + 0.01)
    assert calls.first_token_s[1] >= 0.03
    together = play_local(predict, ["a"], [0, 0], [0.0, 0.0], max_batch=2)
    assert together.first_s == [None, None]
