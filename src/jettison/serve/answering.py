"""From a call to the bytes that a client reads, and to the record of it."""

import asyncio
import dataclasses
import time
from typing import TYPE_CHECKING, Any

import msgspec

from jettison.serve import shapes
from jettison.serve.api_error import ApiError, cannot_answer
from jettison.serve.calls import Answer, Call, Reply, Took, took_of
from jettison.serve.decisions import decide, decision_body, systemone_body
from jettison.serve.http_io import EVENTS, JSON, Headers, Receive, Send, send_body
from jettison.serve.records import record_of
from jettison.serve.tell import tell

if TYPE_CHECKING:
    from jettison.serve.engine import Engine
    from jettison.serve.gateway import Gateway
    from jettison.serve.plan import Plan


async def answer_request(gateway: "Gateway", call: Call, receive: Receive, send: Send) -> Took:
    """Answer under the plan that is in force now, to the end, whatever plan comes after.

    Raises:
        ApiError: There is no answer, and nothing has been sent.
    """
    answered = _answered(gateway, call, receive, send)
    return await (answered if gateway.tracing is None else gateway.tracing.request(call, answered))


async def _answered(gateway: "Gateway", call: Call, receive: Receive, send: Send) -> Took:
    plan = gateway.plan
    plan.enter()
    gateway.metrics.in_flight.inc()
    try:
        if call.operation == "embedding":
            return await _embedding(gateway, plan, call, send)
        if call.operation == "infer":
            return await _infer(gateway, plan, call, send)
        if call.operation == "completion" and _is_batch(plan, call):
            return await _completions(gateway, plan, call, send)
        reply = await _asked(gateway, plan, call)
        if reply.frames is not None:
            return await _stream(gateway, plan, call, reply, receive, send)
        return await _whole(gateway, plan, call, reply, send)
    finally:
        gateway.metrics.in_flight.dec()
        plan.leave()


async def _asked(gateway: "Gateway", plan: "Plan", call: Call) -> Reply:
    """The route's reply; a failure is recorded before it is raised."""
    try:
        if call.operation == "other":
            reply = await next(iter(plan.upstreams.values())).answer(call)
        elif plan.root is None:
            raise cannot_answer("nothing here answers this; there are embedders alone.")
        else:
            reply = await plan.root.answer(call)
    except ApiError as error:
        gateway.record(record_of(call, None, role="answer", error=error), call)
        _finish(gateway, call, None, error.status, error=error)
        if call.side or error.took is not None:
            error.took = _with_leans(error.took or Took(0, None), call)
        raise
    if reply.latency_s is None:
        reply.latency_s = time.monotonic() - call.started_s
    return reply


def _finish(
    gateway: "Gateway", call: Call, reply: Reply | None, status: int, *, error: ApiError | None = None
) -> None:
    """Records and counts, once the last byte is known."""
    for side in call.side:
        gateway.record(side, call)
    if gateway.tracing is not None:
        gateway.tracing.answered(call, reply, error)
    told = reply or error
    arm = None if told is None else told.arm
    seconds = time.monotonic() - call.started_s
    gateway.metrics.request(call.operation, arm, status, seconds)
    if reply is not None:
        gateway.metrics.tokens(arm, reply.prompt_tokens, reply.completion_tokens)
        gateway.record(record_of(call, reply, role="answer"), call, is_label=reply.is_label)
    if gateway.config.log_requests:
        tell(
            "request",
            request_id=call.request_id,
            operation=call.operation,
            status=status,
            arm=arm,
            route=None if told is None else told.place,
            seconds=round(seconds, 6),
        )


def _took(call: Call, reply: Reply) -> Took:
    return _with_leans(took_of(reply), call)


def _with_leans(took: Took, call: Call) -> Took:
    """With the lean answers before it that did not stand: they were paid for too."""
    costs = [side.cost for side in call.side if side.role == "lean" and side.cost is not None]
    if not costs:
        return took
    tokens = [n for cost in costs for n in (cost.prompt_tokens, cost.completion_tokens) if n is not None]
    usd = [cost.price_usd for cost in costs if cost.price_usd is not None]
    return Took(
        None if took.tokens is None else took.tokens + sum(tokens),
        took.usd if not usd else (took.usd or 0.0) + sum(usd),
    )


