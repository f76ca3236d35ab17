"""Routes: who answers, what is said of it, what is logged; and what steers them while they run."""

import asyncio
import threading

import msgspec
import pytest
from scipy.stats import binomtest

from gateways import (
    answers,
    ask,
    completion,
    config_of,
    post,
    records_in,
    reloads,
    running,
    upstream_of,
    wait_until,
)
from jettison.backends.cascade import CascadeClassifier
from jettison.control import CONTROL_FILE, Control, RouteControl
from jettison.errors import InvalidInput
from jettison.files import write_atomic, write_json
from jettison.model import Output
from jettison.route import Cascade, Shadow, Single, Split
from jettison.serve.calls import Reply
from jettison.serve.routing import CascadeNode, position_of

LEAN, BIG = Single(candidate="release"), Single(candidate="upstream:big")


def served(tmp_path, release, upstream, route, **given):
    return running(
        config_of(
            tmp_path, release=release, upstreams={"big": upstream_of(upstream.url)}, route=route, **given
        )
    )


# Cascade


def test_a_sure_lean_answer_stands_and_an_unsure_one_is_escalated(tmp_path, release, upstream):
    # The fake model's confidence depends on the text alone; 0.9 parts some texts from others.
    with served(tmp_path, release, upstream, Cascade(lean=LEAN, fallback=BIG, threshold=0.9)) as gateway:
        found = [ask(gateway, f"pear {i}") for i in range(40)]
        for one in found:
            sure = float(one.headers.get("x-jettison-confidence", 0)) >= 0.9
            escalated = one.headers["x-jettison-escalated"] == "true"
            assert escalated != sure
            assert one.headers["x-jettison-arm"] == ("fallback" if escalated else "lean")
            said = one.json["choices"][0]["message"]["content"]
            assert said == ("big answer" if escalated else "pear")
        n_escalated = sum(one.headers["x-jettison-escalated"] == "true" for one in found)
        assert 0 < n_escalated < 40
        assert upstream.n == n_escalated
        records = records_in(gateway)
        assert sum(r.role == "lean" and r.escalated for r in records) == n_escalated
        assert sum(r.role == "answer" for r in records) == 40
        for one in found:
            mine = [r for r in records if r.example_id == one.headers["x-request-id"]]
            assert {r.role for r in mine} <= {"answer", "lean"}


def test_an_engine_that_fails_and_a_text_that_is_not_the_tasks_are_escalated(tmp_path, release, upstream):
    with served(tmp_path, release, upstream, Cascade(lean=LEAN, fallback=BIG, threshold=0.0)) as gateway:
        image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
        body = {"messages": [{"role": "user", "content": image}]}
        assert post(gateway, "/v1/chat/completions", body).headers["x-jettison-escalated"] == "true"
        assert (
            ask(gateway, "pear", tool_choice="required", tools=[]).headers["x-jettison-arm"] == "fallback"
        )


def test_when_the_fallback_is_down_sure_answers_go_on(tmp_path, release, upstream):
    async def dead(exchange):
        exchange.reset()

    upstream.behave = dead
    with served(tmp_path, release, upstream, Cascade(lean=LEAN, fallback=BIG, threshold=0.9)) as gateway:
        found = [ask(gateway, f"pear {i}").status for i in range(40)]
        assert set(found) <= {200, 502, 503}
        assert found.count(200) > 5


def test_a_cascade_streams_only_what_stands(tmp_path, release, upstream):
    with served(tmp_path, release, upstream, Cascade(lean=LEAN, fallback=BIG, threshold=0.9)) as gateway:
        said = set()
        for i in range(30):
            events = ask(gateway, f"pear {i}", stream=True).events
            assert events[-1] == "[DONE]"
            said.add("".join(e["choices"][0]["delta"].get("content") or "" for e in events[:-1]))
        assert said == {"pear", "one two three"}


