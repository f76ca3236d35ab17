"""Whatever is sent, the gateway answers, and never with a fault of its own: schemathesis and hypothesis.

`JETTISON_FUZZ=10 pytest tests/serve/test_fuzz.py` looks ten times as long, and elsewhere each time.
"""

import contextlib
import itertools
import json
import os
import warnings
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedding_folder import make_static_embedder
from gateways import Faulty, answers, ask, completion, config_of, running, upstream_of
from gateways import request as _request
from jettison.route import Cascade, Guarded, Shadow, Single, Split
from jettison.serve.access import new_key
from jettison.serve.api_error import ApiError
from jettison.serve.config import KeyConfig
from jettison.serve.decisions import read_questions, read_systemone
from jettison.serve.openapi import OPENAPI
from jettison.serve.reading import check_chat, read_json
from jettison.serve.sse import Frames, data_of, read_chunk
from releasing import make_release

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import schemathesis

schema = schemathesis.openapi.from_dict(OPENAPI)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
LONGER = int(os.environ.get("JETTISON_FUZZ", "1"))
QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck))


def quiet(max_examples):
    return settings(QUIET, max_examples=max_examples * LONGER, derandomize=LONGER == 1)


async def sound(exchange):
    """Answers in the shape that was asked for."""
    if exchange.path.endswith("/embeddings"):
        await exchange.reply({"object": "list", "data": [{"embedding": [0.0]}]})
    elif not exchange.path.endswith("/completions") or "/chat/" in exchange.path:
        await answers(exchange)
    elif exchange.body.get("stream"):
        await exchange.begin_stream()
        await exchange.event({"choices": [{"index": 0, "text": "a word", "finish_reason": "stop"}]})
        await exchange.event("[DONE]")
        await exchange.end_stream()
    else:
        await exchange.reply({"choices": [{"index": 0, "text": "a word", "finish_reason": "stop"}]})


BIG = Single(candidate="upstream:big")
RAILS = {
    "pii": {"action": "redact"},
    "secrets": {},
    "length": {"action": "flag", "most_words": 5},
    "json_schema": {"action": "flag", "where": ["output"]},
}
KEY, DIGEST = new_key()


@pytest.fixture(scope="module")
def faulty():
    with Faulty() as faulty:
        yield faulty


@contextlib.contextmanager
def all_on(folder, faulty):
    """Guardrails, keys with budgets, an embedder, and every kind of route."""
    make_release(folder)
    inner = Shadow(
        main=Split(
            control=BIG,
            treatment=Cascade(lean=Single(candidate="release"), fallback=BIG, threshold=0.9),
            treatment_share=0.5,
            salt="s",
        ),
        shadow=BIG,
        shadow_share=0.2,
    )
    far = upstream_of(faulty.url, usd_per_million_input=1.0, usd_per_million_output=1.0, max_retries=0)
    config = config_of(
        folder,
        release=str(folder / "7"),
        upstreams={"big": far},
        embedders={"mini": str(make_static_embedder(folder / "mini"))},
        guardrails=RAILS,
        route=Guarded(inner=inner, guardrails=tuple(RAILS)),
        keys=(KeyConfig(name="k", sha256=DIGEST, tokens_per_minute=1e12, budget_usd=1e9, concurrency=64),),
        audit_share=0.2,
    )
    with running(config) as gateway:
        yield gateway


@pytest.fixture(scope="module", params=["release", pytest.param("all_on", marks=pytest.mark.slow)])
def gateway(request, tmp_path_factory, faulty):
    folder = tmp_path_factory.mktemp("fuzz")
    faulty.behave = sound
    if request.param == "all_on":
        with all_on(folder, faulty) as gateway:
            yield gateway
            faulty.behave = sound
            assert post(gateway, "/v1/chat/completions", CHAT).status == 200
        return
    make_release(folder)
    with running(config_of(folder, release=str(folder / "7"))) as gateway:
        yield gateway
        assert ask(gateway, "pear").status == 200  # and it is as well as before


CHAT = {"messages": [{"role": "user", "content": "pear"}]}
request = partial(_request, headers={"authorization": f"Bearer {KEY}"})


def post(gateway, path, body):
    return request(gateway.port, "POST", path, body)


@schema.parametrize()
@quiet(12)
def test_requests_of_the_schema_never_find_a_fault_of_ours(case, gateway):
    body = None if case.method == "GET" else case.body
    raw = body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
    path = case.path.replace("{name}", "fruit")
    found = request(gateway.port, case.method, path, None if case.method == "GET" else raw)
    assert found.status < 500, f"{path} {raw!r} {found.raw!r}"
    if found.status >= 400:
        assert set(found.json["error"]) == {"message", "type", "param", "code"}


PATHS = sorted(path.replace("{name}", "fruit") for path, item in OPENAPI["paths"].items() if "post" in item)
SAMPLING = ["n", "stop", "logprobs", "top_logprobs", "response_format", "tool_choice", "stream"]
SHARED = [*SAMPLING, "stream_options", "user", "metadata"]
OPTIONS = [*SHARED, "max_tokens", "temperature", "seed", "tools"]
CONTENT = [
    "messages",
    "prompt",
    "input",
    "questions",
    "state",
    "model",
    "request_id",
    "score",
    "inputs",
    "id",
]
FIELDS = [*SHARED, *CONTENT]