def reply_headers(gateway: "Gateway", plan: "Plan", call: Call, reply: Reply) -> Headers:
    """Who answered, whether it was escalated, and how sure it was."""
    headers = [
        (b"x-request-id", call.request_id.encode()),
        (b"x-jettison-arm", (reply.arm or "single").encode()),
        (b"x-jettison-route", reply.place.encode()),
        (b"x-jettison-escalated", b"true" if reply.escalated else b"false"),
    ]
    if reply.confidence is not None:
        headers.append((b"x-jettison-confidence", b"%.6f" % reply.confidence))
    if call.notes:
        said = ",".join(f"{name}={did}" for name, did in call.notes.items())
        headers.append((b"x-jettison-guardrails", said.encode("ascii", "replace")))
    if plan.is_unproven:
        headers.append((b"x-jettison-unproven", b"true"))
    return headers


async def _whole(gateway: "Gateway", plan: "Plan", call: Call, reply: Reply, send: Send) -> Took:
    headers = reply_headers(gateway, plan, call, reply)
    if call.stream and call.operation != "other":
        return await _stream_whole(gateway, call, reply, headers, send)
    body = reply.body if reply.body is not None else _body(gateway, call, reply)
    # Recorded first: whoever has the answer can find its record.
    _finish(gateway, call, reply, 200)
    await send_body(send, 200, [JSON, *headers], body)
    return _took(call, reply)


def _body(gateway: "Gateway", call: Call, reply: Reply) -> bytes:
    """A local answer in the shape that was asked for."""
    answer = reply.answer
    assert answer is not None
    model = gateway.model_name
    if call.operation == "chat":
        return shapes.chat_completion(call, answer, gateway.said(reply), model)
    if call.operation == "completion":
        return shapes.completion(call, [(answer, gateway.said(reply), _prompt(call))], model)
    answers = [decide(question, answer) for question in call.questions]
    used = shapes.usage(call, answer, "")
    write = systemone_body if call.path == "/systemone" else decision_body
    return write(answers, model, used)


def _prompt(call: Call) -> str:
    prompt = call.body.get("prompt")
    return prompt if isinstance(prompt, str) else prompt[0] if prompt else ""


async def _stream_whole(gateway: "Gateway", call: Call, reply: Reply, headers: Headers, send: Send) -> Took:
    """An answer that is there already, as the stream that was asked for."""
    model = gateway.model_name
    answer = reply.answer
    if answer is not None and call.operation == "chat":
        frames = list(shapes.chat_frames(call, answer, gateway.said(reply), model))
    elif answer is not None:
        said = [(answer, gateway.said(reply), _prompt(call))]
        frames = list(shapes.completion_frames(call, said, model))
    else:
        frames = list(frames_of_body(call, reply.body or b"{}"))
    reply.first_token_s = time.monotonic() - call.started_s
    _finish(gateway, call, reply, 200)
    await send({"type": "http.response.start", "status": 200, "headers": [EVENTS, *headers]})
    await send({"type": "http.response.body", "body": b"".join(frames)})
    return _took(call, reply)


def frames_of_body(call: Call, raw: bytes) -> Any:
    """An upstream's whole answer as a stream: it was asked for whole, or answered so."""
    body = msgspec.json.decode(raw)
    used = body.pop("usage", None)
    if call.operation == "chat":
        body["object"] = "chat.completion.chunk"
    for choice in body.get("choices", ()):
        shared = {"index": choice.get("index", 0)}
        finish = choice.get("finish_reason")
        if call.operation == "chat":
            delta = {k: v for k, v in (choice.get("message") or {}).items() if v is not None}
            for i, tool in enumerate(delta.get("tool_calls") or ()):
                tool.setdefault("index", i)
            chunk = {**shared, "delta": delta, "logprobs": choice.get("logprobs"), "finish_reason": None}
            yield _event({**body, "choices": [chunk]})
            yield _event({**body, "choices": [{**shared, "delta": {}, "finish_reason": finish}]})
        else:
            yield _event({**body, "choices": [choice]})
    if used is not None and (call.body.get("stream_options") or {}).get("include_usage"):
        yield _event({**body, "choices": [], "usage": used})
    yield shapes.DONE


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


