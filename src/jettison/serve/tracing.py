"""OpenTelemetry spans of a request and of every arm that is asked for it, sent over OTLP.

Names and attributes are those of the GenAI semantic conventions (`gen_ai.*`, in development there; read in
their own repository, November 2026); what they have no word for stands under `jettison.*`. No text of a
request or an answer is in a span unless the configuration asks for it.
"""

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from jettison.registry import need
from jettison.serve.api_error import ApiError
from jettison.serve.calls import Call, Reply
from jettison.serve.config import TracingConfig
from jettison.task.pii import mask

if TYPE_CHECKING:
    from jettison.serve.routing import Node

T = TypeVar("T")
EXPORT_TIMEOUT_S = 5.0
OPERATIONS = {"chat": "chat", "completion": "text_completion", "embedding": "embeddings"}
"""Operations that the conventions have a name for; `decision`, `infer` and `other` keep ours."""
PROVIDERS = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.mistral.ai": "mistral_ai",
    "api.groq.com": "groq",
    "api.deepseek.com": "deepseek",
    "api.cohere.com": "cohere",
    "api.perplexity.ai": "perplexity",
    "api.x.ai": "x_ai",
    "generativelanguage.googleapis.com": "gcp.gemini",
}
_SAMPLING = ("temperature", "top_p", "top_k", "seed", "frequency_penalty", "presence_penalty")
_MOST_CONTENT = 16_384
"""Characters of one message that a span holds at most."""


