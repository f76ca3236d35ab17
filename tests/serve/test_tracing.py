"""OpenTelemetry spans: the request, each arm, an escalation; sent over real OTLP to a receiver here."""

import asyncio
import contextlib
import gzip
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler

import msgspec
import pytest

from endpoint_server import QuietServer
from gateways import (
    ask,
    client,
    config_of,
    delta,
    post,
    records_in,
    running,
    upstream_of,
    wait_until,
)
from jettison.errors import InvalidInput, MissingExtra
from jettison.route import Cascade, Shadow, Single
from jettison.serve.calls import Call, Reply
from jettison.serve.config import TracingConfig, check_serve_config
from jettison.serve.gateway import _check_same_ground
from jettison.serve.tracing import Tracing

pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

LEAN, BIG = Single(candidate="release"), Single(candidate="upstream:big")
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """Takes OTLP over HTTP as a collector does."""

    def __init__(self):
        self.raw = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.raw.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *said):
                pass

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def spans(self):
        found = []
        for body in self.raw:
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return found

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector():
    collector = Collector()
    yield collector
    collector.close()


@contextlib.contextmanager
def traced(tmp_path, collector, release, upstream, route, **given):
    tracing = TracingConfig(is_on=True, endpoint=collector.url, **given)
    config = config_of(
        tmp_path,
        release=release,
        upstreams={"big": upstream_of(upstream.url, model="big-1", max_retries=0)},
        route=route,
        tracing=tracing,
    )
    with running(config) as gateway:
        yield gateway


def plain(span):
    """Attributes as plain values."""
    found = {}
    for one in span.attributes:
        kind = one.value.WhichOneof("value")
        value = getattr(one.value, kind)
        found[one.key] = [v.string_value for v in value.values] if kind == "array_value" else value
    return found


def by_kind(spans):
    # SPAN_KIND_INTERNAL 1, SERVER 2, CLIENT 3
    return {kind: [span for span in spans if span.kind == kind] for kind in (1, 2, 3)}


def test_a_request_its_arms_and_its_escalation_are_spans_of_the_clients_own_trace(
    tmp_path, collector, release, upstream
):
    route = Cascade(lean=LEAN, fallback=BIG, threshold=1.5)
    with traced(tmp_path, collector, release, upstream, route) as gateway:
        body = {
            "model": "m",
            "temperature": 0.5,
            "max_tokens": 7,
            "messages": [{"role": "user", "content": "pear of a very secret kind"}],
        }
        head = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        answer = post(gateway, "/v1/chat/completions", body, head)
        assert answer.headers["x-jettison-escalated"] == "true"
    found = by_kind(collector.spans())
    (request,), (lean,), (fallback,) = found[2], found[1], found[3]
    assert {span.trace_id.hex() for span in (request, lean, fallback)} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert lean.parent_span_id == fallback.parent_span_id == request.span_id
    assert request.start_time_unix_nano <= lean.end_time_unix_nano <= fallback.start_time_unix_nano
    assert request.end_time_unix_nano >= fallback.end_time_unix_nano

    said = plain(request)
    assert request.name == "chat m"
    assert said["jettison.request.id"] == answer.headers["x-request-id"]
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.request.temperature"] == 0.5
    assert said["gen_ai.request.max_tokens"] == 7
    assert said["jettison.arm"] == said["jettison.route"] == "fallback"
    assert said["jettison.escalated"] is True
    assert said["http.response.status_code"] == 200
    (event,) = request.events
    assert event.name == "jettison.escalation"
    assert plain(event)["jettison.escalation.reason"] == "unsure"
    assert plain(event)["jettison.threshold"] == 1.5

    assert plain(lean)["gen_ai.provider.name"] == "jettison"
    assert 0 < plain(lean)["jettison.confidence"] <= 1
    told = plain(fallback)
    assert fallback.name == "chat big-1"
    assert told["gen_ai.provider.name"] == "openai"
    assert told["server.address"] == "127.0.0.1"
    assert told["server.port"] == int(upstream.url.split(":")[2].split("/")[0])
    assert told["gen_ai.usage.input_tokens"] > 0
    # The upstream can go on with the trace.
    assert upstream.asked[0].headers["traceparent"] == f"00-{TRACE}-{fallback.span_id.hex()}-01"
    assert not any(b"secret" in raw or b"big answer" in raw for raw in collector.raw)


def test_the_span_of_a_stream_ends_with_the_stream(tmp_path, collector, release, upstream):
    with traced(tmp_path, collector, release, upstream, BIG) as gateway:
        stream = client(gateway).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "pear"}], stream=True
        )
        assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "one two three"
    (arm,) = by_kind(collector.spans())[3]
    assert plain(arm)["gen_ai.request.stream"] is True
    assert 0 < plain(arm)["gen_ai.response.time_to_first_chunk"] < 5
    assert arm.status.code == 0


def test_a_client_that_goes_away_ends_the_spans_with_an_error(tmp_path, collector, release, upstream):
    async def drips(exchange):
        await exchange.begin_stream()
        for _ in range(100):
            await exchange.event(delta("word"))
            await asyncio.sleep(0.05)

    upstream.behave = drips
    with traced(tmp_path, collector, release, upstream, BIG) as gateway:
        stream = client(gateway).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "pear"}], stream=True
        )
        next(iter(stream))
        stream.close()
        wait_until(lambda: any(one.error == "client_gone" for one in records_in(gateway)))
    spans = by_kind(collector.spans())
    assert plain(spans[3][0])["error.type"] in ("GeneratorExit", "CancelledError", "client_gone")
    assert spans[3][0].status.code == spans[2][0].status.code == 2


