"""Everything that is no question to a model: health, models, metrics, feedback, moderations."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec

from jettison.incident import KIND
from jettison.serve.access import Key
from jettison.serve.api_error import ApiError, bad_request
from jettison.serve.http_io import (
    JSON,
    Receive,
    Send,
    new_request_id,
    read_body,
    read_headers,
    send_body,
    send_json,
)
from jettison.serve.openapi import OPENAPI
from jettison.serve.parsing import Parser, parse_infer, parse_other
from jettison.serve.reading import read_json, text_of
from jettison.serve.shapes import CHARACTERS_A_TOKEN
from jettison.task.pii import mask
from jettison.traffic import Feedback

if TYPE_CHECKING:
    from jettison.serve.gateway import Gateway

PROBE_S = 2.0
OTHER = re.compile(r"/v1(/[\w~:@-][\w.~:@-]*)+", re.ASCII)
"""Paths that may be passed on: none that leads out of the upstream's base address, or ends its path."""
VERSION = re.compile(r"^versions/[^/]+/?")
"""Open Inference Protocol lets a version be named; of each model there is one here."""
Page = Callable[["Gateway", Any, Receive, Send], Awaitable[None]]


async def live(gateway: "Gateway", scope: Any, receive: Receive, send: Send) -> None:
    """The process answers."""
    await send_json(send, 200, {"status": "live"})


async def ready(gateway: "Gateway", scope: Any, receive: Receive, send: Send) -> None:
    """Whether requests should come here: every engine answers a real question, and nobody is leaving."""
    found = await gateway.health()
    await send_json(send, 200 if found["status"] == "ready" else 503, found)


async def metrics(gateway: "Gateway", scope: Any, receive: Receive, send: Send) -> None:
    """Prometheus' page."""
    gateway.tell_metrics()
    kind = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
    await send_body(send, 200, [kind], gateway.metrics.page())


async def models(gateway: "Gateway", scope: Any, receive: Receive, send: Send) -> None:
    """`/v1/models`: what may be asked for, with its proof; of a pass-through, what its upstream says."""
    authorization = _check_key(gateway, scope)
    if gateway.is_pass_through:
        await _upstreams_models(gateway, None, authorization, send)
        return
    await send_json(send, 200, {"object": "list", "data": gateway.models()})


async def _upstreams_models(
    gateway: "Gateway", name: str | None, authorization: bytes | None, send: Send
) -> None:
    (upstream,) = gateway.plan.upstreams.values()
    given = None if authorization is None else authorization.decode("latin-1")
    await send_body(send, 200, [JSON], await upstream.models(name, given))


async def server(gateway: "Gateway", scope: Any, receive: Receive, send: Send) -> None:
    """Open Inference Protocol's word on the server itself."""
    await send_json(send, 200, {"name": "jettison", "version": version("jettison"), "extensions": []})


async def openapi(gateway: "Gateway", scope: Any, receive: Receive, send: Send) -> None:
    """The schema of all this."""
    await send_json(send, 200, OPENAPI)


PAGES: dict[str, Page] = {
    "/health": ready,
    "/health/live": live,
    "/health/ready": ready,
    "/v2": server,
    "/v2/health/live": live,
    "/v2/health/ready": ready,
    "/metrics": metrics,
    "/v1/models": models,
    "/openapi.json": openapi,
}


async def find(
    gateway: "Gateway",
    path: str,
    method: str,
    scope: Any,
    receive: Receive,
    send: Send,
    key: Key | None,
) -> tuple[Parser, str] | None:
    """Answer a path that asks no model, which gives None, or say who parses it.

    Raises:
        ApiError: There is nothing at that path.
    """
    if path in PAGES:
        raise ApiError(405, "method_not_allowed", f"{path} takes GET alone.", should_retry=False)
    if method == "POST" and path == "/v1/feedback":
        await _feedback(gateway, scope, receive, send)
        return None
    if method == "POST" and path == "/v1/moderations" and gateway.has_guardrails:
        await _moderations(gateway, scope, receive, send, key)
        return None
    if method in ("GET", "HEAD") and path.startswith("/v1/models/"):
        await _model(gateway, path[11:], scope, send)
        return None
    if path.startswith("/v2/models/"):
        name, _, rest = path[11:].partition("/")
        rest = VERSION.sub("", rest)
        if rest == "infer":
            return parse_infer, name
        if method == "GET" and rest in ("", "ready"):
            await _v2_model(gateway, name, rest, send)
            return None
    if method == "POST" and gateway.passes_other and OTHER.fullmatch(path):
        return parse_other, path[3:]
    raise ApiError(404, "not_found", f"there is nothing at {path[:200]}.", should_retry=False)


def _check_key(gateway: "Gateway", scope: Any) -> bytes | None:
    """The header that a client brings, once it is known to do."""
    authorization = read_headers(scope, gateway.config.limits).get(b"authorization")
    gateway.access.key_of(authorization)
    return authorization


