"""No text of a request or a reply gets around its guardrails, whatever part, choice or field it is in."""

import json

import pytest

from gateways import (
    ask,
    client,
    completion,
    config_of,
    delta,
    post,
    records_in,
    running,
    upstream_of,
)
from jettison.route import Cascade, Guarded, Single
from jettison.serve.guarded_stream import MOST_TEXT

BIG = Single(candidate="upstream:big")
CARD = "4111 1111 1111 1111"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}


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


def test_decisions_that_pass_are_guarded_and_infer_never_goes_as_it_came(tmp_path, upstream):
    async def decides(exchange):
        await exchange.reply({"object": "decision", "answers": [], "usage": {"input_tokens": 3}})

    upstream.behave = decides
    far = {"big": upstream_of(upstream.url, decisions="pass")}
    rails = {"pii": {"action": "redact"}}
    route = Guarded(inner=BIG, guardrails=("pii",))
    with running(config_of(tmp_path, upstreams=far, guardrails=rails, route=route)) as gateway:
        asked = {"type": "predicate", "instructions": [{"text": f"is it {CARD}?"}], "name": "q"}
        found = post(gateway, "/v1/decisions", {"input": f"card {CARD}", "questions": [asked]})
        assert found.json["object"] == "decision"
        assert CARD not in str(upstream.asked[-1].body)
        assert upstream.asked[-1].body["questions"][0]["name"] == "q"
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": [CARD]}
        found = post(gateway, f"/v2/models/{gateway.gateway.model_name}/infer", {"inputs": [tensor]})
        assert "no prompt to ask a bare text with; set `prompt`." in found.json["error"]["message"]
        assert upstream.n == 1


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


def chunk(inside, *, index=0, finish=None, **more):
    choice = {"index": index, "delta": inside, "finish_reason": finish}
    return {**delta(None), "choices": [choice], **more}


def call(index, arguments, **more):
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}, **more}]}


def test_every_choice_of_a_stream_is_guarded_across_its_pieces(tmp_path, upstream):
    pieces = ("card 41", "11 1111 11", "11 1111, and", " so on")
    upstream.behave = streams(
        *(delta(one, index=i) for one in pieces for i in (0, 1)),
        *(delta(None, finish="stop", index=i) for i in (0, 1)),
    )
    with guarded(tmp_path, upstream, pii={"action": "redact", "where": ["output"]}) as gateway:
        events = ask(gateway, "x", stream=True, n=2).events
        choices = [one for e in events[:-1] for one in e["choices"]]
        for i in (0, 1):
            said = "".join(one["delta"].get("content", "") for one in choices if one["index"] == i)
            assert (said[:5], said[-11:]) == ("card ", ", and so on")
            assert "1111" not in said
        assert [one["finish_reason"] for one in choices if one["finish_reason"]] == ["stop", "stop"]
        assert records_in(gateway)[-1].output.endswith("and so on")


TOOLS = (
    chunk({"role": "assistant", "content": None, **call(0, "", id="c1", type="function")}),
    chunk({"tool_calls": [{"index": 0, "function": {"name": "pay"}}]}),
    chunk(call(0, '{"card": "4111 1111')),
    chunk(call(1, '{"x": 1}', id="c2", type="function")),
    chunk(call(0, ' 1111 1111"}')),
    chunk({}, finish="tool_calls", usage={"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}),
)


def test_calls_of_tools_in_a_stream_are_guarded_whole(tmp_path, upstream):
    upstream.behave = streams(*TOOLS)
    schema = {"action": "block", "where": ["output"]}
    with guarded(tmp_path, upstream, pii={"action": "redact"}, json_schema=schema) as gateway:
        asked = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        with client(gateway).chat.completions.stream(**asked) as stream:
            for _ in stream:
                pass
            message = stream.get_final_completion().choices[0].message
        first, second = message.tool_calls
        assert (first.id, first.function.name, second.id) == ("c1", "pay", "c2")
        assert json.loads(first.function.arguments) == {"card": "[CARD]"}
        assert json.loads(second.function.arguments) == {"x": 1}
        events = ask(gateway, "x", stream=True).events
        assert [e["usage"]["total_tokens"] for e in events[:-1] if e.get("usage")] == [7]
        assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"
        assert records_in(gateway)[-1].guardrails == {"pii": "redact"}
    with guarded(tmp_path / "b", upstream, pii={"action": "block"}) as gateway:
        found = ask(gateway, "x", stream=True)
        assert found.events[-1]["error"]["code"] == "content_filter"
        assert b"4111" not in found.raw


@pytest.mark.parametrize(
    "inside",
    [
        {"function_call": {"name": "pay", "arguments": CARD}},
        {"audio": {"transcript": CARD}},
        {"reasoning_details": [{"text": CARD}]},
        {"tool_calls": [{"index": 0, "type": "custom", "custom": {"name": "pay", "input": CARD}}]},
        {"refusal": f"not with {CARD} "},
    ],
)
def test_what_else_stands_in_a_piece_is_guarded_or_left_out(tmp_path, upstream, inside):
    upstream.behave = streams(
        {**chunk(inside), "citations": [CARD], "choices": [{**chunk(inside)["choices"][0], "said": CARD}]},
        delta("fine", finish="stop"),
    )
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        found = ask(gateway, "x", stream=True)
        assert CARD.encode() not in found.raw
        assert b"fine" in found.raw
        assert found.events[-1] == "[DONE]"


def test_of_a_guarded_streams_usage_only_counts_go_on(tmp_path, upstream):
    used = {"total_tokens": 3, "note": CARD, "details": {"cached_tokens": 1, "note": CARD}}
    upstream.behave = streams(delta("fine", finish="stop"), {"choices": [], "usage": used}, {"usage": CARD})
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        found = ask(gateway, "x", stream=True)
        assert CARD.encode() not in found.raw
        assert found.events[-2]["usage"] == {"total_tokens": 3, "details": {"cached_tokens": 1}}


def test_an_error_of_the_upstream_in_mid_stream_is_guarded(tmp_path, upstream):
    upstream.behave = streams(delta("a word"), {"error": {"message": f"no such card {CARD}", "code": "x"}})
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        told = ask(gateway, "x", stream=True).events[-1]["error"]
        assert (told["code"], told["message"]) == ("x", "no such card [CARD]")


@pytest.mark.parametrize("depth", [400, 900, 3000])
@pytest.mark.parametrize("is_guarded", [True, False])
def test_what_an_upstream_nests_deeply_is_guarded_or_refused(tmp_path, upstream, depth, is_guarded):
    deep = b'{"a":[' * (depth // 2) + b'"' + CARD.encode() + b'"' + b"]}" * (depth // 2)
    event = json.dumps(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "DEEP"}}]})).encode()
    whole = json.dumps(completion("x")).encode().replace(b'"x"', b'"x", "more": ' + deep)

    async def behave(exchange):
        if not exchange.body.get("stream"):
            await exchange.reply(whole)
            return
        told = b"data: " + event.replace(b'"DEEP"', deep) + b"\n\n"
        await streams(delta("a word"), told, delta(None, finish="tool_calls"))(exchange)

    upstream.behave = behave
    rails = {"pii": {"action": "redact", "where": ["output"] if is_guarded else ["input"]}}
    with guarded(tmp_path, upstream, **rails) as gateway:
        for stream in (False, True):
            found = ask(gateway, "x", stream=stream)
            assert b"internal_error" not in found.raw
            assert (CARD.encode() in found.raw) == (not is_guarded and depth < 1000)
            if depth > 1000:
                assert b"bad_upstream_reply" in found.raw or b"unguardable" in found.raw


