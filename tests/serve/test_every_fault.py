"""Whatever an upstream does, the client gets an answer or one error in OpenAI's shape, in time.

The next request is served. Which error each fault is stands in test_whole_faults.py,
test_stream_faults.py and docs/faults.md.
"""

import json
import time
from collections.abc import Iterator

import pytest

from fault_upstream import FaultUpstream
from gateways import IMPATIENT, Answered, Running, ask, config_of, running, upstream_of
from upstream_faults import ANSWER, FAULTS

pytestmark = pytest.mark.slow
LONGEST_S = 6.0
"""Twice the total time-out: one retry may take it all again."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, FaultUpstream]]:
    folder = tmp_path_factory.mktemp("every-fault")
    with FaultUpstream() as upstream:
        big = upstream_of(
            upstream.url, max_reply_bytes=1_000_000, breaker_failures=10_000, retry_share=1.0, **IMPATIENT
        )
        with running(config_of(folder, upstreams={"big": big})) as gateway:
            yield gateway, upstream


def error_of(raw: bytes) -> dict[str, object]:
    error = json.loads(raw)["error"]
    assert isinstance(error["message"], str)
    assert error["message"]
    assert error["type"]
    return dict(error)


def said(answered: Answered) -> str:
    """What a stream said; it must end in `[DONE]` or in an error event."""
    events = [line[5:].strip() for line in answered.raw.split(b"\n") if line.startswith(b"data:")]
    assert events
    if events[-1] != b"[DONE]":
        error_of(events[-1])
    chunks = [json.loads(event) for event in events if event != b"[DONE]"]
    return "".join(
        choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ())
    )


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_every_fault_ends_in_time_in_an_answer_or_an_error(
    pair: tuple[Running, FaultUpstream], fault: str, streams: bool
) -> None:
    gateway, upstream = pair
    upstream.fault = fault
    try:
        began = time.monotonic()
        answered = ask(gateway, "hello", **({"stream": True} if streams else {}))
        assert time.monotonic() - began < LONGEST_S
    finally:
        upstream.fault = None
    assert answered.status == 200 or 400 <= answered.status < 600
    if answered.status != 200:
        error_of(answered.raw)
        assert answered.headers["x-should-retry"] == "false"
    elif streams:
        text = said(answered)
        assert set(text.split()) <= {"The"} if fault == "endless_stream" else ANSWER.startswith(text)
    else:
        assert "choices" in answered.json
    healthy = ask(gateway, "and now?")
    assert (healthy.status, healthy.json["choices"][0]["message"]["content"]) == (200, ANSWER)
