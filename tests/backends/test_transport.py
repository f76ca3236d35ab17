"""One server and its faults: what is asked again, how long it is waited for, and when it is given up."""

import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from endpoint_server import (
    SECRET,
    FakeClock,
    Server,
    answer,
    cut_chunk,
    cut_padding,
    dripping,
    first,
    hung_up,
    no_json,
    replies,
    send,
    silent,
    status,
    truncated,
    whole,
)
from jettison.backends import endpoint_http
from jettison.backends.endpoint_http import Timeouts
from jettison.backends.endpoint_pace import Pace, SystemClock
from jettison.backends.endpoint_reply import check_choice
from jettison.backends.transport import Patience, Refused, Reply, Transport, retry_after_s
from jettison.errors import Unanswered

BODY = {"model": "small", "messages": [{"role": "user", "content": "a song"}]}
QUICK = Timeouts(connect_s=1.0, first_byte_s=0.3, total_s=0.5)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def transport(server: Server, clock: FakeClock, **given: Any) -> Transport:
    return Transport(server.url, **{"key": SECRET, "timeouts": QUICK, "clock": clock, **given})


def post(made: Transport, **given: Any) -> Reply:
    try:
        return made.post("/chat/completions", {**BODY, **given}, check=check_choice)
    finally:
        made.close()


@pytest.mark.parametrize(
    "fault",
    [
        status(429, retry_after="1"),
        status(503),
        status(529),
        status(500),
        truncated,
        cut_padding,
        cut_chunk,
        no_json,
        hung_up,
        silent,
        dripping,
        replies({"choices": []}),
        replies({"choices": [{"finish_reason": "stop"}]}),
        replies({"error": {"message": "upstream", "code": 502}}),
        replies([]),
    ],
    ids=[
        "429",
        "503",
        "529",
        "500",
        "truncated",
        "cut padding",
        "cut chunk",
        "no json",
        "hung up",
        "silent",
        "dripping",
        "no choices",
        "no message",
        "error as an answer",
        "a list",
    ],
)
def test_a_fault_that_passes_changes_nothing(fault, server, clock):
    server.behave = first(fault)
    assert post(transport(server, clock)).body["choices"][0]["message"]["content"] == "music"
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after_ms": "2500", "retry_after": "9"}, 2.5),
        ({"retry_after": "a date"}, 30.0),
    ],
)
def test_the_server_says_how_long_to_wait_and_is_obeyed(headers, seconds, server, clock):
    if headers.get("retry_after") == "a date":
        headers = {"retry_after": formatdate(time.time() + seconds, usegmt=True)}
    server.behave = first(status(429, **headers))
    post(transport(server, clock))
    assert sum(clock.waits) == pytest.approx(seconds, abs=1.5)


def test_nonsense_in_retry_after_counts_as_nothing():
    for text in ("soon", "-3", "nan", "inf", ""):
        assert retry_after_s({"retry-after": text}) is None


def test_a_wait_beyond_patience_is_not_begun(server, clock):
    server.behave = status(429, retry_after="3600")
    with pytest.raises(Unanswered, match=r"did not answer after 1 try: HTTP 429"):
        post(transport(server, clock))
    assert clock.waits == []


def test_waits_double_with_jitter_and_the_same_seed_gives_the_same_waits(server):
    seen = []
    for _ in range(2):
        clock = FakeClock()
        server.behave = status(500)
        with pytest.raises(Unanswered, match="after 4 tries: HTTP 500"):
            post(transport(server, clock, patience=Patience(max_retries=3), seed=5))
        seen.append(clock.waits)
    assert seen[0] == seen[1]
    for wait, longest in zip(seen[0], (0.5, 1.0, 2.0), strict=True):
        assert longest / 2 <= wait <= longest


def test_a_server_that_is_away_is_waited_for_and_then_given_up_for_all(server, clock):
    made = transport(server, clock, patience=Patience(wait_s=60.0))
    server.close()
    with pytest.raises(Unanswered, match=r"did not answer after .* tries: no connection"):
        made.post("/chat/completions", BODY)
    assert 30.0 <= sum(clock.waits) <= 60.0
    before = list(clock.waits)
    with pytest.raises(Unanswered, match="is given up for now"):
        made.post("/chat/completions", BODY)
    assert clock.waits == before
    made.close()


