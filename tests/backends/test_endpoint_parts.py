"""What an endpoint is sent, what is read of its answers, and what may stand in `endpoint.json`."""

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_server import SECRET
from jettison.backends.answer_cache import AnswerCache, answer_key, answers_folder, answers_kept_in
from jettison.backends.endpoint_dialect import Dialect, chat_body, text_body
from jettison.backends.endpoint_http import Fault
from jettison.backends.endpoint_likelihood import read_likelihood
from jettison.backends.endpoint_reply import check_choice, price_usd, read_completion, read_cost
from jettison.backends.endpoint_settings import Endpoint, check_endpoint, key_of
from jettison.backends.transport import Reply
from jettison.errors import CannotWrite, InvalidInput, Unsupported
from jettison.language import Ask, Continuation
from jettison.record import Cost
from jettison.task.prompt import Message

SHAPE: dict[str, Any] = {
    "model": "m",
    "extra": {},
    "top_logprobs": 5,
    "stream": False,
    "choice_field": None,
}


def reply(body: dict[str, Any]) -> Reply:
    return Reply(body=body, latency_s=0.1, wire_bytes=10)


# --- requests


def test_a_greedy_chat_has_no_seed_and_a_sampled_one_has():
    turns = (Message(role="system", content="Be short."), Message(role="user", content="Hi"))
    greedy = chat_body(Ask(messages=turns, max_tokens=7, seed=3, stop=("\n",)), **SHAPE)
    assert greedy == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 7,
        "temperature": 0.0,
        "stop": ["\n"],
        "logprobs": True,
        "top_logprobs": 5,
    }
    assert chat_body(Ask(text="Hi", temperature=0.7, seed=3), **SHAPE)["seed"] == 3


def test_a_schema_and_choices_go_by_their_own_fields():
    schema = {"type": "object"}
    body = chat_body(Ask(text="Hi", json_schema=schema), **SHAPE)
    assert body["response_format"]["json_schema"]["schema"] == schema
    for field, value in (
        ("structured_outputs", {"choice": ["a", "b"]}),
        ("guided_choice", ["a", "b"]),
    ):
        held = chat_body(Ask(text="Hi", choices=("a", "b")), **{**SHAPE, "choice_field": field})
        assert held[field] == value
    assert "guided_choice" not in chat_body(Ask(text="Hi", choices=("a", "b")), **SHAPE)


def test_an_answer_is_begun_only_where_the_server_goes_on_from_it():
    ask = Ask(messages=(Message(role="user", content="Hi"),), answer_prefix="Answer:")
    assert len(chat_body(ask, **SHAPE)["messages"]) == 1
    begun = chat_body(ask, **SHAPE, continues=True)
    assert begun["messages"][-1] == {"role": "assistant", "content": "Answer:"}
    assert begun["continue_final_message"] is True


def test_plain_text_asks_for_probabilities_in_its_own_way():
    body = text_body(Ask(text="Once"), **{**SHAPE, "stream": True})
    assert (body["prompt"], body["logprobs"]) == ("Once", 5)
    assert body["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("message", "without"),
    [
        ("logprobs is not supported with this model", {"logprobs", "top_logprobs"}),
        ("Unsupported value: 'temperature' does not support 0.0", {"temperature"}),
        ("Unknown parameter: 'stop'.", {"stop"}),
    ],
)
def test_a_field_that_the_server_refuses_is_left_out_from_then_on(message, without):
    dialect = Dialect()
    body = chat_body(Ask(text="Hi", stop=("x",)), **SHAPE)
    assert dialect.learn(message, body)
    assert set(body) - set(dialect.said(body)) == without
    assert not dialect.learn(message, dialect.said(body))


def test_max_tokens_goes_by_its_newer_name_where_the_server_asks_for_it():
    dialect = Dialect()
    body = chat_body(Ask(text="Hi", max_tokens=9), **SHAPE)
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    assert dialect.learn(message, body)
    said = dialect.said(body)
    assert said["max_completion_tokens"] == 9
    assert "max_tokens" not in said
    assert not dialect.learn(message, said)