class Tracing:
    """Makes spans and sends them from a thread of its own; what cannot be sent is dropped, not waited for.

    Args:
        config: Where to, and how much.
        exporter: Takes the spans instead of OTLP; at once, in the caller's thread.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
    """

    def __init__(self, config: TracingConfig, exporter: Any = None) -> None:
        self._trace: Any = need("opentelemetry.trace", "otel")
        sdk: Any = need("opentelemetry.sdk.trace", "otel")
        processors: Any = need("opentelemetry.sdk.trace.export", "otel")
        sampling: Any = need("opentelemetry.sdk.trace.sampling", "otel")
        resources: Any = need("opentelemetry.sdk.resources", "otel")
        propagation: Any = need("opentelemetry.trace.propagation.tracecontext", "otel")
        self._w3c = propagation.TraceContextTextMapPropagator()
        service = os.environ.get("OTEL_SERVICE_NAME") or config.service
        self._provider = sdk.TracerProvider(
            resource=resources.Resource.create({"service.name": service}),
            sampler=sampling.ParentBased(sampling.TraceIdRatioBased(config.share)),
        )
        if exporter is not None:
            self._provider.add_span_processor(processors.SimpleSpanProcessor(exporter))
        else:
            otlp: Any = need("opentelemetry.exporter.otlp.proto.http.trace_exporter", "otel")
            given = {} if config.endpoint is None else {"endpoint": config.endpoint}
            sender = otlp.OTLPSpanExporter(timeout=EXPORT_TIMEOUT_S, **given)
            self._provider.add_span_processor(
                processors.BatchSpanProcessor(sender, schedule_delay_millis=2000)
            )
        self._tracer = self._provider.get_tracer("jettison.serve")
        self._content = config.content

    async def close(self) -> None:
        """Send what is left, within the exporter's own time limit."""
        await asyncio.to_thread(self._provider.shutdown)

    async def request(self, call: Call, answered: Awaitable[T]) -> T:
        """Wait for the answer of a request within its span, a child of the client's own if it names one."""
        parent = None
        if call.traceparent is not None:
            parent = self._w3c.extract({"traceparent": call.traceparent})
        span = self._tracer.start_span(
            _name(call, call.body.get("model")), context=parent, kind=self._trace.SpanKind.SERVER
        )
        span.set_attributes({**_asked(call), "jettison.request.id": call.request_id})
        # Not the exception's own words, which no rule keeps from quoting a text.
        with self._trace.use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            try:
                return await answered
            except BaseException as error:
                self._failed(span, _kind(error))
                raise

    def answered(self, call: Call, reply: Reply | None, error: ApiError | None) -> None:
        """Say in the request's span what it came to; called where the request is counted."""
        span = self._trace.get_current_span()
        if not span.is_recording():
            return
        found: dict[str, Any] = {}
        told = reply or error
        if told is not None:
            found["jettison.arm"], found["jettison.route"] = told.arm or "single", told.place
            found["jettison.propensity"] = told.propensity
        if reply is not None:
            found |= _came(reply)
            found["jettison.escalated"] = reply.escalated
            if reply.error is not None:
                self._failed(span, reply.error)
        if call.notes:
            found["jettison.guardrails"] = [f"{name}={did}" for name, did in sorted(call.notes.items())]
        found["http.response.status_code"] = 200 if error is None else error.status
        span.set_attributes(_known(found))

    def escalated(self, reason: str, confidence: float | None, threshold: float) -> None:
        """An event in the request's span: the lean answer does not stand."""
        span = self._trace.get_current_span()
        if not span.is_recording():
            return
        told = {
            "jettison.escalation.reason": reason,
            "jettison.confidence": confidence,
            "jettison.threshold": threshold,
        }
        span.add_event("jettison.escalation", _known(told))

    def arm(self, node: "Node", *, model: str | None, url: str | None, provider: str) -> "TracedArm":
        """An arm that writes a span of each answer.

        Args:
            node: Who answers.
            model: Asked for; None takes the request's own.
            url: Of an upstream; None is a model of ours.
            provider: What the conventions call it where its address does not say.
        """
        return TracedArm(self, node, model=model, url=url, provider=provider)

    def _failed(self, span: Any, kind: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(self._trace.StatusCode.ERROR)

    def _texts(self, call: Call, reply: Reply) -> dict[str, Any]:
        """The messages, where the configuration wants them in spans."""
        if self._content == "drop":
            return {}
        found = {}
        given = call.body.get("messages")
        asked = (
            [(str(one.get("role")), one.get("content")) for one in given if isinstance(one, dict)]
            if isinstance(given, list)
            else [("user", call.text)]
        )
        found["gen_ai.input.messages"] = self._messages(asked)
        if reply.output is not None:
            found["gen_ai.output.messages"] = self._messages([("assistant", reply.output)])
        return found

    def _messages(self, said: list[tuple[str, Any]]) -> str:
        texts = tuple(
            content if isinstance(content, str) else msgspec.json.encode(content).decode()
            for _, content in said
        )
        if self._content == "mask":
            texts, _ = mask(texts)
        messages = [
            {"role": role, "parts": [{"type": "text", "content": text[:_MOST_CONTENT]}]}
            for (role, _), text in zip(said, texts, strict=True)
        ]
        return msgspec.json.encode(messages).decode()


class TracedArm:
    """An arm within spans of its own."""

    def __init__(
        self, tracing: Tracing, node: "Node", *, model: str | None, url: str | None, provider: str
    ) -> None:
        self._tracing, self._node, self._model = tracing, node, model
        kinds = tracing._trace.SpanKind
        self._kind = kinds.INTERNAL if url is None else kinds.CLIENT
        self._fixed: dict[str, Any] = {"gen_ai.provider.name": provider}
        if url is not None:
            parts = urlsplit(url)
            host = parts.hostname or ""
            self._fixed["gen_ai.provider.name"] = PROVIDERS.get(host, provider)
            self._fixed["server.address"] = host
            self._fixed["server.port"] = parts.port or (443 if parts.scheme == "https" else 80)

    async def answer(self, call: Call) -> Reply:
        """The arm's answer; the span of a stream ends with it.

        Raises:
            ApiError: There is none.
        """
        tracing = self._tracing
        given = call.body.get("model")
        model = self._model or (given if isinstance(given, str) else None)
        span = tracing._tracer.start_span(_name(call, model), kind=self._kind)
        span.set_attributes({**_asked(call), **self._fixed, **_known({"gen_ai.request.model": model})})
        carrier: dict[str, str] = {}
        tracing._w3c.inject(carrier, tracing._trace.set_span_in_context(span))
        try:
            reply = await self._node.answer(
                dataclasses.replace(call, traceparent=carrier.get("traceparent"))
            )
        except BaseException as error:
            tracing._failed(span, _kind(error))
            span.end()
            raise
        if reply.frames is not None:
            reply.frames = self._watched(reply.frames, span, call, reply)
        else:
            self._end(span, call, reply)
        return reply

    async def _watched(
        self, frames: AsyncIterator[bytes], span: Any, call: Call, reply: Reply
    ) -> AsyncIterator[bytes]:
        ended: str | None = None
        try:
            async for frame in frames:
                yield frame
        except BaseException as error:
            # Whoever goes away closes the stream: an end of the span too. The record names it by itself.
            ended = _kind(error)
            raise
        finally:
            close: Callable[[], Awaitable[None]] | None = getattr(frames, "aclose", None)
            try:
                if close is not None:
                    await close()
            finally:
                self._end(span, call, reply, ended)

    def _end(self, span: Any, call: Call, reply: Reply, ended: str | None = None) -> None:
        if span.is_recording():
            span.set_attributes(_known({**_came(reply), **self._tracing._texts(call, reply)}))
            if (kind := reply.error or ended) is not None:
                self._tracing._failed(span, kind)
        span.end()


def _name(call: Call, model: Any) -> str:
    operation = OPERATIONS.get(call.operation, call.operation)
    return f"{operation} {model}" if isinstance(model, str) and model else operation


def _asked(call: Call) -> dict[str, Any]:
    """Attributes of what was asked for; values of the wrong type, which clients may send, are left out."""
    body = call.body
    found: dict[str, Any] = {"gen_ai.operation.name": OPERATIONS.get(call.operation, call.operation)}
    for name in _SAMPLING:
        value = body.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[f"gen_ai.request.{name}"] = value if name in ("seed", "top_k") else float(value)
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    if isinstance(most, int):
        found["gen_ai.request.max_tokens"] = most
    n = body.get("n")
    if isinstance(n, int) and n != 1:
        found["gen_ai.request.choice.count"] = n
    if call.stream:
        found["gen_ai.request.stream"] = True
    if isinstance(body.get("model"), str):
        found["gen_ai.request.model"] = body["model"]
    wanted = body.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema"):
        found["gen_ai.output.type"] = "json"
    return found


def _came(reply: Reply) -> dict[str, Any]:
    """Attributes of an answer; what is not known is None."""
    answer = reply.answer
    return {
        "gen_ai.response.model": reply.model or None,
        "gen_ai.response.finish_reasons": [answer.finish] if answer is not None else None,
        "gen_ai.usage.input_tokens": reply.prompt_tokens,
        "gen_ai.usage.output_tokens": reply.completion_tokens,
        "gen_ai.response.time_to_first_chunk": reply.first_token_s,
        "jettison.candidate": reply.candidate[:16] or None,
        "jettison.confidence": reply.confidence,
        "jettison.in_scope": reply.in_scope,
    }


def _known(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def _kind(error: BaseException) -> str:
    return error.code if isinstance(error, ApiError) else type(error).__name__
