"""An OpenAI-compatible server behind the gateway: pooled, bounded, never replayed once it has begun."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any, NoReturn
from urllib.parse import quote

import msgspec

from jettison.errors import InvalidInput
from jettison.files import value_sha256
from jettison.registry import need
from jettison.serve.api_error import ApiError
from jettison.serve.breaker import Breaker, RetryBudget
from jettison.serve.calls import Call, Guess, Reply
from jettison.serve.config import UpstreamConfig
from jettison.serve.held import Held
from jettison.serve.metrics import Metrics
from jettison.serve.reply_body import Facts, is_error_body, is_object, read_facts, without_logprobs
from jettison.serve.shapes import CHARACTERS_A_TOKEN
from jettison.serve.sse import DONE, Frames, data_of, is_garbled, read_chunk, text_in

MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""Statuses that are asked again."""
LONGEST_WAIT_S = 2.0
"""A server that asks for more is not waited for: the client, or the fallback, is told at once."""
MOST_TEXT = 256 * 1024
"""Characters of a streamed answer that are kept for its record."""
_WITH_LOGPROBS: dict[str, bool | int] = {"chat": True, "completion": 1}
"""How each API is asked for the log-probabilities of the tokens taken."""
encode = msgspec.json.encode


class Upstream:
    """One server. Use from one event loop.

    Args:
        name: In the configuration.
        config: Where and how.
        metrics: Counts attempts, retries and the breaker's state.

    Raises:
        InvalidInput: The variable of its key is not set.
        MissingExtra: aiohttp is not installed.
    """

    def __init__(self, name: str, config: UpstreamConfig, metrics: Metrics) -> None:
        self.name, self.config = name, config
        self.digest = value_sha256({"url": config.url, "model": config.model})
        self.breaker = Breaker(config.breaker_failures, config.breaker_s)
        self._budget = RetryBudget(config.retry_share)
        self._base = config.url.rstrip("/")
        self._metrics = metrics
        self._key = _key_of(config)
        self._http: Any = need("aiohttp", "serve")
        self._session: Any = None

    def _open(self) -> Any:
        aiohttp = self._http
        config = self.config
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=config.connections, keepalive_timeout=30, enable_cleanup_closed=False
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            read_bufsize=2**17,
        )
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def answer(self, call: Call) -> Reply:
        """Ask; a stream is returned once its first content is there.

        Raises:
            ApiError: There is no answer, after all the retries that are allowed.
        """
        self._budget.earn()
        n_tries = 0
        while True:
            if not self.breaker.admit():
                wait_s = self.breaker.wait_s()
                self._metrics.upstream(self.name, "refused_open")
                raise ApiError(
                    503,
                    "upstream_open",
                    f"upstream {self.name!r} keeps failing and is left alone for a while.",
                    retry_after_s=wait_s,
                    should_retry=False,
                )
            n_tries += 1
            try:
                reply = await self._once(call)
            except _Failed as failed:
                self._metrics.upstream(self.name, failed.error.code)
                (self.breaker.failed if failed.is_sick else self.breaker.released)()
                if not failed.may_pass or n_tries > self.config.max_retries or not self._budget.spend():
                    raise failed.error from failed
                asked_s = failed.error.retry_after_s
                if asked_s is not None and asked_s > LONGEST_WAIT_S:
                    raise failed.error from failed
                self._metrics.upstream(self.name, "retried")
                await asyncio.sleep(asked_s if asked_s is not None else 0.05 * 2**n_tries)
            except BaseException:  # cancelled: it says nothing of the server
                self.breaker.released()
                raise
            else:
                self.breaker.succeeded()
                self._metrics.upstream(self.name, "ok")
                return reply

    async def _once(self, call: Call) -> Reply:
        """One attempt.

        Raises:
            _Failed: No answer, or one that is none.
        """
        config = self.config
        body = call.body
        if config.model is not None and body.get("model") != config.model:
            body = {**body, "model": config.model}
        adds_logprobs = call.needs_confidence and config.logprobs and not body.get("logprobs")
        if adds_logprobs and call.operation in _WITH_LOGPROBS:
            body = {**body, "logprobs": _WITH_LOGPROBS[call.operation]}
        data = encode(body)
        started = time.monotonic()
        response: Any = None
        try:
            # One timer for both waits: up to the answer's head, and then to its end.
            async with asyncio.timeout(config.first_byte_s) as limit:
                response = await (self._session or self._open()).post(
                    self._base + call.path, data=data, headers=self._headers(call), allow_redirects=False
                )
                if response.status != 200:
                    limit.reschedule(limit.when() + config.idle_s)  # type: ignore[operator]
                    await self._refused(response)
                if call.stream and "text/event-stream" in response.headers.get("content-type", ""):
                    return await self._stream(response, call, started, len(data))
                if not response.content.is_eof():  # else it is all here, and there is nothing to wait for
                    limit.reschedule(limit.when() - config.first_byte_s + config.total_s)  # type: ignore[operator]
                raw = await self._whole(response)
        except BaseException as error:
            if response is None:
                self._translate(error, "before an answer")
            response.close()
            if isinstance(error, _Failed):
                raise
            self._translate(error, "in the middle of an answer")
        facts = read_facts(call.operation, raw)
        if facts is None:
            raise _Failed(
                ApiError(
                    502, "bad_upstream_reply", f"upstream {self.name!r} answered 200 with no such answer."
                ),
                may_pass=True,
            )
        reply = self._reply(facts, raw, started, len(data))
        if adds_logprobs and call.operation in _WITH_LOGPROBS:
            reply.body = without_logprobs(raw)
        return reply

    async def models(self, name: str | None, authorization: str | None) -> bytes:
        """Its own list of models, or what it says of one, as it came; nothing is asked again.

        Args:
            name: Of one model; None asks for all.
            authorization: The client's own header, for an upstream that is told to hand it on.

        Raises:
            ApiError: There is none, or the upstream refuses.
        """
        at = "/models" if name is None else "/models/" + quote(name, safe="")
        url = self._http.client.URL(self._base + at, encoded=True)
        response: Any = None
        try:
            async with asyncio.timeout(self.config.first_byte_s):
                response = await (self._session or self._open()).get(
                    url, headers=self._authorized(authorization), allow_redirects=False
                )
                if response.status != 200:
                    await self._refused(response)
                raw = await self._whole(response)
        except _Failed as failed:
            raise failed.error from failed
        except (TimeoutError, self._http.ClientError, OSError, ValueError) as error:
            try:
                self._translate(error, "over its models")
            except _Failed as failed:
                raise failed.error from error
        finally:
            if response is not None:
                response.close()  # of what was read to its end the connection has been given back
        if is_object(raw):
            return raw
        message = f"upstream {self.name!r} answered 200 with no list of models."
        raise ApiError(502, "bad_upstream_reply", message, should_retry=False)

    def _authorized(self, authorization: str | None) -> dict[str, str]:
        if self._key is not None:
            return {"authorization": f"Bearer {self._key}"}
        if self.config.pass_key and authorization is not None:
            return {"authorization": authorization}
        return {}

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {"content-type": "application/json", "x-request-id": call.request_id}
        headers |= self._authorized(call.authorization)
        if call.traceparent is not None:
            headers["traceparent"] = call.traceparent
        return headers

    async def _whole(self, response: Any) -> bytes:
        limit = self.config.max_reply_bytes
        if response.content.is_eof():  # as most answers are: all of it came with the head
            raw: bytes = response.content.read_nowait()
            if len(raw) > limit:
                raise _Failed(self._too_long(), may_pass=False, is_sick=False)
            return raw
        if (response.content_length or 0) > limit:
            raise _Failed(self._too_long(), may_pass=False, is_sick=False)
        if response.content_length is not None and "content-encoding" not in response.headers:
            return bytes(await response.read())
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            size += len(part)
            if size > limit:
                raise _Failed(self._too_long(), may_pass=False, is_sick=False)
            parts.append(part)
        return b"".join(parts)

    def _too_long(self) -> ApiError:
        message = f"upstream {self.name!r} answered with over {self.config.max_reply_bytes} bytes."
        return ApiError(502, "upstream_reply_too_long", message, should_retry=False)

    async def _refused(self, response: Any) -> NoReturn:
        """Turn a status into what the client, or the next arm, is told."""
        status = response.status
        raw = bytes(await response.content.read(64 * 1024))
        # Read to the end where that is cheap, so that the connection can be used again.
        if response.content.at_eof() or (response.content_length or 2**30) <= len(raw):
            response.release()
        else:
            response.close()
        is_ours = status in (401, 403) and not self.config.pass_key
        if status in MAY_PASS or status >= 500:
            told = (
                429
                if status == 429
                else 504
                if status in (408, 504)
                else 503
                if status in (503, 529)
                else 502
            )
            message = f"upstream {self.name!r} answered {status}."
            error = ApiError(
                told,
                "upstream_busy" if status == 429 else "upstream_error",
                message,
                retry_after_s=_retry_after_s(response.headers),
                should_retry=False,
            )
            raise _Failed(error, may_pass=status in MAY_PASS, is_sick=status != 429)
        if is_ours:
            message = f"upstream {self.name!r} does not take the gateway's key ({status})."
            raise _Failed(ApiError(502, "upstream_auth", message, should_retry=False), may_pass=False)
        if 300 <= status < 400:
            message = f"upstream {self.name!r} redirects ({status}), which is not followed."
            raise _Failed(ApiError(502, "upstream_redirect", message, should_retry=False), may_pass=False)
        # 2xx other than 200, and refusals of the request itself: the client's own business, as it came.
        body = raw if is_error_body(raw) else None
        message = f"upstream {self.name!r} refused the request ({status})."
        told = status if status >= 400 else 502
        error = ApiError(
            told, "upstream_refused", message, should_retry=False, is_passable=False, body=body
        )
        raise _Failed(error, may_pass=False, is_sick=False)

    async def _stream(self, response: Any, call: Call, started: float, n_sent: int) -> Reply:
        """Hold frames back until there is content: up to then another arm, or another try, may answer."""
        needs_done = call.operation in ("chat", "completion")
        cut, held = Frames(), Held(is_json=needs_done)
        reply = Reply(candidate=self.digest, model=self.config.model or "", wire_bytes=n_sent)
        while not held.is_ready:  # under the caller's timer
            part = await response.content.readany()
            if not part and not needs_done:
                held.is_ready = held.is_done = True
                break
            if not part:
                raise _Failed(self._cut_off(), may_pass=True)
            reply.wire_bytes = (reply.wire_bytes or 0) + len(part)
            for frame in cut.feed(part):
                held.take(frame)
            if held.error is not None:
                message = f"upstream {self.name!r} began a stream with an error."
                raise _Failed(ApiError(502, "upstream_error", message, should_retry=False), may_pass=True)
            if held.is_garbled and not held.is_ready:
                raise _Failed(self._garbled(), may_pass=True)
        reply.first_token_s = time.monotonic() - started
        reply.frames = self._relayed(response, cut, held, reply, started, n_sent, needs_done=needs_done)
        return reply

    async def _relayed(
        self,
        response: Any,
        cut: Frames,
        held: Held,
        reply: Reply,
        started: float,
        n_sent: int,
        *,
        needs_done: bool,
    ) -> AsyncIterator[bytes]:
        """Frames as they come; whatever ends them early becomes an error event, and stands in the reply."""
        texts, n_kept = held.texts, sum(map(len, held.texts))
        n_frames = len(held.frames)
        is_done = held.is_done
        usage = held.usage
        client_s = 0.0  # that the client let us wait: the upstream's health is not told by it
        try:
            for frame in held.frames:
                yield frame
            if held.is_garbled:
                raise self._garbled()
            if held.has_error:
                reply.error, is_done = "upstream_error", True
                self.breaker.failed()
            while not is_done:
                left_s = self.config.total_s - (time.monotonic() - started)
                if left_s <= 0:  # one that never falls silent is not told by any wait
                    raise self._overtime(is_sick=left_s + client_s <= 0)
                async with asyncio.timeout(min(self.config.idle_s, left_s)):
                    part = await response.content.readany()
                if not part:
                    if needs_done:
                        raise self._cut_off()
                    break  # other APIs say so in an event of their own, which was passed on
                reply.wire_bytes = (reply.wire_bytes or 0) + len(part)
                for frame in cut.feed(part):
                    n_frames += 1
                    data = data_of(frame)
                    if data == DONE:
                        is_done = True
                    elif (chunk := read_chunk(data)) is not None:
                        usage = chunk.usage or usage
                        text = text_in(chunk)
                        if text and n_kept < MOST_TEXT:
                            texts.append(text)
                            n_kept += len(text)
                        if chunk.error is not None:
                            reply.error, is_done = "upstream_error", True
                            self.breaker.failed()
                    elif needs_done and is_garbled(data):
                        raise self._garbled()
                    asked = time.monotonic()
                    yield frame
                    client_s += time.monotonic() - asked
                    if is_done:  # nothing after the end, or after an error, is a part of the answer
                        break
        except GeneratorExit:
            reply.error = reply.error or "client_gone"
            raise
        except _Failed as overtime:
            reply.error = overtime.error.code
            if overtime.is_sick:
                self.breaker.failed()
            yield overtime.error.frame
        except ApiError as error:
            reply.error = error.code
            self.breaker.failed()
            yield error.frame
        except (TimeoutError, self._http.ClientError, OSError) as error:
            is_late = isinstance(error, TimeoutError)
            code = "upstream_idle" if is_late else "upstream_cut_off"
            message = f"upstream {self.name!r} {'fell silent' if is_late else 'broke off'} in mid-stream."
            reply.error = code
            self.breaker.failed()
            yield ApiError(504 if is_late else 502, code, message).frame
        finally:
            reply.output = "".join(texts)
            reply.latency_s = time.monotonic() - started
            n_out = max(n_frames, -(-sum(map(len, texts)) // CHARACTERS_A_TOKEN))
            self._count(reply, Facts.of_usage(usage), n_sent, n_out)
            if is_done and reply.error is None:
                response.release()
            else:
                response.close()

    def _overtime(self, *, is_sick: bool) -> "_Failed":
        message = f"upstream {self.name!r} took more than {self.config.total_s:g} s for one stream."
        error = ApiError(504, "upstream_timeout", message, should_retry=False)
        return _Failed(error, may_pass=False, is_sick=is_sick)

    def _garbled(self) -> ApiError:
        message = f"upstream {self.name!r} sent an event that is no JSON."
        return ApiError(502, "bad_upstream_reply", message, should_retry=False)

    def _cut_off(self) -> ApiError:
        message = f"upstream {self.name!r} ended a stream before its end."
        return ApiError(502, "upstream_cut_off", message, should_retry=False)

    def _reply(self, facts: Facts, raw: bytes, started: float, n_sent: int) -> Reply:
        latency_s = time.monotonic() - started
        reply = Reply(
            candidate=self.digest,
            model=self.config.model or "",
            body=raw,
            output=facts.text,
            latency_s=latency_s,
            confidence=facts.confidence,
            wire_bytes=n_sent + len(raw),
        )
        n_out = 0 if facts.text is None else -(-len(facts.text) // CHARACTERS_A_TOKEN)
        self._count(reply, facts, n_sent, n_out)
        return reply

    def _count(self, reply: Reply, facts: Facts, n_sent: int, n_out: int) -> None:
        """Take the upstream's count and its price; of one that counts none, a guess by lengths."""
        n_in, n_said = facts.prompt_tokens, facts.completion_tokens
        reply.prompt_tokens, reply.completion_tokens = n_in, n_said
        if n_in is not None and n_said is not None:
            reply.price_usd = self._price_usd(n_in, n_said)
            return
        n_in = n_sent // CHARACTERS_A_TOKEN if n_in is None else n_in
        n_said = n_out if n_said is None else n_said
        reply.guess = Guess(n_in + n_said, self._price_usd(n_in, n_said))

    def _price_usd(self, n_in: int, n_said: int) -> float | None:
        a, b = self.config.usd_per_million_input, self.config.usd_per_million_output
        return None if a is None or b is None else (n_in * a + n_said * b) / 1e6

    def _translate(self, error: BaseException, when: str) -> NoReturn:
        """Turn what the network did into an error of ours; anything else goes on as it is."""
        aiohttp = self._http
        if isinstance(error, asyncio.CancelledError):
            raise error
        if isinstance(error, aiohttp.ServerTimeoutError):  # of connecting
            message = f"upstream {self.name!r} takes no connection."
            raise _Failed(ApiError(504, "upstream_unreachable", message, should_retry=False), may_pass=True)
        if isinstance(error, TimeoutError):
            message = f"upstream {self.name!r} took too long {when}."
            raise _Failed(ApiError(504, "upstream_timeout", message, should_retry=False), may_pass=False)
        if isinstance(error, aiohttp.ClientConnectorError):
            message = f"upstream {self.name!r} cannot be reached."
            raise _Failed(ApiError(502, "upstream_unreachable", message, should_retry=False), may_pass=True)
        if isinstance(error, aiohttp.ClientError | OSError | ValueError):
            message = f"upstream {self.name!r} broke off {when}."
            raise _Failed(ApiError(502, "upstream_cut_off", message, should_retry=False), may_pass=True)
        if isinstance(error, ApiError):
            raise _Failed(error, may_pass=False)
        raise error


class _Failed(Exception):
    """One attempt that came to nothing."""

    def __init__(self, error: ApiError, *, may_pass: bool, is_sick: bool = True) -> None:
        super().__init__(error.message)
        self.error, self.may_pass, self.is_sick = error, may_pass, is_sick
        if error.should_retry is None:
            error.should_retry = False


def _key_of(config: UpstreamConfig) -> str | None:
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InvalidInput(
            f"environment variable {config.api_key_env} must hold the key for {config.url}, "
            f"got {'nothing' if not key else 'characters that no key has'}."
        )
    return key


def _retry_after_s(headers: Any) -> float | None:
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            value = float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
        if 0 <= value < 86400:
            return value
    return None