def test_a_refusal_for_another_reason_teaches_nothing():
    body = chat_body(Ask(text="Hi"), **SHAPE)
    assert not Dialect().learn("max_tokens must be at most 4096, and we stopped counting", body)


# --- answers


@pytest.mark.parametrize(
    "body", [{}, {"choices": []}, {"choices": [3]}, {"choices": [{}]}, {"choices": "x"}]
)
def test_an_answer_without_a_choice_is_a_fault(body):
    with pytest.raises(Fault, match="holds no"):
        check_choice(body)


def test_text_is_read_from_every_shape_and_cut_where_it_was_to_stop():
    ask = Ask(text="Hi", stop=("\n",))
    shapes: list[tuple[dict[str, Any], str]] = [
        ({"message": {"content": "yes\nno"}}, "yes"),
        ({"message": {"content": [{"type": "text", "text": "ye"}, {"text": "s"}]}}, "yes"),
        ({"message": {"content": None, "refusal": "I will not."}}, "I will not."),
        ({"message": {"content": None}}, ""),
        ({"text": "yes", "finish_reason": "length"}, "yes"),
    ]
    for choice, text in shapes:
        check_choice({"choices": [choice]})
        found = read_completion(reply({"choices": [choice]}), ask, Cost())
        assert found.text == text
        assert found.finish == ("length" if "finish_reason" in choice else "stop")


