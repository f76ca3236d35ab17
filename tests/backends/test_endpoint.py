"""Endpoints as candidates: answers are paid once, no fault of the network is a wrong answer."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from endpoint_server import (
    SECRET,
    FakeClock,
    Server,
    answer,
    echo,
    first,
    hung_up,
    said,
    send,
    status,
    whole,
)
from jettison.backends.endpoint import endpoint_candidate, open_vllm, read_endpoint
from jettison.backends.endpoint_engine import EndpointEngine
from jettison.backends.endpoint_pace import SystemClock
from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.errors import InvalidInput, Unanswered, Unsupported, WrongEndpoint
from jettison.evaluate.run import evaluate
from jettison.language import Ask, Continuation
from jettison.model import Output
from jettison.task import Example, Question
from jettison.task.prompt import Message

LABELS = ("music", "alarm")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("JETTISON_ANSWERS", str(tmp_path / "answers"))
    monkeypatch.setenv("THE_KEY", SECRET)
    # Waits between tries are shortened; how long they should be is asserted in test_transport.py.
    monkeypatch.setattr(SystemClock, "wait", lambda self, s: time.sleep(s / 100))
    made = Server()
    yield made
    made.close()


def candidate(
    folder: Path, server: Server, settings: dict[str, Any] | None = None, **given: Any
) -> Candidate:
    path = folder / f"endpoint-{len(list(folder.iterdir()))}"
    path.mkdir()
    asked = {"kind": "classify", "prompt": {"template": "One of {labels}.\nText: {input}"}}
    labels = () if settings else LABELS
    fields = {"model": "small", "api_key_env": "THE_KEY", "first_byte_s": 2.0, **given}
    return endpoint_candidate(path, url=server.url, labels=labels, settings=settings or asked, **fields)


def ask(made: Candidate, inputs: list[Any]) -> list[Output]:
    model = open_model(made)
    try:
        return model.predict(inputs)
    finally:
        model.close()


def engine(made: Candidate, **given: Any) -> EndpointEngine:
    return EndpointEngine(read_endpoint(made), **given)


def examples(n: int) -> list[Example]:
    return [Example(id=str(i), input=f"song {i}", expected="music") for i in range(n)]


def test_labels_confidence_and_price_come_out(server, tmp_path):
    priced = candidate(tmp_path, server, usd_per_million_input=0.5, usd_per_million_output=2.0)
    song, other = ask(priced, ["play a song", "wake me"])
    assert (song.label, other.label) == ("music", "alarm")
    assert song.confidence == pytest.approx(0.9048, abs=1e-3)
    assert song.cost.price_usd == 0.000054  # 100 at 0.5 and 2 at 2.0 a million
    assert (song.cost.prompt_tokens, song.cost.completion_tokens) == (100, 2)
    assert song.cost.wire_bytes > 100
    assert song.cost.first_token_s is None
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"


def test_a_chat_is_asked_although_no_template_is_shown(server, tmp_path):
    ask(candidate(tmp_path, server), ["a song"])
    assert server.paths == ["/v1/chat/completions"]
    assert server.asked[0]["messages"] == [
        {"role": "user", "content": "One of music, alarm.\nText: a song"}
    ]


def test_without_a_price_there_is_none(server, tmp_path):
    assert ask(candidate(tmp_path, server), ["a song"])[0].cost.price_usd is None


def test_one_question_asked_twice_is_paid_once(server, tmp_path):
    made = candidate(tmp_path, server)
    outputs = ask(made, ["a song"] * 5)
    assert [o.label for o in outputs] == ["music"] * 5
    again = ask(made, ["a song"])[0]
    assert again.cost == outputs[0].cost
    assert len(server.asked) == 1


def test_answers_belong_to_the_model_and_its_revision_or_address(server, tmp_path):
    other = Server()
    for fields in ({}, {"model": "large"}, {"revision": "2026-11"}):
        ask(candidate(tmp_path, server, **fields), ["a song"])
    assert len(server.asked) == 3
    moved = tmp_path / "moved"
    moved.mkdir()
    ask(candidate(moved, other, revision="2026-11"), ["a song"])  # the same model at another address
    assert len(other.asked) == 0
    ask(candidate(moved, other), ["a song"])
    assert len(other.asked) == 1
    other.close()


def test_samples_are_kept_apart_by_their_seed(server, tmp_path):
    settings = {"kind": "generate", "prompt": {"template": "{input}"}, "samples": 3}
    made = candidate(tmp_path, server, settings=settings)
    for _ in range(2):
        assert ask(made, ["a song"])[0].confidence == pytest.approx(1.0)
    assert sorted(body["seed"] for body in server.asked) == [0, 1, 2]
    assert {body["temperature"] for body in server.asked} == {0.7}


def test_answers_are_not_kept_where_they_shall_not_be(server, tmp_path):
    made = candidate(tmp_path, server, keep_answers=False)
    ask(made, ["a song"])
    ask(made, ["a song"])
    assert len(server.asked) == 2
    assert not (tmp_path / "answers").exists()


# --- faults


def test_a_dead_server_is_no_wrong_answer_and_nothing_is_paid_twice(server, tmp_path):
    dying = candidate(tmp_path, server, concurrency=2, max_retries=1)

    def dies(handler: Any, body: dict[str, Any], number: int) -> None:
        (answer if number <= 5 else hung_up)(handler, body, number)

    server.behave = dies
    with pytest.raises(
        Unanswered, match=r"small left 3 of 8 inputs unanswered .*None counts as wrong.*again"
    ):
        evaluate(dying, examples(8), split="dev", folder=tmp_path / "records")
    server.behave, before = answer, len(server.asked)
    records = evaluate(dying, examples(8), split="dev", folder=tmp_path / "records")
    assert [r.scores["label"] for r in records] == [1.0] * 8
    assert len(server.asked) - before == 3  # five answers were kept


def test_records_of_lost_answers_are_marked_and_judged_by_nobody(server, tmp_path):
    server.behave = lambda handler, body, number: (
        status(500) if "song 1" in said(body) else answer  # one input on which the server breaks
    )(handler, body, number)
    made = candidate(tmp_path, server, max_retries=1)
    folder = tmp_path / "records"
    records = evaluate(made, examples(3), split="dev", folder=folder, keep_unanswered=True)
    assert [r.unanswered for r in records] == [False, True, False]
    assert [r.scores["label"] for r in records] == [1.0, None, 1.0]
    assert "HTTP 500" in records[1].error
    assert not list(folder.glob("*.parquet"))  # not a finished evaluation
    server.behave = answer
    assert [r.unanswered for r in evaluate(made, examples(3), split="dev", folder=folder)] == [False] * 3


def test_a_server_that_dies_and_comes_back_is_waited_for(server, tmp_path):
    made = candidate(tmp_path, server, concurrency=2, wait_s=60.0)
    port = server.port
    later: list[Server] = []
    ask(made, ["a song"])
    server.close()
    timer = threading.Timer(0.3, lambda: later.append(Server(port)))
    timer.start()
    outputs = ask(made, ["song 1", "song 2", "song 3"])
    timer.join()
    later[0].close()
    assert [o.label for o in outputs] == ["music"] * 3


KILLED = """
import sys
from pathlib import Path
from jettison.candidate import Candidate, verify_candidate
from jettison.evaluate.run import evaluate
from jettison.task import Example