async def _stream(
    gateway: "Gateway", plan: "Plan", call: Call, reply: Reply, receive: Receive, send: Send
) -> Took:
    """Pass a stream on. However it ends, the client sees an end: the last frame, or an error event."""
    headers = reply_headers(gateway, plan, call, reply)
    await send({"type": "http.response.start", "status": 200, "headers": [EVENTS, *headers]})
    if reply.first_token_s is not None:
        gateway.metrics.first_token(reply.first_token_s)
    me = asyncio.current_task()
    assert me is not None
    watch = asyncio.create_task(_cancel_when_gone(receive, me))
    frames = reply.frames
    assert frames is not None
    try:
        async for frame in frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
    except asyncio.CancelledError:
        if watch.done() and not watch.cancelled():
            me.uncancel()  # the client went away: an end like any other
            reply.error = reply.error or "client_gone"
        else:
            reply.error = "server_stopped"
            error = ApiError(503, "server_stopped", "the gateway is stopping.", should_retry=True)
            await send({"type": "http.response.body", "body": error.frame})
            raise
    except Exception as error:  # noqa: BLE001 - a fault of ours must not pass for the end of the answer
        tell("internal_error", request_id=call.request_id, kind=type(error).__name__)
        reply.error = "internal_error"
        frame = ApiError(500, "internal_error", "the gateway failed in mid-stream.").frame
        await send({"type": "http.response.body", "body": frame, "more_body": True})
    finally:
        watch.cancel()
        await _close(frames)
        _finish(gateway, call, reply, 200)
    await send({"type": "http.response.body", "body": b""})
    return _took(call, reply)


async def _close(frames: Any) -> None:
    close = getattr(frames, "aclose", None)
    if close is not None:
        await close()


async def _cancel_when_gone(receive: Receive, task: "asyncio.Task[Any]") -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            task.cancel()
            return


