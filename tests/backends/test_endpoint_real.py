"""The backend against a real engine: llama.cpp's own server. Name a GGUF file to run it."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from jettison.backends.endpoint_engine import EndpointEngine
from jettison.backends.endpoint_settings import Endpoint
from jettison.errors import Unsupported
from jettison.language import Ask, Continuation
from jettison.task.prompt import Message

GGUF = Path(os.environ.get("JETTISON_GGUF", "no such file"))
pytestmark = pytest.mark.skipif(
    not GGUF.is_file(), reason="JETTISON_GGUF names no GGUF file of a chat model"
)
CHAT = (Message(role="user", content="Name the capital of France."),)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    llama = pytest.importorskip("xllamacpp")
    params = llama.CommonParams()
    params.model.path = str(GGUF)
    params.n_ctx, params.n_parallel, params.warmup = 1024, 2, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = llama.Server(params)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def endpoint(url: str, tmp_path: Path) -> Endpoint:
    return Endpoint(url=url, model="any", answers=str(tmp_path), concurrency=2, usd_per_million_input=1.0)


def test_whole_and_streamed_answers_say_the_same(endpoint: Endpoint) -> None:
    found = []
    for stream in (False, True):
        engine = EndpointEngine(msgspec.structs.replace(endpoint, stream=stream))
        found.append(engine.complete([Ask(messages=CHAT, max_tokens=12)])[0])
        engine.close()
    whole, streamed = found
    assert whole.text == streamed.text
    assert whole.token_logprobs
    assert whole.top_logprobs == pytest.approx(streamed.top_logprobs, abs=1e-3)
    assert whole.cost.prompt_tokens == streamed.cost.prompt_tokens
    assert whole.cost.completion_tokens == streamed.cost.completion_tokens
    assert whole.cost.price_usd is None  # the price of answers is not known
    assert 0 < streamed.cost.first_token_s < streamed.cost.latency_s


def test_json_keeps_to_its_schema_and_plain_text_goes_on(endpoint: Endpoint) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    asked = (Message(role="user", content="Tom is 7. Give his age as JSON."),)
    engine = EndpointEngine(endpoint)
    extracted, text = engine.complete(
        [Ask(messages=asked, max_tokens=40, json_schema=schema), Ask(text="Once upon a", max_tokens=4)]
    )
    engine.close()
    assert isinstance(msgspec.json.decode(extracted.text)["age"], int)
    assert (text.finish, text.cost.completion_tokens) == ("length", 4)


def test_given_texts_that_it_does_not_echo_have_no_likelihood(endpoint: Endpoint) -> None:
    engine = EndpointEngine(endpoint, is_vllm=True)
    engine._is_checked = True  # the server goes by the file's name
    with pytest.raises(Unsupported, match="does not give a prompt back"):
        engine.likelihoods([Continuation(context="The sky", text=" is blue")])
    engine.close()
