"""Guarded routes with our own guardrails: whole replies and streams, input and output."""

import pytest

from gateways import (
    answers,
    ask,
    completion,
    config_of,
    delta,
    post,
    records_in,
    request,
    running,
    upstream_of,
)
from jettison import registry
from jettison.incident import INCIDENTS_FILE
from jettison.monitor.alerts import Alerts
from jettison.monitor.incidents import IncidentWatch, limit_from
from jettison.monitor.watch import Watch
from jettison.route import Cascade, Guarded, Single, Split
from jettison.serve.guardrails import GuardSettings, Verdict
from releasing import make_release

BIG = Single(candidate="upstream:big")
CARD = "4111 1111 1111 1111"


def guarded(tmp_path, upstream, inner=BIG, release=None, **guardrails):
    return running(
        config_of(
            tmp_path,
            release=release,
            upstreams={"big": upstream_of(upstream.url)},
            guardrails=guardrails,
            route=Guarded(inner=inner, guardrails=tuple(guardrails)),
        )
    )


def test_input_is_redacted_before_anyone_sees_it(tmp_path, upstream):
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        found = ask(gateway, f"my card is {CARD}, thanks")
        assert found.status == 200
        assert found.headers["x-jettison-guardrails"] == "pii=redact"
        assert CARD not in upstream.asked[-1].body["messages"][0]["content"]
        assert "thanks" in upstream.asked[-1].body["messages"][0]["content"]
        assert records_in(gateway)[-1].guardrails == {"pii": "redact"}


def test_input_is_blocked_and_nobody_is_asked(tmp_path, upstream):
    with guarded(tmp_path, upstream, pii={"action": "block"}) as gateway:
        found = ask(gateway, f"my card is {CARD}")
        assert (found.status, found.json["error"]["code"]) == (400, "content_filter")
        assert "'pii'" in found.json["error"]["message"]
        assert upstream.n == 0
        assert CARD not in str(found.raw)
        assert records_in(gateway)[-1].guardrails == {"pii": "block"}


def test_input_that_escalates_goes_to_the_fallback(tmp_path, upstream):
    make_release(tmp_path)
    inner = Cascade(lean=Single(candidate="release"), fallback=BIG, threshold=0.0)
    with guarded(
        tmp_path, upstream, inner, str(tmp_path / "7"), length={"action": "escalate", "most_characters": 20}
    ) as gateway:
        assert ask(gateway, "pear").headers["x-jettison-arm"] == "lean"
        found = ask(gateway, "pear " * 10)
        assert (found.headers["x-jettison-arm"], found.headers["x-jettison-escalated"]) == (
            "fallback",
            "true",
        )


def test_output_is_redacted_or_blocked(tmp_path, upstream):
    async def leaks(exchange):
        await exchange.reply(completion(f"the card is {CARD}."))

    upstream.behave = leaks
    with guarded(tmp_path, upstream, pii={"action": "redact", "where": ["output"]}) as gateway:
        said = ask(gateway, "x").json["choices"][0]["message"]["content"]
        assert CARD not in said
        assert said.startswith("the card is ")
    with guarded(tmp_path / "b", upstream, pii={"action": "block", "where": ["output"]}) as gateway:
        found = ask(gateway, "x")
        assert (found.status, found.json["error"]["code"]) == (400, "content_filter")
        assert CARD not in str(found.raw)


@pytest.mark.parametrize("action", ["redact", "block"])
def test_a_stream_is_guarded_across_its_chunks(tmp_path, upstream, action):
    async def leaks_in_pieces(exchange):
        await exchange.begin_stream()
        for piece in ("the card ", "is 41", "11 1111 11", "11 1111", " and that", " is all"):
            await exchange.event(delta(piece))
        await exchange.event(delta(None, finish="stop"))
        await exchange.event("[DONE]")
        await exchange.end_stream()

    upstream.behave = leaks_in_pieces
    with guarded(tmp_path, upstream, pii={"action": action, "where": ["output"]}) as gateway:
        events = ask(gateway, "x", stream=True).events
        said = "".join(
            e["choices"][0]["delta"].get("content") or ""
            for e in events
            if e != "[DONE]" and "choices" in e
        )
        assert "4111" not in said
        assert said.startswith("the card ")
        if action == "redact":
            assert said.endswith(" and that is all")
            assert events[-1] == "[DONE]"
            assert [e["choices"][0]["finish_reason"] for e in events[:-1]][-1] == "stop"
        else:
            assert events[-1]["error"]["code"] == "content_filter"


def test_a_stream_without_a_finish_still_gives_out_what_was_held_back(tmp_path, upstream):
    async def no_finish(exchange):
        await exchange.begin_stream()
        await exchange.event(delta("all of "))
        await exchange.event(delta("it"))
        await exchange.event("[DONE]")
        await exchange.end_stream()

    upstream.behave = no_finish
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        events = ask(gateway, "x", stream=True).events
        assert "".join(e["choices"][0]["delta"]["content"] for e in events[:-1]) == "all of it"