@pytest.mark.parametrize("path", PATHS)
@quiet(15)
@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8))
def test_any_json_under_known_names_never_finds_a_fault_of_ours(gateway, path, body):
    found = post(gateway, path, body)
    assert found.status < 500, (path, body, found.raw)


@quiet(40)
@given(extra=st.dictionaries(st.sampled_from(OPTIONS), JSON, max_size=4), text=st.text(max_size=50))
def test_a_sound_chat_with_any_options_never_finds_a_fault_of_ours(gateway, extra, text):
    found = post(
        gateway, "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **extra}
    )
    assert found.status < 500, (extra, text, found.raw)


@quiet(60)
@given(raw=st.binary(max_size=300))
def test_any_bytes_never_find_a_fault_of_ours(gateway, raw):
    assert request(gateway.port, "POST", "/v1/chat/completions", raw).status == 400


@quiet(300)
@given(value=JSON)
def test_readers_refuse_in_words_and_raise_nothing_else(value):
    for read in (read_questions, read_systemone, lambda v: check_chat({"messages": v})):
        error = raised_by(read, value)
        assert error is None or (error.status == 400 and error.message)


def raised_by(read, value):
    try:
        read(value)
    except ApiError as error:
        return error
    return None


@quiet(200)
@given(depth=st.integers(1, 40), limit=st.integers(2, 40))
def test_depth_is_counted_as_it_is(depth, limit):
    raw = b'{"a":' * depth + b"1" + b"}" * depth
    if depth <= limit:
        assert read_json(raw, depth=limit)
    else:
        with pytest.raises(ApiError, match="at most"):
            read_json(raw, depth=limit)


@quiet(200)
@given(texts=st.lists(st.text(max_size=20), max_size=8), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_frames_are_the_same_however_they_are_cut(texts, cuts):
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    raw = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    places = sorted({0, len(raw), *(cut for cut in cuts if cut <= len(raw))})
    frames = Frames()
    found = [frame for a, b in itertools.pairwise(places) for frame in frames.feed(raw[a:b])]
    assert [read_chunk(data_of(frame)).choices[0].delta.content for frame in found] == texts
    assert frames.rest() == b""


TEXT = st.text(max_size=12) | st.sampled_from(["4111 1111 1111 1111", "ada@example.com", "pear", ""])
ODD = JSON | TEXT
TOOLS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": ODD,
            "id": ODD,
            "function": ODD | st.fixed_dictionaries({}, optional={"name": ODD, "arguments": ODD}),
        },
    ),
    max_size=2,
)
SAID = st.fixed_dictionaries(
    {},
    optional={
        "role": ODD,
        "content": ODD | st.lists(st.fixed_dictionaries({"type": TEXT, "text": ODD}), max_size=2),
        "refusal": ODD,
        "reasoning_content": ODD,
        "tool_calls": ODD | TOOLS,
        "function_call": ODD | st.fixed_dictionaries({"arguments": ODD}),
    },
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "index": ODD | st.integers(0, 3),
        "message": ODD | SAID,
        "delta": ODD | SAID,
        "text": ODD,
        "finish_reason": ODD,
        "logprobs": ODD,
    },
)
BODY = st.fixed_dictionaries({"choices": ODD | st.lists(CHOICE, max_size=3)}, optional={"usage": ODD})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, faulty):
    with all_on(tmp_path_factory.mktemp("guarded"), faulty) as gateway:
        yield gateway


@quiet(12)
@given(body=BODY, path=st.sampled_from(["/v1/chat/completions", "/v1/completions"]), whole=st.booleans())
def test_whatever_an_upstream_answers_is_no_fault_of_ours(guarded, faulty, body, path, whole):
    async def behave(exchange):
        await exchange.reply(body)

    faulty.behave = behave
    asked = {**CHAT, "prompt": "please", "messages": [{"role": "user", "content": "no such fruit"}]}
    found = post(guarded, path, {**asked, "stream": not whole})
    if found.status == 200 and not whole:
        assert found.events[-1] == "[DONE]"
    elif found.status != 200:
        assert found.json["error"]["code"] in ("bad_upstream_reply", "content_filter", "upstream_open"), (
            body
        )


@quiet(12)
@given(bodies=st.lists(BODY | ODD | st.just(completion("x")), max_size=5), cut=st.booleans())
def test_whatever_an_upstream_streams_ends_in_an_end(guarded, faulty, bodies, cut):
    async def behave(exchange):
        await exchange.begin_stream()
        for body in bodies:
            await exchange.event(json.dumps(body))
        await exchange.event("[DONE]")
        if cut:
            exchange.close()
        else:
            await exchange.end_stream()

    faulty.behave = behave
    asked = {"messages": [{"role": "user", "content": "no such fruit"}], "stream": True}
    found = post(guarded, "/v1/chat/completions", asked)
    if found.status == 200:
        last = found.events[-1]
        assert last == "[DONE]" or last["error"] is None or "internal" not in str(last["error"]), bodies
        assert b"4111 1111 1111 1111" not in found.raw
    else:
        assert found.json["error"]["code"] != "internal_error", bodies