def test_probabilities_that_lack_or_make_no_sense_are_not_known():
    def of(logprobs: object) -> tuple[Any, Any]:
        choice = {"message": {"content": "a"}, "logprobs": logprobs}
        found = read_completion(reply({"choices": [choice]}), Ask(text=""), Cost())
        return found.token_logprobs, found.top_logprobs

    good = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -0.5}]}
    assert of({"content": [good]}) == ((-0.5,), {"a": -0.5})
    assert of({"content": [good, {"token": "b", "logprob": None}]}) == (None, {"a": -0.5})
    assert of({"content": [{"token": "a", "logprob": float("nan")}]}) == (None, None)
    assert of({"token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]}) == ((-1.0,), {"a": -1.0})
    for nonsense in (
        None,
        [],
        {},
        {"content": []},
        {"content": [1]},
        {"token_logprobs": "x"},
        {"content": "x"},
    ):
        assert of(nonsense) == (None, None)


def test_fewer_probabilities_than_tokens_are_not_those_of_the_answer():
    content = [{"token": "a", "logprob": -0.5}] * 3
    body = {"choices": [{"message": {"content": "a"}, "logprobs": {"content": content}}]}
    for n_tokens, known in ((None, True), (3, True), (4, True), (5, False)):
        found = read_completion(reply(body), Ask(text=""), Cost(completion_tokens=n_tokens))
        assert (found.token_logprobs is not None) == known


@pytest.mark.parametrize(
    "usage",
    [None, [], "many", {}, {"prompt_tokens": "12"}, {"prompt_tokens": -1, "completion_tokens": True}],
)
def test_bad_usage_is_unknown_and_so_is_the_price(usage):
    cost = read_cost(reply({"usage": usage}), usd_per_million_input=1.0, usd_per_million_output=1.0)
    assert (cost.prompt_tokens, cost.completion_tokens, cost.price_usd) == (None, None, None)
    assert (cost.latency_s, cost.wire_bytes) == (0.1, 10)


def test_price_by_hand():
    # 1,000 tokens in at 0.15 and 200 out at 0.60 a million: 0.00015 + 0.00012.
    prices = {"usd_per_million_input": 0.15, "usd_per_million_output": 0.6}
    assert price_usd(1000, 200, **prices) == 0.00027
    # Of them 400 cached at 0.075: 0.00009 + 0.00003 + 0.00012.
    assert price_usd(1000, 200, n_cached=400, usd_per_million_cached=0.075, **prices) == 0.00024
    assert price_usd(1000, 200, usd_per_million_input=0.15, usd_per_million_output=None) is None
    assert price_usd(None, 200, **prices) is None
    assert price_usd(0, 0, **prices) == 0.0


@given(
    st.integers(0, 10**7),
    st.integers(0, 10**7),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_a_price_is_the_float_nearest_to_the_exact_one(n_in, n_out, in_mills, out_mills):
    exact = Decimal(n_in * in_mills + n_out * out_mills) / 10**9
    prices = {"usd_per_million_input": in_mills / 1000, "usd_per_million_output": out_mills / 1000}
    assert price_usd(n_in, n_out, **prices) == float(exact)


# --- likelihoods


def echoed(tokens: list[tuple[str, float | None]], made: int = 1) -> dict[str, Any]:
    generated = [("!", -9.0)] * made
    both = [*tokens, *generated]
    logprobs = {
        "tokens": [text for text, _ in both],
        "token_logprobs": [logprob for _, logprob in both],
        "top_logprobs": [None if p is None else {"best": max(p, -1.0), text: p} for text, p in both],
    }
    usage = {"prompt_tokens": len(tokens), "completion_tokens": made}
    return {"choices": [{"text": "", "logprobs": logprobs}], "usage": usage}


def test_likelihood_of_an_echoed_text_by_hand():
    body = echoed([("<s>", None), ("The", -3.0), (" sky", -2.0), (" bl", -0.5), ("ue", -0.25)])
    found = read_likelihood(body, Continuation(context="The sky", text=" blue"))
    assert found.logprob == -0.75
    assert (found.n_tokens, found.n_characters, found.n_context_tokens) == (2, 5, 3)
    assert found.greedy
    less = read_likelihood(echoed([("A", None), (" b", -1.5)]), Continuation(context="A", text=" b"))
    assert not less.greedy


def test_a_token_that_begins_in_the_context_belongs_to_the_text():
    body = echoed([("The", None), (" sky is", -2.0)])
    assert read_likelihood(body, Continuation(context="The sky", text=" is")).logprob == -2.0


def test_likelihood_in_the_shape_of_vllm():
    rows = [
        None,
        {
            "5": {"logprob": -2.0, "rank": 3, "decoded_token": "▁sky"},
            "9": {"logprob": -0.1, "decoded_token": "x"},
        },
        {"6": {"logprob": -0.5, "rank": 1, "decoded_token": "▁blue"}},
    ]
    body = {"choices": [{"text": "", "prompt_logprobs": rows}]}
    found = read_likelihood(body, Continuation(context="The sky", text=" blue"))
    assert (found.logprob, found.n_tokens, found.greedy) == (-0.5, 1, True)
    assert read_likelihood(body, Continuation(context="The", text=" sky blue")).greedy is False


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"text": "", "logprobs": None}]},
        {"choices": [{"text": ""}]},
        echoed([]),  # as llama.cpp answers: the generated token alone
        echoed([("The", None), (" sea", -1.0)]),
        echoed([(" sky", None)]),
    ],
    ids=["none", "no field", "generated only", "another text", "no probability"],
)
def test_a_server_that_does_not_echo_is_not_taken_to_say_zero(body):
    with pytest.raises(Unsupported, match="does not give a prompt back"):
        read_likelihood(body, Continuation(context="The", text=" sky"))


# --- settings


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"url": "ftp://host/v1"}, "url must be an address"),
        ({"url": "https://user:pw@host/v1"}, "without user, key or query"),
        ({"url": "https://host/v1?key=abc"}, "without user, key or query"),
        ({"api_key_env": "sk-123"}, "api_key_env must be the NAME"),
        ({"url": "http://api.vendor.com/v1", "api_key_env": "K"}, "url must be https where a key is sent"),
        ({"concurrency": 0}, "concurrency must be in 1-256"),
        ({"usd_per_million_input": -1.0}, "usd_per_million_input must be in 0-1e"),
        ({"total_s": float("nan")}, "total_s must be in"),
        ({"model": " "}, "model must be the model's name"),
        ({"extra": {"messages": []}}, r"extra must be without the fields .* got 'messages'"),
    ],
)
def test_bad_settings_are_said(given, rule):
    fields = {"url": "https://host/v1", "model": "m", **given}
    with pytest.raises(InvalidInput, match=rule) as caught:
        check_endpoint(Endpoint(**fields))
    assert "pw" not in str(caught.value).split()
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["localhost:80", "127.0.0.1:1", "10.0.0.2", "vllm:8000", "gpu.internal", "[::1]"]
)
def test_a_key_may_go_in_the_clear_within_ones_own_network(host):
    check_endpoint(Endpoint(url=f"http://{host}/v1", model="m", api_key_env="K"))