def test_a_server_that_comes_back_is_asked_again(server, clock):
    made = transport(server, clock, patience=Patience(wait_s=0.0))
    server.close()
    with pytest.raises(Unanswered, match="no connection"):
        made.post("/chat/completions", BODY)
    again = Server(server.port)
    clock.wait(31.0)
    assert made.post("/chat/completions", BODY).body["choices"]
    made.close()
    again.close()


def test_retries_of_all_requests_together_have_a_budget(server, clock):
    server.behave = status(500)
    made = transport(server, clock, patience=Patience(max_retries=6))
    for _ in range(30):
        with pytest.raises(Unanswered, match="HTTP 500"):
            made.post("/chat/completions", BODY)
    made.close()
    assert len(server.asked) == 30 + 20


def test_a_body_without_end_is_not_read_to_it(server, clock, monkeypatch):
    monkeypatch.setattr(endpoint_http, "MOST_BYTES", 2**20)
    server.behave = replies(b"x" * (2**20 + 2))
    with pytest.raises(Unanswered, match="after 1 try: its answer is over 1 MB"):
        post(transport(server, clock))

    def endless(handler: Any, body: Any, number: int) -> None:
        handler.send_response(200)
        handler.send_header("connection", "close")
        handler.end_headers()
        for _ in range(64):
            handler.wfile.write(b"x" * 2**16)
        handler.close_connection = True

    server.behave = endless
    with pytest.raises(Unanswered, match="its answer is over 1 MB"):
        post(transport(server, clock))


def test_a_slow_drip_ends_with_the_total_time(server, clock):
    server.behave = dripping
    started = time.perf_counter()
    with pytest.raises(Unanswered, match="it took too long"):
        post(transport(server, clock, patience=Patience(max_retries=0)))
    assert 0.4 < time.perf_counter() - started < 1.5


def test_a_redirect_is_not_followed(server, clock):
    server.behave = status(302, location="http://elsewhere.example/v1")
    with pytest.raises(Refused, match=r"points to http://elsewhere.example/v1, which is not followed"):
        post(transport(server, clock))


def test_a_proxy_in_the_environment_is_not_used(server, clock, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert post(transport(server, clock)).body["choices"]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422])
def test_a_refusal_is_not_asked_again_and_never_shows_the_key(code, server, clock):
    server.behave = status(code)
    with pytest.raises(Refused, match=rf"HTTP {code}: fault {code} for \*\*\*") as caught:
        post(transport(server, clock))
    assert caught.value.status == code
    assert SECRET not in repr(caught.value)
    assert len(server.asked) == 1


def test_an_account_without_credit_is_no_rate_limit(server, clock):
    body = {"error": {"message": "pay first", "code": "insufficient_quota"}}
    server.behave = lambda handler, asked, number: send(handler, 429, body)
    with pytest.raises(Refused, match="HTTP 402: pay first"):
        post(transport(server, clock))


def test_an_answer_that_repeats_the_key_is_cleaned(server, clock):
    server.behave = replies(whole(f"your key is {SECRET}"))
    assert SECRET not in str(post(transport(server, clock)))


def test_connections_are_kept_and_one_that_went_stale_is_replaced(server, clock):
    made = transport(server, clock)
    made.post("/chat/completions", BODY)
    made.post("/chat/completions", BODY)
    assert server.n_connections == 1

    def closes(handler: Any, body: Any, number: int) -> None:
        answer(handler, body, number)
        handler.close_connection = True  # unannounced

    server.behave = closes
    made.post("/chat/completions", BODY)
    time.sleep(0.05)
    made.post("/chat/completions", BODY)
    made.close()
    assert len(server.asked) == 4
    assert clock.waits == []


