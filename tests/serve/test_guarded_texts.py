"""No text of a request or a reply gets around its guardrails, whatever part, choice or field it is in."""

import pytest

from gateways import Faulty, ask, completion, config_of, delta, post, records_in, running, upstream_of
from jettison.route import Cascade, Guarded, Single

BIG = Single(candidate="upstream:big")
CARD = "4111 1111 1111 1111"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


@pytest.fixture
def upstream():
    with Faulty() as upstream:
        yield upstream


def guarded(tmp_path, upstream, inner=BIG, **guardrails):
    upstreams = {"big": upstream_of(upstream.url), "other": upstream_of(upstream.url, model="other")}
    route = Guarded(inner=inner, guardrails=tuple(guardrails))
    return running(config_of(tmp_path, upstreams=upstreams, guardrails=guardrails, route=route))


def says(*choices):
    async def behave(exchange):
        body = completion("")
        body["choices"] = [
            {"index": i, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
            for i, message in enumerate(choices)
        ]
        await exchange.reply(body)

    return behave


def streams(*events):
    async def behave(exchange):
        await exchange.begin_stream()
        for event in events:
            await (exchange.chunk if isinstance(event, bytes) else exchange.event)(event)
        await exchange.event("[DONE]")
        await exchange.end_stream()

    return behave


def test_text_beside_a_picture_is_seen(tmp_path, upstream):
    parts = [{"type": "text", "text": "my card "}, PICTURE, {"type": "text", "text": CARD}]
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        assert ask(gateway, parts).status == 200
        told = upstream.asked[-1].body["messages"][0]["content"]
        assert CARD not in str(told)
        assert told[0]["text"].startswith("my card ")
        assert told[1] == PICTURE
    with guarded(tmp_path / "b", upstream, pii={"action": "block"}) as gateway:
        assert ask(gateway, parts).json["error"]["code"] == "content_filter"


def test_texts_to_embed_and_to_decide_are_seen(tmp_path, upstream):
    async def embeds(exchange):
        await exchange.reply({"object": "list", "data": [{"embedding": [0.0]}]})

    upstream.behave = embeds
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        assert post(gateway, "/v1/embeddings", {"model": "m", "input": ["fine", CARD]}).status == 200
        assert upstream.asked[-1].body["input"][0] == "fine"
        assert CARD not in str(upstream.asked[-1].body)
        questions = [{"type": "predicate", "predicate": "is it so?"}]
        given = [{"role": "user", "content": f"card {CARD}"}]
        post(gateway, "/v1/decisions", {"input": given, "questions": questions})
        assert CARD not in str(upstream.asked[-1].body)


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": f'"{CARD}"'}}]},
        {"content": "fine", "reasoning_content": f"card {CARD}"},
        {"content": [{"type": "text", "text": f"card {CARD}"}]},
        {"content": f"card {CARD}"},
    ],
)
def test_every_choice_and_field_of_an_answer_is_seen(tmp_path, upstream, message):
    upstream.behave = says({"content": "the first"}, message)
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        found = ask(gateway, "x", n=2)
        assert found.json["choices"][0]["message"]["content"] == "the first"
        assert CARD not in str(found.raw)
        assert records_in(gateway)[-1].output == "the first"
    with guarded(tmp_path / "b", upstream, pii={"action": "block"}) as gateway:
        assert ask(gateway, "x", n=2).json["error"]["code"] == "content_filter"


def test_what_was_redacted_stays_so_when_an_output_escalates(tmp_path, upstream):
    upstream.behave = says({"content": "far too long an answer"})
    inner = Cascade(lean=Single(candidate="upstream:other"), fallback=BIG, threshold=0.0)
    rails = {
        "pii": {"action": "redact", "where": ["input"]},
        "length": {"action": "escalate", "most_characters": 5, "where": ["output"]},
    }
    with guarded(tmp_path, upstream, inner, **rails) as gateway:
        ask(gateway, f"card {CARD}")
        assert len(upstream.asked) == 2
        assert not any(CARD in str(one.body) for one in upstream.asked)


def test_a_stream_of_the_fallback_is_guarded_too_when_a_lean_output_escalates(tmp_path, upstream):
    async def whole_then_stream(exchange):
        if exchange.body.get("stream"):
            await streams(delta(f"card {CARD}"), delta(None, finish="stop"))(exchange)
        else:
            await exchange.reply(completion(f"lean {CARD}"))

    upstream.behave = whole_then_stream
    inner = Cascade(lean=Single(candidate="upstream:other"), fallback=BIG, threshold=0.0)
    with guarded(tmp_path, upstream, inner, pii={"action": "escalate", "where": ["output"]}) as gateway:
        found = ask(gateway, "x", stream=True)
        assert CARD not in str(found.raw)


@pytest.mark.parametrize("between", [b"event: ping\n\n", {"choices": [], "usage": None}])
def test_an_event_without_text_between_two_pieces_gives_nothing_out(tmp_path, upstream, between):
    upstream.behave = streams(
        delta("card 4111 1111 "), between, delta("1111 1111."), delta(None, finish="stop")
    )
    with guarded(tmp_path, upstream, pii={"action": "redact", "where": ["output"]}) as gateway:
        assert b"1111" not in ask(gateway, "x", stream=True).raw
        assert "1111" not in records_in(gateway)[-1].output


@pytest.mark.parametrize(
    "inside",
    [{"reasoning_content": CARD}, {"content": [{"type": "text", "text": CARD}]}, {"refusal": CARD}],
)
def test_no_field_of_a_stream_gets_around(tmp_path, upstream, inside):
    upstream.behave = streams(
        {**delta(None), "choices": [{"index": 0, "delta": inside}]}, delta("fine", finish="stop")
    )
    with guarded(tmp_path, upstream, pii={"action": "block", "where": ["output"]}) as gateway:
        assert CARD.encode() not in ask(gateway, "x", stream=True).raw


def test_guardrails_of_inputs_alone_leave_streams_of_tools_as_they_are(tmp_path, upstream):
    calls = [{"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}]
    upstream.behave = streams(
        {**delta(None), "choices": [{"index": 0, "delta": {"tool_calls": calls}}]},
        delta(None, finish="tool_calls"),
    )
    with guarded(tmp_path, upstream, pii={"action": "block", "where": ["input"]}) as gateway:
        events = ask(gateway, "x", stream=True).events
        assert events[0]["choices"][0]["delta"]["tool_calls"] == calls
        assert events[-1] == "[DONE]"


def test_the_record_of_a_guarded_stream_has_what_went_through(tmp_path, upstream):
    upstream.behave = streams(delta(f"the key is AKIA{'ABCDEFGHIJKLMNOP'} ok"), delta(None, finish="stop"))
    with guarded(tmp_path, upstream, secrets={"action": "redact", "where": ["output"]}) as gateway:
        said = ask(gateway, "x", stream=True)
        assert b"AKIAABCDEFGHIJKLMNOP" not in said.raw
        assert "AKIAABCDEFGHIJKLMNOP" not in records_in(gateway)[-1].output