examples = [Example(id=str(i), input=f"song {i}", expected="music") for i in range(40)]
found = evaluate(Candidate.at(sys.argv[1]), examples, split="dev", folder=Path(sys.argv[2]), batch_size=8)
print(sum(r.scores["label"] for r in found))
"""


def test_after_a_kill_only_what_is_missing_is_asked(server, tmp_path):
    killed = threading.Event()

    def held(handler: Any, body: dict[str, Any], number: int) -> None:
        if number > 16:  # two batches are answered, and of the third each of two threads asks one
            killed.wait(60)
        answer(handler, body, number)

    server.behave = held
    made = candidate(tmp_path, server, concurrency=2, first_byte_s=60.0)
    command = [sys.executable, "-c", KILLED, str(made.path), str(tmp_path / "records")]
    process = subprocess.Popen(command, env=os.environ)
    while len(server.asked) < 18:
        time.sleep(0.005)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed.set()
    result = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    assert float(result.stdout) == 40.0
    # What was under way when it was killed, at most one request a thread, is asked once more.
    assert len(server.asked) == 42
    assert SECRET not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("behave", "rule"),
    [
        (status(401), r"must accept the key \(environment variable THE_KEY\), got HTTP 401"),
        (status(403), r"must accept the key \(environment variable THE_KEY\), got HTTP 403"),
        (status(402), r"must have credit, got HTTP 402"),
        (status(404), r"must have the model 'small', got HTTP 404.* It has \['small', 'large'\]"),
    ],
    ids=["401", "403", "402", "404"],
)
def test_what_every_request_would_run_into_is_said_at_once(behave, rule, server, tmp_path):
    server.behave = behave
    made = candidate(tmp_path, server, concurrency=1)
    with pytest.raises(WrongEndpoint, match=rule) as caught:
        evaluate(made, examples(50), split="dev")
    assert SECRET not in str(caught.value)
    assert len(server.asked) == 1


def test_an_input_that_is_refused_is_the_endpoints_own_failure(server, tmp_path):
    server.behave = first(answer, status(400))
    records = evaluate(candidate(tmp_path, server, concurrency=1), examples(3), split="dev")
    assert [r.scores["label"] for r in records] == [1.0, 0.0, 1.0]
    assert records[1].error.startswith("HTTP 400: fault 400 for ***")
    assert not records[1].unanswered


def test_an_endpoint_that_refuses_everything_is_set_up_wrongly(server, tmp_path):
    server.behave = status(400)
    with pytest.raises(WrongEndpoint, match=r"got 5 refusals and no answer: HTTP 400.*\[endpoint\]"):
        evaluate(candidate(tmp_path, server, concurrency=1), examples(50), split="dev")


def test_inputs_that_a_filter_keeps_out_say_nothing_of_the_settings(server, tmp_path):
    body = {"error": {"message": "filtered", "code": "content_filter"}}
    server.behave = lambda handler, asked, number: send(handler, 400, body)
    records = evaluate(candidate(tmp_path, server), examples(9), split="dev")
    assert {r.error for r in records} == {"HTTP 400: filtered"}


def test_a_server_that_knows_no_logprobs_is_asked_without(server, tmp_path):
    def picky(handler: Any, body: dict[str, Any], number: int) -> None:
        if "logprobs" in body:
            send(handler, 400, {"error": {"message": "logprobs are not supported"}})
        else:
            answer(handler, body, number)

    server.behave = picky
    made = candidate(tmp_path, server, concurrency=1)
    assert [o.label for o in ask(made, ["a song", "wake me"])] == ["music", "alarm"]
    assert len(server.asked) == 3  # it is learned once
    ask(made, ["a song"])
    assert len(server.asked) == 3  # and the answer is found under what was meant to be asked


def test_no_more_are_asked_at_once_than_allowed(server, tmp_path):
    def slow(handler: Any, body: dict[str, Any], number: int) -> None:
        threading.Event().wait(0.05)
        answer(handler, body, number)

    server.behave = slow
    ask(candidate(tmp_path, server, concurrency=3), [f"song {i}" for i in range(12)])
    assert 2 <= server.most_at_once <= 3


def test_the_rate_is_kept_by_all_threads_together(server, tmp_path):
    clock = FakeClock()
    made = engine(candidate(tmp_path, server, requests_per_minute=60, concurrency=1), clock=clock)
    made.complete([Ask(text=f"song {i}", max_tokens=1) for i in range(5)])
    made.close()
    assert clock.now() == pytest.approx(1004.0)  # one a second, the first at once


# --- vLLM's extras


def test_vllm_weighs_the_labels_by_their_likelihood(server, tmp_path):
    server.behave = echo
    made = candidate(tmp_path, server, backend="vllm", settings=None)
    output = ask(made, ["a song"])[0]
    # " music" and " alarm" have 6 characters each: -3 against -3.
    assert output.logits.tolist() == [-3.0, -3.0]
    assert {body["echo"] for body in server.asked} == {True}
    assert sorted(body["prompt"].rsplit(" ", 1)[1] for body in server.asked) == ["alarm", "music"]


def test_vllm_chooses_among_the_questions_own_choices(server, tmp_path):
    server.behave = echo
    settings = {"kind": "choose", "prompt": {"template": "{input}", "answer_prefix": "\nAnswer:"}}
    made = candidate(tmp_path, server, backend="vllm", settings=settings)
    output = ask(made, [Question(text="Which?", choices=("elephant", "ox", "giraffe"))])[0]
    assert output.label == "ox"
    assert output.logits.tolist() == [-4.5, -1.5, -4.0]


def test_a_lost_likelihood_is_no_wrong_answer(server, tmp_path):
    server.behave = lambda handler, body, number: (status(500) if "song 1" in said(body) else echo)(
        handler, body, number
    )
    made = candidate(tmp_path, server, backend="vllm", max_retries=0)
    records = evaluate(made, examples(3), split="dev", keep_unanswered=True)
    assert [r.unanswered for r in records] == [False, True, False]


def test_vllm_holds_an_answer_to_the_labels_and_goes_on_from_a_begun_one(server, tmp_path):
    made = candidate(tmp_path, server)
    model = engine(made, is_vllm=True)
    turns = (Message(role="user", content="a song"),)
    model.complete([Ask(messages=turns, choices=LABELS, answer_prefix="It is")])
    model.close()
    assert server.asked[0]["structured_outputs"] == {"choice": ["music", "alarm"]}
    assert server.asked[0]["messages"][-1] == {"role": "assistant", "content": "It is"}


def test_vllm_says_which_models_it_has_before_anything_is_asked(server, tmp_path):
    server.models = ("qwen", "llama")
    with (
        closing(open_vllm(candidate(tmp_path, server, backend="vllm"))) as model,
        pytest.raises(WrongEndpoint, match=r"must have the model 'small'\. It has \['qwen', 'llama'\]"),
    ):
        model.predict(["a song"])
    assert server.asked == []


def test_a_server_that_does_not_echo_is_asked_for_answers_instead(server, tmp_path):
    def no_echo(handler: Any, body: dict[str, Any], number: int) -> None:
        if "echo" in body:
            send(handler, 200, {"choices": [{"text": "!", "logprobs": None}]})
        else:
            answer(handler, body, number)

    server.behave = no_echo
    made = candidate(tmp_path, server, backend="vllm")
    assert ask(made, ["a song"])[0].label == "music"
    # Both labels are scored at once: the second may reach the server after the chat that replaces them.
    assert server.paths.count("/v1/chat/completions") == 1
    model = engine(made, is_vllm=True)
    with pytest.raises(Unsupported, match="does not give a prompt back"):
        model.likelihoods([Continuation(context="a", text=" b")])
    model.close()


# --- plain text


def test_plain_text_goes_to_completions_and_to_a_chat_where_there_are_none(server, tmp_path):
    def text_only(handler: Any, body: dict[str, Any], number: int) -> None:
        send(handler, 200, {"choices": [{"text": " upon a time", "finish_reason": "length"}]})

    server.behave = text_only
    model = engine(candidate(tmp_path, server))
    (found,) = model.complete([Ask(text="Once")])
    assert (found.text, found.finish, server.paths[-1]) == (" upon a time", "length", "/v1/completions")

    def chats_only(handler: Any, body: dict[str, Any], number: int) -> None:
        (status(404) if "prompt" in body else answer)(handler, body, number)

    server.behave = chats_only
    assert model.complete([Ask(text="a song")])[0].text == "music"
    model.complete([Ask(text="another song")])
    model.close()
    assert server.paths[1:] == ["/v1/completions", "/v1/chat/completions", "/v1/chat/completions"]


# --- the key


def test_the_key_is_in_no_file_log_or_error(server, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    server.behave = first(
        status(400), lambda h, b, n: send(h, 200, whole(f"the key is {SECRET}")), status(500)
    )
    made = candidate(tmp_path, server, concurrency=1, max_retries=1)
    records = evaluate(made, examples(4), split="dev", folder=tmp_path / "records")
    assert SECRET not in str(records)
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "answers.sqlite" for path in written)
    for path in written:
        assert SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"speed": 3}, "unknown field `speed`"),
        ({"concurrency": "many"}, r"Expected `int`, got `str` - at `\$.concurrency`"),
        ({"backend": "http"}, r"backend must be one of \['openai', 'vllm'\], got 'http'"),
    ],
)
def test_bad_settings_are_said(given, rule, server, tmp_path):
    with pytest.raises(InvalidInput, match=rule):
        candidate(tmp_path, server, **given)


def test_a_missing_key_is_said(server, tmp_path, monkeypatch):
    made = candidate(tmp_path, server)
    monkeypatch.delenv("THE_KEY")
    with pytest.raises(InvalidInput, match="environment variable THE_KEY must hold the key"):
        open_model(made)


def test_a_model_is_known_by_its_settings(server, tmp_path):
    same = [candidate(tmp_path, server).digest for _ in range(2)]
    assert same[0] == same[1]
    assert candidate(tmp_path, server, model="large").digest != same[0]