def test_the_gateways_rule_is_the_cascades_own_rule():
    """`CascadeNode.why_not` and `CascadeClassifier._stands` agree on a grid of answers."""
    for escalate_flagged in (True, False):
        for below, decline in ((None, None), (0.3, None), (0.3, 0.1)):
            plan = Cascade(
                lean=LEAN, fallback=BIG, threshold=0.7, escalate_below=below, decline_below=decline
            )
            offline = CascadeClassifier(
                ("a", "oos"),
                lean=None,  # type: ignore[arg-type]
                fallback=None,  # type: ignore[arg-type]
                threshold=0.7,
                out_of_scope="oos",
                escalate_flagged=escalate_flagged,
                escalate_below=below,
                decline_below=decline,
            )
            live = CascadeNode(
                None,  # type: ignore[arg-type]
                None,  # type: ignore[arg-type]
                plan,
                behind=None,  # type: ignore[arg-type]
                metrics=None,  # type: ignore[arg-type]
                escalate_flagged=escalate_flagged,
                out_of_scope="oos",
            )
            for label in ("a", "oos"):
                for confidence in (0.2, 0.7, 0.9):
                    for in_scope in (None, 0.05, 0.2, 0.9):
                        for flagged in (False, True):
                            output = Output(
                                label=label, confidence=confidence, in_scope=in_scope, flagged=flagged
                            )
                            reply = Reply(
                                candidate="",
                                model="",
                                output=label,
                                confidence=confidence,
                                in_scope=in_scope,
                                flagged=flagged,
                            )
                            assert offline._stands(output) == (live.why_not(reply) == "")


def test_audits_ask_the_fallback_behind_answers_that_stand(tmp_path, release, upstream):
    route = Cascade(lean=LEAN, fallback=BIG, threshold=0.0)
    with served(tmp_path, release, upstream, route, audit_share=0.5) as gateway:
        for i in range(60):
            assert ask(gateway, f"pear {i}").headers["x-jettison-arm"] == "lean"
        wait_until(lambda: sum(r.role == "audit" for r in records_in(gateway)) == upstream.n)
        audits = [r for r in records_in(gateway) if r.role == "audit"]
        assert binomtest(len(audits), 60, 0.5).pvalue > 1e-6
        assert {(r.propensity, r.output, r.route, r.arm) for r in audits} == {
            (0.5, "big answer", "fallback", "fallback")
        }
        answered = {r.example_id for r in records_in(gateway) if r.role == "answer"}
        assert {r.example_id for r in audits} <= answered


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_lean_model_that_writes_is_weighed_by_its_tokens_though_the_client_asks_for_no_logprobs(
    tmp_path, upstream, path
):
    async def by_text(exchange):
        body = exchange.body
        text = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        answer = completion("lean" if body["model"] == "small" else "big")
        choice = answer["choices"][0] | {"text": "an answer"}
        if body.get("logprobs"):
            # Mean probabilities 0.9 and 0.5: exp((ln 0.9 + ln 0.9) / 2), exp((ln 1 + ln 0.25) / 2).
            told = [-0.105360516, -0.105360516] if "sure" in text else [0.0, -1.386294361]
            named = {"content": [{"token": "t", "logprob": one} for one in told]}
            choice["logprobs"] = {"token_logprobs": told} if "prompt" in body else named
        await exchange.reply({**answer, "choices": [choice]})

    upstream.behave = by_text
    far = {name: upstream_of(upstream.url, model=name) for name in ("small", "big")}
    route = Cascade(lean=Single(candidate="upstream:small"), fallback=BIG, threshold=0.8)
    with running(config_of(tmp_path, upstreams=far, route=route)) as gateway:

        def asked(text, **more):
            upstream.asked.clear()
            return post(
                gateway, path, {"prompt": text, "messages": [{"role": "user", "content": text}], **more}
            )

        found = asked("sure")
        assert found.headers["x-jettison-arm"] == "lean"
        assert float(found.headers["x-jettison-confidence"]) == pytest.approx(0.9, abs=1e-6)
        assert found.json["choices"][0]["logprobs"] is None
        found = asked("who knows")
        assert found.headers["x-jettison-arm"] == "fallback"
        assert [bool(one.body.get("logprobs")) for one in upstream.asked] == [True, False]
        lean = next(one for one in records_in(gateway) if one.role == "lean")
        assert lean.confidence == pytest.approx(0.5, abs=1e-6)
        assert asked("sure", logprobs=1 if "chat" not in path else True).json["choices"][0]["logprobs"]
    far = {"small": upstream_of(upstream.url, model="small", logprobs=False), "big": far["big"]}
    with running(config_of(tmp_path / "b", upstreams=far, route=route)) as gateway:
        assert asked("sure").headers["x-jettison-arm"] == "fallback"
        assert not any(one.body.get("logprobs") for one in upstream.asked)


# Shadow


