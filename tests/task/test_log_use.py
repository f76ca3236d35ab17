"""What logged answers took is read where the log says it, and stays unknown where it does not."""
# ruff: noqa: E501  (a case a line)

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jettison.task.from_logs import task_from_logs
from jettison.task.log_calls import read_calls
from jettison.task.log_files import read_logged
from jettison.task.log_use import Use

CHAT = {"model": "big", "messages": [{"role": "user", "content": "hi"}]}
OPENAI = {
    "prompt_tokens": 40,
    "completion_tokens": 3,
    "total_tokens": 43,
    "prompt_tokens_details": {"cached_tokens": 32},
}
COUNTED = Use(model="big", prompt_tokens=40, completion_tokens=3, cached_tokens=32)


def said(answer: str = "yes", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": answer}, "finish_reason": "stop"}], **more}


def timed(latency_s: float) -> Use:
    return msgspec.structs.replace(COUNTED, latency_s=latency_s)


def span(**attributes: Any) -> dict[str, Any]:
    def value(given: Any) -> dict[str, Any]:
        return {"intValue": str(given)} if isinstance(given, int) else {"stringValue": given}

    message = [{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]
    answer = [{"role": "assistant", "parts": [{"type": "text", "content": "yes"}], "finish_reason": "stop"}]
    held = {
        "gen_ai.request.model": "big",
        "gen_ai.input.messages": json.dumps(message),
        "gen_ai.output.messages": json.dumps(answer),
        **{f"gen_ai.{key}": given for key, given in attributes.items()},
    }
    listed = [{"key": key, "value": value(given)} for key, given in held.items()]
    times = {"startTimeUnixNano": "1750000000000000000", "endTimeUnixNano": "1750000000250000000"}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": listed, **times}]}]}]}


SHAPES: dict[str, tuple[dict[str, Any], Use]] = {
    "usage alone": ({"request": CHAT, "response": said(usage=OPENAI, created=1750000000)}, COUNTED),
    "milliseconds around": ({"request": CHAT, "response": said(usage=OPENAI), "latency_ms": 250}, timed(0.25)),
    "seconds around": ({"request": CHAT, "response": said(usage=OPENAI), "duration_s": 0.25}, timed(0.25)),
    "a body as text": ({"request": CHAT, "response": json.dumps(said(usage=OPENAI)), "latency_ms": 250}, timed(0.25)),
    "a body within": ({"request": CHAT, "response": {"latency_ms": 250, "body": said(usage=OPENAI)}}, timed(0.25)),
    "start and end in words": (
        {"request": CHAT, "response": said(usage=OPENAI), "startTime": "2026-11-01T10:00:00Z", "endTime": "2026-11-01T10:00:00.250Z"},
        timed(0.25),
    ),
    "start and end in milliseconds": (
        {"request": CHAT, "response": said(usage=OPENAI), "start_time": 1750000000000, "end_time": 1750000000250},
        timed(0.25),
    ),
    "start and end in microseconds": (
        {"request": CHAT, "response": said(usage=OPENAI), "start_time": 1750000000000000, "end_time": 1750000000250000},
        COUNTED,
    ),
    "numbers beyond any float": (
        {"request": CHAT, "response": said(usage=OPENAI), "latency_ms": 10**400, "start_time": -(10**400), "end_time": 10**400},
        COUNTED,
    ),
    "llama.cpp's timings": (
        {"request": CHAT, "response": said(usage=OPENAI, timings={"prompt_ms": 200.0, "predicted_ms": 50.0})},
        timed(0.25),
    ),
    "a time without a unit": ({"request": CHAT, "response": said(usage=OPENAI), "latency": 250}, COUNTED),
    "an end before its start": (
        {"request": CHAT, "response": said(usage=OPENAI), "start_time": 1750000001, "end_time": 1750000000},
        COUNTED,
    ),
    "responses": (
        {
            "request": {"model": "big", "input": "hi"},
            "response": {
                "output": [{"type": "message", "content": [{"type": "output_text", "text": "yes"}]}],
                "usage": {"input_tokens": 40, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 32}},
            },
        },
        COUNTED,
    ),
    # Its `input_tokens` are those that no cache had: 5 + 32 read + 3 written.
    "anthropic": (
        {
            "request": CHAT,
            "response": {
                "content": [{"type": "text", "text": "yes"}],
                "usage": {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 32, "cache_creation_input_tokens": 3},
            },
        },
        COUNTED,
    ),
    "trace": (span(**{"usage.input_tokens": 40, "usage.output_tokens": 3, "usage.cache_read.input_tokens": 32}), timed(0.25)),
    "older trace": (
        span(**{"usage.prompt_tokens": 40, "usage.completion_tokens": 3}),
        Use(model="big", prompt_tokens=40, completion_tokens=3, latency_s=0.25),
    ),
    "no usage": ({"request": CHAT, "response": said()}, Use(model="big")),
    "half of a usage": ({"request": CHAT, "response": said(usage={"prompt_tokens": 40})}, Use(model="big", prompt_tokens=40)),
    "nonsense": ({"request": CHAT, "response": said(usage={"prompt_tokens": -1, "completion_tokens": True})}, Use(model="big")),
    "the answer names its model": (
        {"request": {"messages": CHAT["messages"]}, "response": said(model="big-2026-01-01")},
        Use(model="big-2026-01-01"),
    ),
}  # fmt: skip


def write(path: Path, items: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_what_an_answer_took_is_read_in_every_shape(tmp_path: Path, shape: str) -> None:
    item, use = SHAPES[shape]
    (call,) = read_calls([write(tmp_path / "log.jsonl", [item])]).calls
    found = call.uses["yes"]
    assert found.latency_s == pytest.approx(use.latency_s)
    assert msgspec.structs.replace(found, latency_s=use.latency_s) == use


def test_a_batch_tells_tokens_and_no_latency(tmp_path: Path) -> None:
    asked = {"custom_id": "r", "body": CHAT}
    answered = {
        "custom_id": "r",
        "response": {"status_code": 200, "body": said(usage=OPENAI, model="big-2026-01-01")},
        "start_time": 1750000000,
        "end_time": 1750003600,
    }
    for order in ([asked, answered], [answered, asked]):
        (call,) = read_calls([write(tmp_path / "log.jsonl", order)]).calls
        assert call.uses == {"yes": COUNTED}  # named as it was asked for


def test_of_calls_that_answered_alike_the_one_that_says_most_counts(tmp_path: Path) -> None:
    bare, counted = {"request": CHAT, "response": said()}, {"request": CHAT, "response": said(usage=OPENAI)}
    other = {"request": CHAT, "response": said("no", usage={"prompt_tokens": 1, "completion_tokens": 1})}
    (call,) = read_calls([write(tmp_path / "log.jsonl", [bare, counted, bare, other])]).calls
    assert call.uses["yes"] == COUNTED
    assert call.uses["no"].prompt_tokens == 1


def test_what_answers_took_stands_beside_them_and_is_told(tmp_path: Path) -> None:
    items = [
        {
            "request": {
                **CHAT,
                "messages": [{"role": "user", "content": f"Is this good or bad? case {i}"}],
            },
            "response": said("good" if i % 2 else "bad", **({"usage": OPENAI} if i % 4 else {})),
            **({"latency_ms": 100 + i} if i < 10 else {}),
        }
        for i in range(60)
    ]
    report = task_from_logs([write(tmp_path / "log.jsonl", items)], tmp_path / "out")
    assert report.models == {"big": 60}
    assert (report.n_counted, report.n_timed) == (45, 10)
    assert (report.prompt_tokens, report.completion_tokens) == (40, 3)
    uses = read_logged(tmp_path / "out" / "incumbent_outputs.jsonl").uses
    assert sum(use.is_counted for use in uses.values()) == 45
    assert {use.cached_tokens for use in uses.values()} == {32, None}
    assert sorted(use.latency_s for use in uses.values() if use.latency_s is not None)[0] == 0.1


def test_more_than_one_model_is_said(tmp_path: Path) -> None:
    items = [
        {
            "request": {
                "model": "big" if i % 3 else "small",
                "messages": [{"role": "user", "content": f"is it good? case {i}"}],
            },
            "response": said("good" if i % 2 else "bad"),
        }
        for i in range(60)
    ]
    report = task_from_logs([write(tmp_path / "log.jsonl", items)], tmp_path / "out")
    assert any("more than one model answered (big 40, small 20)" in note for note in report.notes)