def test_closing_wakes_whoever_waits(server):
    server.behave = status(503, retry_after="60")
    made = Transport(server.url, clock=SystemClock())
    threading.Timer(0.2, made.close).start()
    started = time.perf_counter()
    with pytest.raises(Unanswered, match="was closed here"):
        made.post("/chat/completions", BODY)
    assert time.perf_counter() - started < 5.0


def test_a_connection_that_nobody_trusts_is_final(server, clock):
    made = Transport(server.url.replace("http:", "https:"), timeouts=QUICK, clock=clock)
    with pytest.raises(Unanswered, match="did not answer"):
        made.post("/chat/completions", BODY)
    made.close()


def test_requests_keep_to_the_rate(clock):
    pace = Pace(requests_per_minute=30, tokens_per_minute=None, clock=clock)
    for _ in range(4):
        pace.take_turn(0)
    assert clock.now() == pytest.approx(1000.0 + 3 * 2.0)  # one every 2 s, the first at once


def test_tokens_keep_to_the_rate_and_what_was_underestimated_is_made_up_for(clock):
    pace = Pace(requests_per_minute=None, tokens_per_minute=6000, clock=clock)
    pace.take_turn(100)
    pace.settle(expected_tokens=100, used_tokens=300)
    pace.take_turn(100)
    assert clock.now() == pytest.approx(1000.0 + 3.0)  # 300 tokens at 100 a second


def test_a_hold_is_for_everyone(clock):
    pace = Pace(requests_per_minute=None, tokens_per_minute=None, clock=clock)
    pace.hold(12.0)
    pace.take_turn(0)
    assert clock.waits == [12.0]


def test_threads_share_the_rate():
    clock = SystemClock()
    pace = Pace(requests_per_minute=6000, tokens_per_minute=None, clock=clock)
    times: list[float] = []

    def work() -> None:
        for _ in range(5):
            pace.take_turn(0)
            times.append(clock.now())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    assert len(times) == 20
    assert times[-1] - times[0] >= 19 * 0.01 * 0.99  # one every 10 ms


def events(*lines: str) -> bytes:
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def test_a_stream_is_put_together_and_tells_the_first_token(server, clock):
    parts = (
        '{"choices": [{"delta": {"role": "assistant"}}]}',
        '{"choices": [{"delta": {"content": "mu"}, "logprobs": {"content": [{"logprob": -0.5}]}}]}',
        '{"choices": [{"delta": {"content": "sic"}, "finish_reason": "stop"}]}',
        '{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}',
        "[DONE]",
    )
    server.behave = lambda handler, body, number: send(
        handler, 200, events(*parts), content_type="text/event-stream"
    )
    reply = post(transport(server, clock), stream=True)
    assert reply.body["choices"][0]["message"]["content"] == "music"
    assert reply.body["choices"][0]["logprobs"] == {"content": [{"logprob": -0.5}]}
    assert reply.body["usage"]["completion_tokens"] == 2
    assert 0 < reply.first_token_s <= reply.latency_s


@pytest.mark.parametrize(
    "lines",
    [
        ('{"choices": [{"delta": {"content": "mu"}}]}',),
        ('{"choices": [{"delta": {"content": "mu"}}]}', "{"),
        ('{"choices": [{"delta": {"content": "mu"}}]}', '{"error": {"message": "gone"}}'),
        ("[DONE]",),
    ],
    ids=["cut", "no json", "error", "empty"],
)
def test_a_broken_stream_is_asked_again(lines, server, clock):
    whole_stream = events('{"choices": [{"delta": {"content": "ok"}, "finish_reason": "stop"}]}', "[DONE]")
    server.behave = lambda handler, body, number: send(
        handler, 200, events(*lines) if number == 1 else whole_stream, content_type="text/event-stream"
    )
    assert post(transport(server, clock), stream=True).body["choices"][0]["text"] == "ok"
    assert len(server.asked) == 2


def test_a_server_that_does_not_stream_is_read_all_the_same(server, clock):
    reply = post(transport(server, clock), stream=True)
    assert reply.body["choices"][0]["message"]["content"] == "music"
    assert reply.first_token_s is None