def test_a_shadow_is_logged_never_returned_and_delays_nobody(tmp_path, release, upstream):
    is_answered = threading.Event()

    async def slow(exchange):
        while not is_answered.is_set():
            await asyncio.sleep(0.02)
        await exchange.reply(completion("shadow says"))

    upstream.behave = slow
    route = Shadow(main=LEAN, shadow=BIG, shadow_share=1.0)
    with served(tmp_path, release, upstream, route) as gateway:
        found = [ask(gateway, "pear") for _ in range(2)][-1]
        assert not any(r.role == "shadow" for r in records_in(gateway))
        is_answered.set()
        assert found.json["choices"][0]["message"]["content"] == "pear"
        assert (found.headers["x-jettison-route"], found.headers["x-jettison-arm"]) == ("main", "main")
        wait_until(lambda: sum(r.role == "shadow" for r in records_in(gateway)) == 2)
        shadow = [r for r in records_in(gateway) if r.role == "shadow"][-1]
        assert (shadow.output, shadow.propensity, shadow.route, shadow.arm) == (
            "shadow says",
            1.0,
            "shadow",
            "shadow",
        )


def test_a_shadow_that_is_down_is_a_record_with_its_error(tmp_path, release, upstream):
    async def dead(exchange):
        exchange.reset()

    upstream.behave = dead
    route = Shadow(main=LEAN, shadow=BIG, shadow_share=1.0)
    with served(tmp_path, release, upstream, route) as gateway:
        assert ask(gateway, "pear").status == 200
        wait_until(lambda: any(r.role == "shadow" for r in records_in(gateway)))
        (shadow,) = [r for r in records_in(gateway) if r.role == "shadow"]
        assert (shadow.error, shadow.unanswered, shadow.route) == ("upstream_cut_off", True, "shadow")
        assert (shadow.arm, shadow.propensity) == ("shadow", 1.0)


# Split


def test_positions_are_uniform_stable_and_independent_of_other_salts():
    n = 20_000
    first = [position_of(f"user-{i}", "a") for i in range(n)]
    assert position_of("user-0", "a") == 0.7571928438912748
    for share in (0.05, 0.5, 0.9):
        assert binomtest(sum(x < share for x in first), n, share).pvalue > 1e-4
    both = sum(x < 0.5 and position_of(f"user-{i}", "b") < 0.5 for i, x in enumerate(first))
    assert binomtest(both, n, 0.25).pvalue > 1e-4


def test_a_user_keeps_the_arm_over_ramps_and_restarts(tmp_path, release, upstream):
    users = [f"user-{i}" for i in range(60)]
    in_treatment = []
    for share in (0.2, 0.5, 0.8):
        route = Split(control=BIG, treatment=LEAN, treatment_share=share, salt="s")
        with served(tmp_path, release, upstream, route) as gateway:
            arms = {}
            for user in users:
                found = ask(gateway, "pear", user=user)
                arms[user] = found.headers["x-jettison-arm"]
                assert ask(gateway, "apple", user=user).headers["x-jettison-arm"] == arms[user]
            in_treatment.append({user for user, arm in arms.items() if arm == "treatment"})
            record = records_in(gateway)[-1]
            assert record.propensity == pytest.approx(share if record.arm == "treatment" else 1 - share)
            assert len(record.key) == 24
            assert "user" not in record.key
    assert in_treatment[0] < in_treatment[1] < in_treatment[2]


def test_an_arm_that_fails_outright_is_named_in_its_record(tmp_path, release, upstream):
    async def dead(exchange):
        exchange.reset()

    upstream.behave = dead
    inner = Cascade(lean=LEAN, fallback=BIG, threshold=2.0)  # always escalated, to one who is down
    route = Split(control=LEAN, treatment=inner, treatment_share=0.5, salt="s")
    treated = next(f"user-{i}" for i in range(50) if position_of(f"user-{i}", "s") < 0.5)
    with served(tmp_path, release, upstream, route) as gateway:
        assert ask(gateway, "pear", user=treated).status == 502
        wait_until(lambda: any(r.role == "answer" for r in records_in(gateway)))
        (failed,) = [r for r in records_in(gateway) if r.role == "answer"]
        assert (failed.error, failed.unanswered) == ("upstream_cut_off", True)
        assert (failed.arm, failed.route, failed.propensity) == ("treatment", "treatment/fallback", 0.5)


def test_what_is_sticky(tmp_path, release, upstream):
    route = Split(control=BIG, treatment=LEAN, treatment_share=0.5, salt="s")
    with served(tmp_path, release, upstream, route) as gateway:
        body = {"messages": [{"role": "user", "content": "pear"}]}
        for given, headers in (
            ({"safety_identifier": "u1"}, {}),
            ({"prompt_cache_key": "u1"}, {}),
            ({"metadata": {"user_id": "u1"}}, {}),
            ({"user": "someone else"}, {"x-jettison-key": "u1"}),
        ):
            found = post(gateway, "/v1/chat/completions", {**body, **given}, headers)
            expected = "treatment" if position_of("u1", "s") < 0.5 else "control"
            assert found.headers["x-jettison-arm"] == expected
        drawn = {post(gateway, "/v1/chat/completions", body).headers["x-jettison-arm"] for _ in range(30)}
        assert drawn == {"treatment", "control"}
        assert records_in(gateway)[-1].key is None


