"""The API as real clients see it: openai's own, against a gateway with a real release."""

import base64
import math
import struct

import openai
import pytest

from gateways import ask, client, config_of, post, records_in, request, running
from jettison.serve.config import InputConfig
from releasing import LABELS, make_release


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    make_release(folder)
    with running(config_of(folder, release=str(folder / "7"))) as gateway:
        yield gateway


def test_models_are_listed_with_their_proof(gateway):
    (model,) = client(gateway).models.list().data
    assert model.id == "fruit"
    assert model.jettison["verdict"] == "SHIP"
    assert model.jettison["unproven"] == []
    assert client(gateway).models.retrieve("fruit").id == "fruit"
    with pytest.raises(openai.NotFoundError, match="no model 'other'"):
        client(gateway).models.retrieve("other")


def test_a_chat_is_answered_with_the_label_and_says_who_answered(gateway):
    raw = client(gateway).chat.completions.with_raw_response.create(
        model="fruit",
        messages=[{"role": "user", "content": "pear please"}],
        max_completion_tokens=5,
        user="u",
    )
    completion = raw.parse()
    assert completion.choices[0].message.content == "pear"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.estimated is True
    assert raw.headers["x-jettison-escalated"] == "false"
    assert 0 < float(raw.headers["x-jettison-confidence"]) <= 1
    assert raw.headers["x-request-id"].startswith("req_")