async def _model(gateway: "Gateway", name: str, scope: Any, send: Send) -> None:
    if gateway.is_pass_through and name not in (".", ".."):
        await _upstreams_models(gateway, name, _check_key(gateway, scope), send)
        return
    for one in gateway.models():
        if one["id"] == name:
            await send_json(send, 200, one)
            return
    raise ApiError(404, "model_not_found", f"there is no model {name[:80]!r} here.", should_retry=False)


async def _v2_model(gateway: "Gateway", name: str, rest: str, send: Send) -> None:
    if name not in gateway.model_names:
        raise ApiError(404, "model_not_found", f"there is no model {name[:80]!r} here.", should_retry=False)
    if rest == "ready":
        await send_json(send, 503 if gateway.plan.not_ready else 200, {"name": name})
        return
    is_embedder = name in gateway.plan.embedders
    output = ("embedding", "FP32", [-1, -1]) if is_embedder else ("label", "BYTES", [-1])
    await send_json(
        send,
        200,
        {
            "name": name,
            "versions": [gateway.release_digest[:12] or "1"],
            "platform": "jettison",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [dict(zip(("name", "datatype", "shape"), output, strict=True))],
        },
    )


async def _json(gateway: "Gateway", scope: Any, receive: Receive) -> dict[str, Any]:
    limits = gateway.config.limits
    raw = await read_body(receive, read_headers(scope, limits), limits)
    return read_json(raw, depth=limits.json_depth)


async def _feedback(gateway: "Gateway", scope: Any, receive: Receive, send: Send) -> None:
    """What somebody says of an earlier answer, however late."""
    body = await _json(gateway, scope, receive)
    score, label, comment = body.get("score"), body.get("label"), body.get("comment")
    request_id, source = body.get("request_id"), body.get("source", "user")
    incident = body.get("incident")
    if not isinstance(request_id, str) or not 1 <= len(request_id) <= 200:
        raise bad_request("request_id must be the x-request-id of an answer.", param="request_id")
    if score is None and label is None and comment is None and incident is None:
        raise bad_request("there must be a score, a label, a comment or an incident.", param="score")
    if incident is not None and not (isinstance(incident, str) and KIND.fullmatch(incident)):
        raise bad_request(
            "incident must be a kind as `privacy`, of at most 40 small letters, digits, - and _.",
            param="incident",
        )
    if score is not None and (
        isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1
    ):
        raise bad_request("score must be in 0-1.", param="score")
    for name, value, most in (
        ("label", label, 1000),
        ("comment", comment, 20_000),
        ("source", source, 100),
    ):
        if value is not None and (not isinstance(value, str) or len(value) > most):
            raise bad_request(f"{name} must be a text of at most {most} characters.", param=name)
    if comment is not None and gateway.config.log.mask_pii:
        ((comment,), _) = mask((comment,))
    if gateway.log is None:
        raise ApiError(
            503, "log_off", "the traffic log is off, so feedback has no place.", should_retry=False
        )
    said = Feedback(
        request_id=request_id,
        time=time.time(),
        score=None if score is None else float(score),
        label=label,
        comment=comment,
        source=source if isinstance(source, str) else "user",
        incident=incident,
    )
    gateway.log.put(said)
    is_kept = gateway.log.state.problem is None
    answer = {
        "object": "feedback",
        "request_id": request_id,
        "status": "accepted" if is_kept else "at_risk",
    }
    await send_json(send, 202, answer)


async def _moderations(
    gateway: "Gateway", scope: Any, receive: Receive, send: Send, key: Key | None
) -> None:
    """Every guardrail's judgement of texts, in the shape of OpenAI's moderations.

    Categories are our guardrails; a category that is not there was not looked at.
    """
    body = await _json(gateway, scope, receive)
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if isinstance(texts, list) and texts and all(isinstance(one, dict) for one in texts):
        joined = text_of(texts)
        texts = None if joined is None else [joined]
    if (
        not isinstance(texts, list)
        or not 1 <= len(texts) <= 256
        or not all(isinstance(t, str) for t in texts)
    ):
        raise bad_request("input must be a text or a list of 1-256 texts.", param="input")
    n_tokens = sum(map(len, texts)) // CHARACTERS_A_TOKEN
    if key is not None:
        try:
            key.enter(n_tokens)
        except ApiError as error:
            gateway.metrics.refused(error.code)
            raise
    try:
        results = [await asyncio.to_thread(gateway.moderate, text) for text in texts]
    finally:
        if key is not None:
            key.leave(n_tokens, n_tokens, None)
    request_id = new_request_id()
    await send_body(
        send,
        200,
        [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode())],
        msgspec.json.encode({"id": f"modr-{request_id}", "model": gateway.model_name, "results": results}),
    )
