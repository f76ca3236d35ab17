"""Answers out of a log stand for an endpoint's: none is asked again, each costs what the log says."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from endpoint_server import Server, said
from jettison.backends.endpoint import endpoint_candidate
from jettison.backends.endpoint_logged import unpriced
from jettison.backends.endpoint_settings import Endpoint
from jettison.backends.open import open_model
from jettison.candidate import Candidate, verify_candidate
from jettison.errors import InvalidInput
from jettison.task.log_files import Logged, input_id
from jettison.task.log_use import Use


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("JETTISON_ANSWERS", str(tmp_path / "answers"))
    made = Server()
    yield made
    made.close()


def candidate(folder: Path, server: Server, **given: Any) -> Candidate:
    path = folder / f"endpoint-{len(list(folder.iterdir()))}"
    path.mkdir()
    asked = {"kind": "classify", "prompt": {"template": "One of {labels}.\nText: {input}"}}
    fields = {"model": "small", **given}
    return endpoint_candidate(path, url=server.url, labels=("music", "alarm"), settings=asked, **fields)


def logged(folder: Path, **answers: str) -> str:
    lines = [{"id": input_id(text), "output": said, "outputs": {said: 2}} for text, said in answers.items()]
    path = folder / "incumbent_outputs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_logged_answers_are_not_asked_again_and_their_cost_is_unknown(server, tmp_path):
    asking = candidate(tmp_path, server, logged=logged(tmp_path, one="Alarm.", two="dunno"))
    with closing(open_model(asking)) as model:
        told, asked, none = model.predict(["one", "a song", "two"])
    assert [output.label for output in (told, asked, none)] == ["alarm", "music", ""]
    assert (told.cost.latency_s, told.cost.price_usd) == (None, None)
    assert asked.cost.latency_s is not None
    assert [said(body).rsplit("Text:", 1)[-1] for body in server.asked] == [" a song"]


def test_logged_answers_cost_their_tokens_at_the_endpoints_prices(server, tmp_path):
    path = tmp_path / "incumbent_outputs.jsonl"
    took = {"prompt_tokens": 1000, "completion_tokens": 10, "cached_tokens": 400, "latency_s": 0.5}
    lines = [
        {"id": input_id("one"), "output": "alarm", "model": "vendor/Small-2026-01-31", **took},
        {"id": input_id("two"), "output": "alarm", "model": "large", **took},
        {"id": input_id("three"), "output": "alarm", "latency_s": 0.5},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    prices = {"usd_per_million_input": 1.0, "usd_per_million_output": 4.0, "usd_per_million_cached": 0.5}
    asking = candidate(tmp_path, server, model="small", logged=str(path), **prices)
    with closing(open_model(asking)) as model:
        costs = [output.cost for output in model.predict(["one", "two", "three"])]
    # 600 tokens at one dollar a million, 400 cached at a half, 10 at four; another model's have no price.
    assert [cost.price_usd for cost in costs] == [pytest.approx(840e-6), None, None]
    assert [cost.prompt_tokens for cost in costs] == [1000, 1000, None]
    assert {cost.latency_s for cost in costs} == {0.5}
    assert not server.asked


@pytest.mark.parametrize(
    ("uses", "prices", "why"),
    [
        ([{"prompt_tokens": 9, "completion_tokens": 1}], True, "^$"),
        ([{"prompt_tokens": 9}], True, r"the log counts no tokens \(`usage`\)"),
        (
            [{"prompt_tokens": 9, "completion_tokens": 1}],
            False,
            "give usd_per_million_input and .* of small",
        ),
        (
            [{"prompt_tokens": 9, "completion_tokens": 1, "model": "big"}],
            True,
            "those of big, and the prices",
        ),
    ],
)
def test_why_logged_answers_have_no_price_is_said(uses, prices, why):
    given = {"usd_per_million_input": 1.0, "usd_per_million_output": 1.0} if prices else {}
    logged_uses = {str(i): Use(**use) for i, use in enumerate(uses)}
    found = unpriced(Logged(answers={}, uses=logged_uses), Endpoint(url="http://x", model="small", **given))
    assert re.search(why, found)


def test_a_log_that_is_written_on_changes_no_candidate(server, tmp_path):
    path = logged(tmp_path, one="alarm")
    asking = candidate(tmp_path, server, logged=path)
    Path(path).write_text("")
    verify_candidate(Candidate.at(asking.path))


def test_another_prompt_has_not_been_answered_yet(server, tmp_path):
    asking = candidate(tmp_path, server, logged=logged(tmp_path, one="alarm"))
    otherwise = {**asking.settings, "prompt": {"template": "Say: {input}"}}
    with closing(open_model(msgspec.structs.replace(asking, settings=otherwise))) as model:
        model.predict(["one"])
    assert len(server.asked) == 1


def test_answers_to_another_prompt_and_broken_logs_are_refused(server, tmp_path):
    path = tmp_path / "incumbent_outputs.jsonl"
    path.write_text(json.dumps({"id": "x", "output": "alarm", "prompt": "another"}) + "\n")
    with pytest.raises(InvalidInput, match="must be answers to the task's own prompt"):
        candidate(tmp_path, server, logged=str(path))
    path.write_text('{"id": 3}\n')
    with pytest.raises(InvalidInput, match=r"jsonl:1 must be a line with id and output"):
        candidate(tmp_path, server, logged=str(path))
    with pytest.raises(InvalidInput, match=r"must be a file, got .*nowhere"):
        candidate(tmp_path, server, logged=str(tmp_path / "nowhere"))