def test_a_failure_is_named_in_the_spans(tmp_path, collector, release, upstream):
    async def fails(exchange):
        await exchange.reply({"error": {"message": "no"}}, 500)

    upstream.behave = fails
    with traced(tmp_path, collector, release, upstream, BIG) as gateway:
        failed = ask(gateway, "pear")
        assert failed.status >= 500
    spans = by_kind(collector.spans())
    code = failed.json["error"]["code"]
    for span in (spans[2][0], spans[3][0]):
        assert plain(span)["error.type"] == code
        assert span.status.code == 2
    assert plain(spans[2][0])["http.response.status_code"] == failed.status


def test_texts_stand_in_spans_only_when_asked_for_and_masked(tmp_path, collector, release, upstream):
    with traced(tmp_path, collector, release, upstream, BIG, content="mask") as gateway:
        ask(gateway, "write to ada@example.com")
    (arm,) = by_kind(collector.spans())[3]
    (message,) = msgspec.json.decode(plain(arm)["gen_ai.input.messages"])
    assert message == {"role": "user", "parts": [{"type": "text", "content": "write to [EMAIL_1]"}]}
    (said,) = msgspec.json.decode(plain(arm)["gen_ai.output.messages"])
    assert said["parts"][0]["content"] == "big answer"
    assert not any(b"ada@" in raw for raw in collector.raw)


def test_a_shadow_is_a_span_of_the_same_trace(tmp_path, collector, release, upstream):
    route = Shadow(main=LEAN, shadow=BIG, shadow_share=1.0)
    with traced(tmp_path, collector, release, upstream, route) as gateway:
        ask(gateway, "pear")
    spans = by_kind(collector.spans())
    assert spans[3][0].trace_id == spans[2][0].trace_id


def test_a_share_of_none_sends_nothing_but_what_the_client_traces(tmp_path, collector, release, upstream):
    with traced(tmp_path, collector, release, upstream, BIG, share=0.0) as gateway:
        ask(gateway, "pear")
        body = {"model": "m", "messages": [{"role": "user", "content": "pear"}]}
        post(gateway, "/v1/chat/completions", body, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
        post(gateway, "/v1/chat/completions", body, {"traceparent": "nonsense"})
    assert {span.trace_id.hex() for span in collector.spans()} == {TRACE}


@pytest.mark.slow
def test_a_collector_that_is_away_stops_nothing(tmp_path, release, upstream):
    tracing = TracingConfig(is_on=True, endpoint="http://127.0.0.1:9/v1/traces")
    config = config_of(
        tmp_path, release=release, upstreams={"big": upstream_of(upstream.url)}, tracing=tracing
    )
    started = time.monotonic()
    with running(config) as gateway:
        assert ask(gateway, "pear").status == 200
    assert time.monotonic() - started < 15


def test_off_no_arm_knows_of_spans_and_no_trace_is_handed_on(tmp_path, release, upstream):
    config = config_of(tmp_path, release=release, upstreams={"big": upstream_of(upstream.url)}, route=BIG)
    with running(config) as gateway:
        assert gateway.gateway.tracing is None
        assert type(gateway.gateway.plan.root).__name__ == "UpstreamArm"
        body = {"model": "m", "messages": [{"role": "user", "content": "pear"}]}
        post(gateway, "/v1/chat/completions", body, {"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert "traceparent" not in upstream.asked[0].headers


def test_settings_are_checked_and_cannot_change_while_it_runs(tmp_path, release):
    config = config_of(tmp_path, release=release)
    wrong = msgspec.structs.replace(config, tracing=TracingConfig(endpoint="localhost:4318"))
    with pytest.raises(InvalidInput, match=r"got 'localhost:4318' - at `\$.tracing.endpoint`"):
        check_serve_config(wrong, "serve.toml")
    wrong = msgspec.structs.replace(config, tracing=TracingConfig(share=1.5))
    with pytest.raises(InvalidInput, match=r"in 0-1, got 1.5 - at `\$.tracing.share`"):
        check_serve_config(wrong, "serve.toml")
    with pytest.raises(InvalidInput, match="tracing cannot change while the gateway runs"):
        _check_same_ground(config, msgspec.structs.replace(config, tracing=TracingConfig(is_on=True)))


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    with pytest.raises(MissingExtra, match=r"jettison\[otel\]"):
        Tracing(TracingConfig(is_on=True))


class Says:
    """An arm with an answer."""

    async def answer(self, call):
        return Reply(candidate="c", model="", body=b"{}", output="yes")


def test_what_a_client_sends_of_the_wrong_type_is_no_attribute():
    exporter = InMemorySpanExporter()
    tracing = Tracing(TracingConfig(is_on=True), exporter)
    body = {"model": 3, "temperature": "hot", "seed": True, "n": "two", "max_tokens": [1], "messages": 5}
    call = Call(
        operation="chat", path="/chat/completions", body=body, request_id="r", key="k",
        is_sticky=False, started_s=0.0,
    )  # fmt: skip
    arm = tracing.arm(Says(), model=None, url="https://api.openai.com/v1", provider="x")
    asyncio.run(arm.answer(call))
    (span,) = exporter.get_finished_spans()
    assert span.name == "chat"
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "server.address": "api.openai.com",
        "server.port": 443,
        "jettison.candidate": "c",
    }
    asyncio.run(tracing.close())