def test_routes_nest(tmp_path, release, upstream):
    inner = Cascade(lean=LEAN, fallback=BIG, threshold=2.0)
    route = Split(control=BIG, treatment=inner, treatment_share=1.0, salt="s")
    with served(tmp_path, release, upstream, route) as gateway:
        found = ask(gateway, "pear", user="u")
        assert found.headers["x-jettison-route"] == "treatment/fallback"
        assert (found.headers["x-jettison-arm"], found.headers["x-jettison-escalated"]) == (
            "treatment",
            "true",
        )


# Steering


def test_control_ramps_and_rolls_back_without_a_restart(tmp_path, release, upstream):
    route = Split(
        control=BIG,
        treatment=Cascade(lean=LEAN, fallback=BIG, threshold=0.0),
        treatment_share=0.0,
        salt="s",
    )
    with served(tmp_path, release, upstream, route) as gateway:
        assert ask(gateway, "pear", user="u").headers["x-jettison-arm"] == "control"
        path = gateway.gateway.state / CONTROL_FILE
        steer = {"": RouteControl(treatment_share=1.0), "treatment": RouteControl(threshold=2.0)}
        write_json(path, Control(routes=steer, experiment="lean-7", reason="ramp"))
        wait_until(
            lambda: ask(gateway, "pear", user="u").headers["x-jettison-route"] == "treatment/fallback"
        )
        assert records_in(gateway)[-1].experiment == "lean-7"
        write_atomic(path, '{"routes": {"": {"treatment_share": 1.5}}}')
        wait_until(lambda: reloads(gateway, "control_refused") == 1)
        assert ask(gateway, "pear", user="u").headers["x-jettison-arm"] == "treatment"
        write_atomic(path, '{"routes": {"nowhere": {"threshold": 0.5}}}')
        wait_until(lambda: reloads(gateway, "control_refused") == 2)
        assert ask(gateway, "pear", user="u").headers["x-jettison-arm"] == "treatment"
        write_json(path, Control(reason="rollback"))
        wait_until(lambda: ask(gateway, "pear", user="u").headers["x-jettison-arm"] == "control")


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (
            Single(candidate="upstream:none"),
            r"\$\.route\.candidate must be one of \['upstream:big'.*got 'upstream:none'",
        ),
        (Cascade(lean=LEAN, fallback=BIG, threshold=3.0), r"\$\.route\.threshold must be in 0-2, got 3.0"),
        (
            Split(control=BIG, treatment=LEAN, treatment_share=7, salt=""),
            r"treatment_share must be in 0-1, got 7",
        ),
        (
            Shadow(main=BIG, shadow=Single(candidate="x"), shadow_share=1),
            r"\$\.route\.shadow\.candidate must be",
        ),
    ],
)
def test_a_route_that_leads_nowhere_is_refused_with_its_place(tmp_path, release, route, message):
    from jettison.serve.config import check_serve_config

    config = config_of(
        tmp_path, release=release, upstreams={"big": upstream_of("http://127.0.0.1:1/v1")}, route=route
    )
    with pytest.raises(InvalidInput, match=message):
        check_serve_config(config, "serve.toml")


def test_an_upstream_answers_decisions_with_the_tasks_prompt(tmp_path, release, upstream):
    async def names_pear(exchange):
        await exchange.reply(completion("It is: Pear."))

    upstream.behave = names_pear
    prompt = {"template": "One of {labels}: {input}"}
    big = msgspec.structs.replace(upstream_of(upstream.url), prompt=prompt)
    config = config_of(tmp_path, release=release, upstreams={"big": big}, route=BIG)
    with running(config) as gateway:
        question = {
            "type": "choice",
            "instructions": "?",
            "choices": [{"value": "apple"}, {"value": "pear"}],
        }
        found = post(gateway, "/v1/decisions", {"input": "green fruit", "questions": [question]}).json
        assert found["answers"][0]["choice"] == "pear"
        assert found["answers"][0]["estimated"] is True
        assert upstream.asked[-1].body["messages"][0]["content"] == "One of apple, pear, oos: green fruit"
        upstream.behave = answers
        found = post(gateway, "/v1/decisions", {"input": "green fruit", "questions": [question]})
        assert (found.status, found.json["error"]["code"]) == (502, "bad_upstream_reply")