def test_calls_of_tools_beyond_all_bounds_end_a_guarded_stream(tmp_path, upstream):
    upstream.behave = streams(chunk(call(0, "1" * (MOST_TEXT + 1))), delta(None, finish="stop"))
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        assert ask(gateway, "x", stream=True).events[-1]["error"]["code"] == "unguardable"


@pytest.mark.parametrize(
    "more",
    [
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": CARD}}]}
            ]
        },
        {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": CARD}]}]},
        {"messages": [{"role": "assistant", "content": "a", "reasoning_content": CARD}]},
        {"tools": [{"type": "function", "function": {"name": "f", "description": f"as {CARD}"}}]},
        {"prediction": {"type": "content", "content": CARD}},
    ],
)
def test_earlier_calls_and_descriptions_of_tools_are_seen(tmp_path, upstream, more):
    last = {"role": "user", "content": "x"}
    body = {**more, "messages": [*more.get("messages", ()), last]}
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        assert post(gateway, "/v1/chat/completions", body).status == 200
        assert CARD not in str(upstream.asked[-1].body)
        assert upstream.asked[-1].body["messages"][-1] == last
    with guarded(tmp_path / "b", upstream, pii={"action": "block"}) as gateway:
        assert post(gateway, "/v1/chat/completions", body).json["error"]["code"] == "content_filter"


def test_what_guardrails_cannot_read_does_not_go_on(tmp_path, upstream):
    rails = {"pii": {"action": "redact"}}
    with guarded(tmp_path, upstream, **rails) as gateway:
        for path, body in (
            ("/v1/completions", {"model": "m", "prompt": [1, 2, 3]}),
            ("/v1/completions", {"model": "m", "prompt": [[1, 2], [3]]}),
            ("/v1/embeddings", {"model": "m", "input": [1, 2, 3]}),
        ):
            assert post(gateway, path, body).json["error"]["code"] == "unguardable"
        number = json.dumps({"card": int(CARD.replace(" ", ""))})
        asked = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": number}}]}
        found = post(gateway, "/v1/chat/completions", {"messages": [asked]})
        assert "no JSON any more" in found.json["error"]["message"]
        assert upstream.n == 0
        upstream.behave = says(asked)
        assert ask(gateway, "x").json["error"]["code"] == "content_filter"
        upstream.behave = streams(chunk(call(0, number)), delta(None, finish="tool_calls"))
        assert ask(gateway, "x", stream=True).events[-1]["error"]["code"] == "content_filter"


@pytest.mark.parametrize(
    "beside", [{"reasoning_content": "let me think"}, {"refusal": "no"}, {"annotations": [{"url": "a b"}]}]
)
def test_guardrails_of_answers_alone_pass_over_what_stands_beside_them(tmp_path, upstream, beside):
    rails = {"json_schema": {"where": ["output"]}, "length": {"most_characters": 9, "where": ["output"]}}
    upstream.behave = says({"content": '{"a": 1}', **beside})
    with guarded(tmp_path, upstream, **rails) as gateway:
        assert ask(gateway, "x").status == 200
        upstream.behave = says({"content": "no JSON", **beside})
        assert ask(gateway, "x").json["error"]["code"] == "content_filter"


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