async def _embedding(gateway: "Gateway", plan: "Plan", call: Call, send: Send) -> Took:
    """A local embedder by its name, the release where it is one, else the upstreams of the route."""
    engine = plan.embedder_of(str(call.body.get("model")), whole=gateway.model_name)
    if engine is None:
        reply = await _asked(gateway, plan, call)
        return await _whole(gateway, plan, call, reply, send)
    given = call.body["input"]
    inputs = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    vectors = await _embedded(gateway, call, engine, list(inputs))
    n_tokens = sum(
        len(one) if isinstance(one, list) else -(-len(one) // shapes.CHARACTERS_A_TOKEN) for one in inputs
    )
    as_base64 = call.body.get("encoding_format") == "base64"
    body = shapes.embeddings(vectors, str(call.body.get("model")), n_tokens, as_base64=as_base64)
    return await _send_vectors(gateway, plan, call, engine, n_tokens, body, send)


async def _infer_vectors(
    gateway: "Gateway", plan: "Plan", call: Call, engine: "Engine", texts: list[str], send: Send
) -> Took:
    """The same by Open Inference Protocol."""
    vectors = await _embedded(gateway, call, engine, texts)
    given = call.body.get("id")
    body = shapes.embedding_infer(
        call.path.split("/")[3], given if isinstance(given, str) else None, vectors
    )
    n_tokens = sum(-(-len(one) // shapes.CHARACTERS_A_TOKEN) for one in texts)
    return await _send_vectors(gateway, plan, call, engine, n_tokens, body, send)


async def _embedded(gateway: "Gateway", call: Call, engine: "Engine", inputs: list[Any]) -> Any:
    """One vector an input; a failure is recorded before it is raised."""
    try:
        vectors = await engine.embed(inputs)
        n_dimensions = call.body.get("dimensions")
        if n_dimensions is not None and n_dimensions != len(vectors[0]):
            raise cannot_answer(f"vectors have {len(vectors[0])} dimensions.", param="dimensions")
    except ApiError as error:
        gateway.record(record_of(call, None, role="answer", error=error), call)
        _finish(gateway, call, None, error.status)
        raise
    return vectors


async def _send_vectors(
    gateway: "Gateway", plan: "Plan", call: Call, engine: "Engine", n_tokens: int, body: bytes, send: Send
) -> Took:
    reply = Reply(candidate=engine.name, model=engine.name, prompt_tokens=n_tokens, completion_tokens=0)
    reply.latency_s = time.monotonic() - call.started_s
    _finish(gateway, call, reply, 200)
    await send_body(send, 200, [JSON, *reply_headers(gateway, plan, call, reply)], body)
    return _took(call, reply)


async def _infer(gateway: "Gateway", plan: "Plan", call: Call, send: Send) -> Took:
    """Each text goes its own way through the route; the engines put them together again."""
    texts = call.body["inputs"][0]["data"]
    name, given = call.path.split("/")[3], call.body.get("id")
    asked = given if isinstance(given, str) else None
    if name in plan.embedders:
        return await _infer_vectors(gateway, plan, call, plan.embedders[name], texts, send)
    calls = [_part(call, text, i, len(texts)) for i, text in enumerate(texts)]
    found = await _all_asked(gateway, plan, calls)
    answers = [reply.answer for reply in found if reply.answer is not None]
    if len(answers) != len(found):
        raise cannot_answer("the route answers in a shape that has no labels.")
    arms = [reply.place or "single" for reply in found]
    body = shapes.infer_response(name, gateway.release_digest[:12], asked, answers, arms)
    headers = reply_headers(gateway, plan, _noted(call, calls), _least_sure(found))
    for one, reply in zip(calls, found, strict=True):
        _finish(gateway, one, reply, 200)
    await send_body(send, 200, [JSON, *headers], body)
    return _sum([_took(*one) for one in zip(calls, found, strict=True)])


async def _all_asked(gateway: "Gateway", plan: "Plan", calls: list[Call]) -> list[Reply]:
    """One reply a call. Where one fails, those that came are recorded, and booked, all the same.

    Raises:
        ApiError: The first failure, with what the others took.
    """
    replies = await asyncio.gather(*(_asked(gateway, plan, one) for one in calls), return_exceptions=True)
    came = [(one, reply) for one, reply in zip(calls, replies, strict=True) if isinstance(reply, Reply)]
    failed = next((one for one in replies if isinstance(one, BaseException)), None)
    if failed is None:
        return [reply for _, reply in came]
    for one, reply in came:
        _finish(gateway, one, reply, 200)
    if isinstance(failed, ApiError):
        lost = [one.took for one in replies if isinstance(one, ApiError) and one.took is not None]
        took = [*lost, *(_took(*one) for one in came)]
        failed.took = _sum(took) if took else None
    raise failed


def _part(call: Call, text: str, i: int, n: int) -> Call:
    request_id = call.request_id if n == 1 else f"{call.request_id}-{i}"
    key = call.key if call.is_sticky else request_id
    fresh: dict[str, Any] = {"side": [], "notes": {}, "output_notes": {}}
    return dataclasses.replace(call, text=text, request_id=request_id, key=key, **fresh)


def _noted(call: Call, parts: list[Call]) -> Call:
    """The whole call with what guardrails did to any of its parts."""
    for part in parts:
        call.notes.update(part.notes)
    return call


def _least_sure(replies: list[Reply]) -> Reply:
    return min(replies, key=lambda reply: -1.0 if reply.confidence is None else reply.confidence)


def _sum(took: list[Took]) -> Took:
    tokens = [one.tokens for one in took if one.tokens is not None]
    usd = [one.usd for one in took if one.usd is not None]
    return Took(sum(tokens) if len(tokens) == len(took) else None, sum(usd) if usd else None)


def _is_batch(plan: "Plan", call: Call) -> bool:
    """Several prompts that local models answer one by one; an upstream takes them as they are."""
    prompt = call.body.get("prompt")
    texts = isinstance(prompt, list) and len(prompt) > 1 and all(isinstance(one, str) for one in prompt)
    return texts and not plan.upstreams


async def _completions(gateway: "Gateway", plan: "Plan", call: Call, send: Send) -> Took:
    prompts: list[str] = call.body["prompt"]
    calls = []
    for i, prompt in enumerate(prompts):
        text, why = gateway.task_text.of_text(prompt)
        part = _part(call, text or "", i, len(prompts))
        part.text, part.why_no_text, part.body = text, why, {**call.body, "prompt": prompt}
        calls.append(part)
    found = await _all_asked(gateway, plan, calls)
    said: list[tuple[Answer, str, str]] = [
        (reply.answer, gateway.said(reply), prompt)
        for reply, prompt in zip(found, prompts, strict=True)
        if reply.answer is not None
    ]
    headers = reply_headers(gateway, plan, _noted(call, calls), _least_sure(found))
    for one, reply in zip(calls, found, strict=True):
        _finish(gateway, one, reply, 200)
    if call.stream:
        frames = b"".join(shapes.completion_frames(call, said, gateway.model_name))
        await send({"type": "http.response.start", "status": 200, "headers": [EVENTS, *headers]})
        await send({"type": "http.response.body", "body": frames})
    else:
        body = shapes.completion(call, said, gateway.model_name)
        await send_body(send, 200, [JSON, *headers], body)
    return _sum([_took(*one) for one in zip(calls, found, strict=True)])