def test_the_key_may_stand_in_no_field(monkeypatch):
    monkeypatch.setenv("THE_KEY", SECRET)
    extra = {"api_key": SECRET}
    with pytest.raises(InvalidInput, match="without the key") as caught:
        check_endpoint(Endpoint(url="https://host/v1", model="m", api_key_env="THE_KEY", extra=extra))
    assert SECRET not in str(caught.value)


def test_a_key_that_no_header_can_hold_is_said_and_not_shown(monkeypatch):
    endpoint = Endpoint(url="https://host/v1", model="m", api_key_env="THE_KEY")
    monkeypatch.setenv("THE_KEY", "two\nlines-of-secret")
    with pytest.raises(InvalidInput, match="characters that no key has") as caught:
        key_of(endpoint)
    assert "secret" not in str(caught.value)


# --- answers that are kept


def test_the_key_of_an_answer_holds_every_field():
    base = ("m", "1", "/completions", {"a": 1, "b": 2}, 0)
    assert answer_key(*base) == answer_key("m", "1", "/completions", {"b": 2, "a": 1}, 0)
    others = [("n", *base[1:]), ("m", "2", *base[2:]), (*base[:3], {"a": 1}, 0), (*base[:4], 1)]
    assert len({answer_key(*one) for one in [base, *others]}) == 5


def test_what_is_kept_outlives_the_process_and_a_damaged_answer_counts_as_none(tmp_path):
    cache = AnswerCache(tmp_path)
    cache.put("k", {"a": 1})
    cache.close()
    cache.close()
    again = AnswerCache(tmp_path)
    assert again.get("k") == {"a": 1}
    again._connection.execute("UPDATE answers SET answer = ?", (b"{",))
    assert again.get("k") is None
    again.close()


def test_threads_that_want_one_answer_ask_once(tmp_path):
    cache = AnswerCache(tmp_path)
    asked, begun = [], threading.Event()

    def slow() -> dict[str, Any]:
        asked.append(1)
        begun.wait(0.2)
        return {"a": 1}

    found: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: found.append(cache.get_or_ask("k", slow))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    assert (len(asked), found) == (1, [{"a": 1}] * 6)


def test_a_failure_is_not_kept(tmp_path):
    cache = AnswerCache(tmp_path)

    def fails() -> dict[str, Any]:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.get_or_ask("k", fails)
    assert cache.get_or_ask("k", lambda: {"a": 2}) == {"a": 2}
    cache.close()


def test_a_file_that_is_no_database_is_said(tmp_path):
    (tmp_path / "answers.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(CannotWrite, match="move a damaged file away"):
        AnswerCache(tmp_path)


def test_a_run_keeps_answers_in_its_folder_unless_the_user_named_one(tmp_path, monkeypatch):
    monkeypatch.delenv("JETTISON_ANSWERS", raising=False)
    with answers_kept_in(tmp_path):
        assert answers_folder() == tmp_path
    assert answers_folder() != tmp_path
    monkeypatch.setenv("JETTISON_ANSWERS", "/elsewhere")
    with answers_kept_in(tmp_path):
        assert answers_folder() == Path("/elsewhere")


def test_endpoint_json_is_small_and_reads_back():
    endpoint = Endpoint(url="https://host/v1", model="m")
    written = msgspec.json.encode(endpoint)
    assert written == b'{"url":"https://host/v1","model":"m"}'
    assert msgspec.json.decode(written, type=Endpoint) == endpoint