def test_which_guardrails_saw_an_output_is_recorded_with_what_they_did(tmp_path, upstream):
    async def leaks(exchange):
        await exchange.reply(completion(f"the card is {CARD}."))

    outputs = {"where": ["output"]}
    rails = {
        "pii": {"action": "block", **outputs},
        "secrets": outputs,
        "length": {"most_words": 99, "where": ["input"]},
    }
    with guarded(tmp_path, upstream, **rails) as gateway:
        ask(gateway, f"my card is {CARD}")  # nothing looks for cards in what is asked
        assert records_in(gateway)[-1].output_guardrails == {"pii": "pass", "secrets": "pass"}
        upstream.behave = leaks
        ask(gateway, "x")
        blocked = records_in(gateway)[-1]
        assert (blocked.output_guardrails, blocked.error) == ({"pii": "block"}, "content_filter")
        assert blocked.arm is None


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_blocked_output_is_its_arms_own_also_where_the_guardrail_stands_outside(
    tmp_path, upstream, share
):
    async def leaks(exchange):
        await exchange.reply(completion(f"the card is {CARD}."))

    upstream.behave = leaks
    inner = Split(control=BIG, treatment=BIG, treatment_share=share, salt="s")
    with guarded(tmp_path, upstream, inner, pii={"action": "block", "where": ["output"]}) as gateway:
        assert ask(gateway, "x").status == 400
        record = records_in(gateway)[-1]
        assert record.arm == ("treatment" if share else "control")
        assert record.propensity == 1.0


def test_incidents_come_with_feedback_and_their_counts_stand_among_the_metrics(tmp_path, upstream):
    with guarded(tmp_path, upstream, pii={"action": "redact"}) as gateway:
        asked = ask(gateway, "x").headers["x-request-id"]
        for kind, status in (("privacy", 202), ("none", 202), ("Not a kind!", 400), (3, 400)):
            found = post(gateway, "/v1/feedback", {"request_id": asked, "incident": kind})
            assert found.status == status, kind
        records_in(gateway)
        assert "jettison_incidents{" not in request(gateway.port, "GET", "/metrics").raw.decode()
        state = tmp_path / "state"
        watch = Watch(
            state, audits=(), alerts=Alerts(()), parts=(IncidentWatch((limit_from("reported:0.1"),)),)
        )
        watch.look(1.0)
        page = request(gateway.port, "GET", "/metrics").raw.decode()
        assert 'jettison_incidents{arm="all",kind="privacy",source="reported"} 1.0' in page
        assert 'jettison_incident_answers{arm="all",kind="pii",source="guardrail"} 1.0' in page
        assert 'jettison_incident_rate_upper{arm="all",kind="pii",source="guardrail"} 0.95' in page
        assert 'jettison_incident_rate_above{arm="all",kind="any",source="reported"} 0.0' in page
        (state / INCIDENTS_FILE).write_text("{")  # what is broken takes nothing down
        assert request(gateway.port, "GET", "/metrics").status == 200


class Crashes:
    Settings = GuardSettings

    def __init__(self, settings):
        pass

    def check(self, text, *, where):
        raise RuntimeError(text)


class Hangs(Crashes):
    def check(self, text, *, where):
        import time

        time.sleep(1.0)
        return Verdict(action="pass", guardrail="hangs")


@pytest.mark.parametrize("plugin", [Crashes, Hangs])
@pytest.mark.parametrize(("on_error", "status"), [("open", 200), ("closed", 400)])
def test_a_guardrail_that_fails_is_open_or_closed_as_told(tmp_path, upstream, plugin, on_error, status):
    registry.register("guardrails", "odd", plugin)
    try:
        settings = {"use": "odd", "on_error": on_error, "timeout_s": 0.2}
        with guarded(tmp_path, upstream, odd=settings) as gateway:
            assert ask(gateway, "secret text").status == status
            page = gateway.gateway.metrics.page().decode()
            assert ('outcome="failed_open"' in page) == (on_error == "open")
    finally:
        registry._added.pop(("guardrails", "odd"))


def test_moderations_are_the_guardrails(tmp_path, upstream):
    from gateways import client

    with guarded(
        tmp_path, upstream, pii={"action": "block"}, length={"action": "flag", "most_characters": 30}
    ) as gateway:
        found = client(gateway).moderations.create(input=[f"card {CARD}", "fine", "x" * 50])
        assert [one.flagged for one in found.results] == [True, False, True]
        raw = post(gateway, "/v1/moderations", {"input": "fine"}).json["results"][0]
        assert raw["categories"] == {"pii": False, "length": False}
        assert post(gateway, "/v1/moderations", {"input": []}).status == 400


def test_a_verifier_sends_generated_answers_that_will_not_do_to_the_fallback(tmp_path, upstream):
    async def by_model(exchange):
        text = "no JSON" if exchange.body["model"] == "lean" else '{"label": "pear"}'
        if not exchange.body.get("stream"):
            await exchange.reply(completion(text))
            return
        await exchange.begin_stream()
        await exchange.event(delta(text))
        await exchange.event(delta(None, finish="stop"))
        await exchange.event("[DONE]")
        await exchange.end_stream()

    upstream.behave = by_model
    far = {name: upstream_of(upstream.url, model=name) for name in ("lean", "big")}
    rails = {"json_schema": {"action": "escalate", "schema": {"type": "object", "required": ["label"]}}}
    inner = Cascade(lean=Single(candidate="upstream:lean"), fallback=BIG, threshold=0.0)
    route = Guarded(inner=inner, guardrails=("json_schema",))
    with running(config_of(tmp_path, upstreams=far, guardrails=rails, route=route)) as gateway:
        found = ask(gateway, "x")
        assert found.json["choices"][0]["message"]["content"] == '{"label": "pear"}'
        assert (found.headers["x-jettison-arm"], found.headers["x-jettison-escalated"]) == (
            "fallback",
            "true",
        )
        said = b"".join(
            one["choices"][0]["delta"].get("content", "").encode()
            for one in ask(gateway, "x", stream=True).events[:-1]
        )
        assert said == b'{"label": "pear"}'
        assert [one.role for one in records_in(gateway)] == ["lean", "answer"] * 2
        upstream.behave = answers  # a fallback that will not do either is not passed off as an answer
        assert ask(gateway, "x").json["error"]["code"] == "content_filter"