def test_a_stream_has_role_content_finish_usage_and_end(gateway):
    chunks = list(
        client(gateway).chat.completions.create(
            model="fruit",
            messages=[{"role": "user", "content": [{"type": "text", "text": "apple"}]}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "apple"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0


def test_the_clients_own_stream_helper_and_parser_work(gateway):
    with client(gateway).chat.completions.stream(
        model="fruit", messages=[{"role": "user", "content": "pear"}]
    ) as stream:
        assert stream.get_final_completion().choices[0].message.content == "pear"


def test_logprobs_are_the_calibrated_probabilities(gateway):
    found = client(gateway).chat.completions.create(
        model="fruit",
        messages=[{"role": "user", "content": "pear"}],
        logprobs=True,
        top_logprobs=3,
        n=2,
    )
    assert [choice.index for choice in found.choices] == [0, 1]
    token = found.choices[0].logprobs.content[0]
    assert token.token == "pear"
    assert {top.token for top in token.top_logprobs} == set(LABELS)
    assert math.isclose(sum(math.exp(top.logprob) for top in token.top_logprobs), 1.0, abs_tol=1e-6)


def test_completions_of_one_and_of_many_prompts(gateway):
    one = client(gateway).completions.create(model="fruit", prompt="an apple", logprobs=2)
    assert one.choices[0].text == "apple"
    assert len(one.choices[0].logprobs.top_logprobs[0]) == 2
    many = client(gateway).completions.create(model="fruit", prompt=["an apple", "a pear"], echo=True)
    assert [choice.text for choice in many.choices] == ["an appleapple", "a pearpear"]
    streamed = client(gateway).completions.create(model="fruit", prompt="a pear", stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == "pear"


def test_decisions_answer_each_question_by_its_kind_in_order(gateway):
    decision = client(gateway).decisions.create(
        model="fruit",
        input=[{"role": "user", "content": "a pear"}],
        questions=[
            {
                "type": "choice",
                "name": "which",
                "instructions": "Which fruit?",
                "choices": [{"value": "apple"}, {"value": "pear"}, {"value": "oos"}],
            },
            {"type": "predicate", "instructions": "Pear."},
            {
                "type": "score",
                "instructions": "How pear?",
                "levels": [{"label": "oos"}, {"label": "apple"}, {"label": "pear"}],
            },
            {"type": "predicate", "instructions": "it is raining"},
        ],
    )
    choice, predicate, score, refusal = decision.answers
    assert (choice.type, choice.name, choice.choice) == ("choice", "which", "pear")
    shares = {one.value: one.probability for one in choice.probabilities}
    assert math.isclose(sum(shares.values()), 1.0, abs_tol=1e-9)
    assert choice.confidence == shares["pear"]
    assert predicate.probability == pytest.approx(shares["pear"])
    # Levels count from 0: the expected level is 0 * oos + 1 * apple + 2 * pear.
    assert score.score == pytest.approx(shares["apple"] + 2 * shares["pear"])
    assert [one.value for one in score.probabilities] == [0, 1, 2]
    assert refusal.type == "refusal"
    assert decision.usage.output_tokens_details.reasoning_tokens == 0


def test_true_and_the_text_true_are_two_choices(gateway):
    choices = [{"value": True}, {"value": "true"}]
    found = post(
        gateway,
        "/v1/decisions",
        {"input": "x", "questions": [{"type": "choice", "instructions": "q", "choices": choices}]},
    )
    assert found.json["answers"] == [{"type": "refusal", "name": None}]
    twice = [{"value": True}, {"value": True}]
    found = post(
        gateway,
        "/v1/decisions",
        {"input": "x", "questions": [{"type": "choice", "instructions": "q", "choices": twice}]},
    )
    assert (found.status, found.json["error"]["param"]) == (400, "questions[0].choices")


def test_systemone_is_the_same_in_its_own_words(gateway):
    found = post(
        gateway,
        "/v1/systemone",
        {
            "state": "a pear",
            "questions": {
                "pear": {"type": "noul", "instructions": "?"},
                "which": {
                    "type": "choice",
                    "instructions": "?",
                    "criteria": {"apple": None, "pear": "green"},
                },
                "how": {"type": "score", "instructions": "?", "criteria": ["apple", "pear"]},
                "rain": {"type": "noul", "instructions": "?"},
            },
        },
    ).json
    assert set(found["answers"]) == {"pear", "which", "how"}  # what cannot be answered is missing
    assert found["answers"]["which"]["choice"] == "pear"
    assert found["answers"]["how"]["legend"] == {"0": "apple", "1": "pear"}
    assert 0.5 < found["answers"]["pear"]["noul"] < 1


def test_infer_answers_row_by_row(gateway):
    body = {
        "id": "7",
        "inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["pear", "apple"]}],
    }
    found = post(gateway, "/v2/models/fruit/infer", body).json
    outputs = {one["name"]: one for one in found["outputs"]}
    assert found["id"] == "7"
    assert outputs["label"]["data"] == ["pear", "apple"]
    assert outputs["probabilities"]["shape"] == [2, 3]
    assert post(gateway, "/v2/models/other/infer", body).status == 404
    assert request(gateway.port, "GET", "/v2/models/fruit").json["inputs"][0]["datatype"] == "BYTES"
    assert request(gateway.port, "GET", "/v2/models/fruit/ready").status == 200


def test_feedback_finds_its_record_however_late(gateway):
    from gateways import feedback_in

    request_id = ask(gateway, "pear").headers["x-request-id"]
    said = {"request_id": request_id, "score": 0, "label": "apple", "comment": "mail me at a.b@example.org"}
    assert post(gateway, "/v1/feedback", said).status == 202
    (found,) = [one for one in feedback_in(gateway) if one.request_id == request_id]
    assert (found.score, found.label, found.comment) == (0.0, "apple", "mail me at [EMAIL_1]")
    assert [r.output for r in records_in(gateway) if r.example_id == request_id] == ["pear"]
    assert post(gateway, "/v1/feedback", {"request_id": "x", "score": 2}).status == 400
    assert post(gateway, "/v1/feedback", {"request_id": "x"}).status == 400


def test_a_label_is_said_as_the_incumbent_would(tmp_path):
    make_release(tmp_path)
    said = InputConfig(
        template="Sort: {input}\nLabel:", answer='{"label": "{label}"}', words={"pear": 'a "pear"'}
    )
    with running(config_of(tmp_path, release=str(tmp_path / "7"), input=said)) as gateway:
        parsed = client(gateway).chat.completions.create(
            model="fruit",
            messages=[{"role": "user", "content": "Sort: one pear\nLabel:"}],
            response_format={"type": "json_object"},
        )
        assert parsed.choices[0].message.content == '{"label": "a \\"pear\\""}'
        found = ask(gateway, "something else altogether")
        assert (found.status, found.json["error"]["code"]) == (400, "unsupported")
        assert "does not fit the task's template" in found.json["error"]["message"]
        assert records_in(gateway)[0].input == "one pear"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x"}], "n": 0}, "n"),
        ({"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": True}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "x"}], "stop": [1]}, "stop"),
        ({"messages": [{"role": "user", "content": "x"}], "stream": "yes"}, "stream"),
        ({"messages": [{"role": "user", "content": "x"}], "model": 3}, "model"),
    ],
)
def test_a_faulty_field_is_named(gateway, body, param):
    found = post(gateway, "/v1/chat/completions", body)
    assert (found.status, found.json["error"]["param"]) == (400, param)
    assert found.headers["x-should-retry"] == "false"


