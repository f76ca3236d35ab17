"""The ASGI application: finds who is to answer a path, admits the request, answers, records."""

from collections.abc import Awaitable, Callable
from typing import Any

from jettison.serve import admin
from jettison.serve.access import Key
from jettison.serve.answering import answer_request
from jettison.serve.api_error import ApiError
from jettison.serve.gateway import Gateway
from jettison.serve.http_io import (
    JSON,
    ClientGone,
    Receive,
    Send,
    new_request_id,
    read_body,
    read_headers,
    send_body,
)
from jettison.serve.parsing import PARSERS
from jettison.serve.reading import read_json
from jettison.serve.shapes import CHARACTERS_A_TOKEN
from jettison.serve.tell import tell

Handler = Callable[[Gateway, Any, Receive, Send], Awaitable[None]]


class App:
    """Raw ASGI: a framework's routing and middleware would cost more than all the rest."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One request, or the server's own life."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            else:
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _http(self, scope: Any, receive: Receive, send: Send) -> None:
        gateway, path, method = self._gateway, scope["path"], scope["method"]
        request_id = new_request_id()
        sent = _Sent(send)
        try:
            handler = admin.PAGES.get(path) if method in ("GET", "HEAD") else None
            if handler is not None:
                await handler(gateway, scope, receive, sent)
                return
            if path[:3] == "/ui" and path[3:4] in ("", "/"):
                await gateway.ui.answer(scope, receive, sent)
                return
            await self._operation(scope, receive, sent, request_id, path, method)
        except ClientGone:
            gateway.metrics.refused("client_gone")
        except ApiError as error:
            await self._tell_error(sent, error, request_id)
        except Exception as error:  # noqa: BLE001 - a fault of ours is an answer too, not a closed connection
            tell("internal_error", request_id=request_id, kind=type(error).__name__, where=_where(error))
            await self._tell_error(sent, ApiError(500, "internal_error", "the gateway failed."), request_id)

    async def _tell_error(self, sent: "_Sent", error: ApiError, request_id: str) -> None:
        headers = [JSON, (b"x-request-id", request_id.encode()), *error.headers]
        if error.status == 413:
            headers.append((b"connection", b"close"))
        if not sent.has_begun:
            await send_body(sent, error.status, headers, error.body)
        elif not sent.has_ended:
            await sent({"type": "http.response.body", "body": error.frame})

    async def _operation(
        self, scope: Any, receive: Receive, send: Send, request_id: str, path: str, method: str
    ) -> None:
        gateway = self._gateway
        limits = gateway.config.limits
        headers = read_headers(scope, limits)
        key = self._admit(headers)
        parse = PARSERS.get(path)
        name = None
        if method == "POST" and gateway.n_open >= limits.in_flight:
            gateway.metrics.refused("in_flight")
            raise ApiError(
                503, "overloaded", "too many requests are under way.", retry_after_s=1.0, should_retry=True
            )
        gateway.n_open += 1
        try:
            if parse is None:
                found = await admin.find(gateway, path, method, scope, receive, send, key)
                if found is None:
                    return
                parse, name = found
            if method != "POST":
                raise ApiError(405, "method_not_allowed", f"{path} takes POST alone.", should_retry=False)
            raw = await read_body(receive, headers, limits)
            estimate = len(raw) // CHARACTERS_A_TOKEN
            await self._with_key(key, estimate, raw, headers, parse, name, request_id, receive, send)
        finally:
            gateway.n_open -= 1

    async def _with_key(
        self,
        key: Key | None,
        estimate: int,
        raw: bytes,
        headers: dict[bytes, bytes],
        parse: Any,
        name: str | None,
        request_id: str,
        receive: Receive,
        send: Send,
    ) -> None:
        """Limits of the key around the request; what it took is booked when it has ended."""
        gateway = self._gateway
        body = read_json(raw, depth=gateway.config.limits.json_depth)
        if key is None:
            call = parse(gateway, body, headers, request_id, name, None)
            await answer_request(gateway, call, receive, send)
            return
        try:
            key.enter(estimate)
        except ApiError as error:
            gateway.metrics.refused(error.code)
            raise
        took: Any = None
        try:
            call = parse(gateway, body, headers, request_id, name, key.name)
            took = await answer_request(gateway, call, receive, send)
        except ApiError as error:
            took = error.took
            raise
        finally:
            key.leave(
                estimate if took is not None else 0,
                None if took is None else took.tokens,
                None if took is None else took.usd,
            )

    def _admit(self, headers: dict[bytes, bytes]) -> Key | None:
        try:
            return self._gateway.access.key_of(headers.get(b"authorization"))
        except ApiError as error:
            self._gateway.metrics.refused(error.code)
            raise


class _Sent:
    """Remembers how far a reply has got, so that a late fault still ends in an error the client sees."""

    __slots__ = ("_send", "has_begun", "has_ended")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = self.has_ended = False

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
        elif not message.get("more_body"):
            self.has_ended = True
        await self._send(message)


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
