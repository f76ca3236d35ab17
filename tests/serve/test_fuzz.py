"""Whatever is sent, the gateway answers, and never with a fault of its own: schemathesis and hypothesis."""

import itertools
import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateways import ask, config_of, post, request, running
from jettison.serve.api_error import ApiError
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
QUIET = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    make_release(folder)
    with running(config_of(folder, release=str(folder / "7"))) as gateway:
        yield gateway
        assert ask(gateway, "pear").status == 200  # and it is as well as before


@schema.parametrize()
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
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
@settings(QUIET, derandomize=True, max_examples=15)
@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=8))
def test_any_json_under_known_names_never_finds_a_fault_of_ours(gateway, path, body):
    found = post(gateway, path, body)
    assert found.status < 500, (path, body, found.raw)


@settings(QUIET, derandomize=True, max_examples=40)
@given(extra=st.dictionaries(st.sampled_from(OPTIONS), JSON, max_size=4), text=st.text(max_size=50))
def test_a_sound_chat_with_any_options_never_finds_a_fault_of_ours(gateway, extra, text):
    found = post(
        gateway, "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **extra}
    )
    assert found.status < 500, (extra, text, found.raw)


@settings(QUIET, derandomize=True, max_examples=60)
@given(raw=st.binary(max_size=300))
def test_any_bytes_never_find_a_fault_of_ours(gateway, raw):
    assert request(gateway.port, "POST", "/v1/chat/completions", raw).status == 400


@settings(QUIET, max_examples=300)
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


@settings(QUIET, max_examples=200)
@given(depth=st.integers(1, 40), limit=st.integers(2, 40))
def test_depth_is_counted_as_it_is(depth, limit):
    raw = b'{"a":' * depth + b"1" + b"}" * depth
    if depth <= limit:
        assert read_json(raw, depth=limit)
    else:
        with pytest.raises(ApiError, match="at most"):
            read_json(raw, depth=limit)


@settings(QUIET, max_examples=200)
@given(texts=st.lists(st.text(max_size=20), max_size=8), cuts=st.lists(st.integers(0, 400), max_size=8))
def test_frames_are_the_same_however_they_are_cut(texts, cuts):
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    raw = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    places = sorted({0, len(raw), *(cut for cut in cuts if cut <= len(raw))})
    frames = Frames()
    found = [frame for a, b in itertools.pairwise(places) for frame in frames.feed(raw[a:b])]
    assert [read_chunk(data_of(frame)).choices[0].delta.content for frame in found] == texts
    assert frames.rest() == b""