def test_a_label_calls_no_tools_and_is_no_json(gateway):
    found = ask(gateway, "pear", tool_choice="required", tools=[])
    assert (found.status, found.json["error"]["param"]) == (400, "tool_choice")
    found = ask(gateway, "pear", response_format={"type": "json_object"})
    assert (found.status, found.json["error"]["param"]) == (400, "response_format")
    with pytest.raises(openai.BadRequestError, match="calls no tools"):
        client(gateway).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], tool_choice="required", tools=[]
        )


def test_unknown_paths_and_methods(gateway):
    assert request(gateway.port, "GET", "/nowhere").json["error"]["code"] == "not_found"
    assert request(gateway.port, "GET", "/v1/chat/completions").status == 405
    assert request(gateway.port, "POST", "/health/live", {}).status == 405
    assert request(gateway.port, "GET", "/v2").json["name"] == "jettison"
    assert post(gateway, "/v1/responses", {"input": "x"}).status == 404
    assert post(gateway, "/v1/embeddings", {"input": "x"}).status == 400  # a classifier embeds nothing


def test_embeddings_come_as_base64_or_floats_and_take_token_ids(tmp_path):
    from embedding_folder import make_static_embedder

    folder = make_static_embedder(tmp_path / "embedder")
    config = config_of(tmp_path, embedders={"mini": str(folder)})
    with running(config) as gateway:
        by_client = client(gateway).embeddings.create(model="mini", input=["pear", "apple"])
        floats = post(
            gateway, "/v1/embeddings", {"model": "mini", "input": "pear", "encoding_format": "float"}
        ).json["data"][0]["embedding"]
        raw = post(
            gateway, "/v1/embeddings", {"model": "mini", "input": "pear", "encoding_format": "base64"}
        ).json["data"][0]["embedding"]
        assert struct.unpack(f"<{len(floats)}f", base64.b64decode(raw)) == pytest.approx(floats)
        assert by_client.data[0].embedding == pytest.approx(floats)
        ids = post(gateway, "/v1/embeddings", {"model": "mini", "input": [1], "encoding_format": "float"})
        assert len(ids.json["data"][0]["embedding"]) == len(floats)
        for unknown in (5, 2**33, 2**63):
            found = post(gateway, "/v1/embeddings", {"model": "mini", "input": [[1], [1, unknown]]})
            assert (found.status, found.json["error"]["message"]) == (
                400,
                f"token ids must be in 0-4, got {unknown}.",
            )
        asked = {"inputs": [{"name": "t", "datatype": "BYTES", "shape": [1], "data": ["pear"]}]}
        for path in ("/v2/models/mini/infer", "/v2/models/mini/versions/1/infer"):
            answered = post(gateway, path, asked)
            assert answered.json["outputs"][0]["data"] == pytest.approx(floats)
            assert records_in(gateway)[-1].example_id == answered.headers["x-request-id"]
        assert request(gateway.port, "GET", "/v2/models/mini/versions/1").json["name"] == "mini"
        assert (
            post(gateway, "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}).status
            == 400
        )
