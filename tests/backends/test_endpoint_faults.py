"""Each fault that an endpoint can have, one by one: waited for, asked again, or said; never a wrong answer.

The table in docs/endpoints.md is these cases.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from endpoint_server import (
    Behaviour,
    Server,
    answer,
    cut_chunk,
    dripping,
    hung_up,
    no_json,
    replies,
    status,
    truncated,
)
from jettison.backends.answer_cache import AnswerCache
from jettison.backends.ask import ask
from jettison.backends.endpoint import endpoint_candidate
from jettison.backends.endpoint_pace import SystemClock
from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.errors import CannotWrite, Unanswered, WrongEndpoint
from jettison.evaluate.run import evaluate
from jettison.record import Record
from jettison.task import Example

N = 12
PRICE = (100 * 1.0 + 2 * 10.0) / 1e6
"""Of one answer of the server: 100 tokens at 1 dollar a million and 2 at 10."""


def silent_for_long(handler: Any, body: dict[str, Any], number: int) -> None:
    time.sleep(2.0)
    handler.close_connection = True


PASSING: dict[str, Behaviour] = {
    "429 with retry-after": status(429, retry_after="1"),
    "429 without": status(429),
    "408": status(408),
    "500": status(500),
    "502": status(502),
    "503": status(503),
    "504": status(504),
    "529": status(529),
    "time-out before the first byte": silent_for_long,
    "time-out while it drips": dripping,
    "truncated answer": truncated,
    "truncated chunk": cut_chunk,
    "invalid JSON": no_json,
    "JSON without an answer": replies({"choices": []}),
    "connection closed": hung_up,
}
FINAL = {
    "wrong model name": (404, r"must have the model 'small', got HTTP 404.* It has \['small', 'large'\]"),
    "wrong key": (401, "must accept the key"),
    "a key that may not": (403, "must accept the key"),
    "no credit": (402, "must have credit"),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("JETTISON_ANSWERS", str(tmp_path / "answers"))
    # Waits between tries are shortened; how long they should be is asserted in test_transport.py.
    monkeypatch.setattr(SystemClock, "wait", lambda self, s: time.sleep(s / 100))
    made = Server()
    yield made
    made.close()


class Paid:
    """The healthy part of a server: counts the answers that were sent whole, by their question."""

    def __init__(self, faulty: Callable[[int], Behaviour | None]) -> None:
        self.of: list[str] = []
        self._faulty = faulty
        self._lock = threading.Lock()

    def __call__(self, handler: Any, body: dict[str, Any], number: int) -> None:
        fault = self._faulty(number)
        if fault is None:
            with self._lock:
                self.of.append(json.dumps(body, sort_keys=True))
            answer(handler, body, number)
        else:
            fault(handler, body, number)


def endpoint(folder: Path, server: Server, fault: str = "", **given: Any) -> Candidate:
    # Short only where time-outs are what is looked at: a busy machine must not make others.
    shorter = {"first_byte_s": 0.5, "total_s": 1.0} if fault.startswith("time-out") else {}
    path = folder / "endpoint"
    path.mkdir()
    return endpoint_candidate(
        path,
        url=server.url,
        model="small",
        labels=("music", "alarm"),
        settings={"kind": "classify", "prompt": {"template": "One of {labels}.\nText: {input}"}},
        usd_per_million_input=1.0,
        usd_per_million_output=10.0,
        **{"concurrency": 3, "first_byte_s": 20.0, **shorter, **given},
    )


def asked(made: Candidate, folder: Path) -> list[Record]:
    examples = [Example(id=str(i), input=f"song {i}", expected="music") for i in range(N)]
    return evaluate(made, examples, split="dev", folder=folder)


def check_all_right(records: list[Record]) -> None:
    assert [record.scores["label"] for record in records] == [1.0] * N
    assert sum(record.cost.price_usd or 0.0 for record in records) == pytest.approx(N * PRICE)


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_comes_and_goes_costs_nothing_but_time(
    fault: str, server: Server, tmp_path: Path
) -> None:
    server.behave = paid = Paid(lambda number: PASSING[fault] if number % 4 == 2 else None)
    check_all_right(asked(endpoint(tmp_path, server, fault), tmp_path / "records"))
    assert len(paid.of) == len(set(paid.of)) == N
    assert len(server.asked) > N  # the fault did come


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_stays_ends_with_what_is_missing_and_only_that_is_asked_again(
    fault: str, server: Server, tmp_path: Path
) -> None:
    server.behave = paid = Paid(lambda number: None if number <= 5 else PASSING[fault])
    made = endpoint(tmp_path, server, fault, max_retries=1, wait_s=0.5)
    with pytest.raises(Unanswered) as caught:
        asked(made, tmp_path / "records")
    told = re.search(r"small left (\d+) of 12 inputs unanswered \(the first at \d+\)", str(caught.value))
    assert told, caught.value
    assert int(told[1]) == N - 5 == N - len(paid.of)
    assert "None counts as wrong." in str(caught.value)
    server.behave = healed = Paid(lambda number: None)
    check_all_right(asked(made, tmp_path / "records"))
    assert len(healed.of) == N - 5
    assert not set(healed.of) & set(paid.of)


@pytest.mark.parametrize("fault", FINAL)
def test_what_no_waiting_mends_is_said_at_once_and_loses_no_answer(
    fault: str, server: Server, tmp_path: Path
) -> None:
    code, rule = FINAL[fault]
    server.behave = paid = Paid(lambda number: None if number <= 5 else status(code))
    made = endpoint(tmp_path, server)
    with pytest.raises(WrongEndpoint, match=rule):
        asked(made, tmp_path / "records")
    assert len(server.asked) <= 5 + 3  # at most one more of each that was under way
    server.behave = healed = Paid(lambda number: None)
    check_all_right(asked(made, tmp_path / "records"))
    assert len(healed.of) == N - len(paid.of)
    assert not set(healed.of) & set(paid.of)


def test_a_server_that_dies_half_way_is_waited_for_and_goes_on(server: Server, tmp_path: Path) -> None:
    later: list[tuple[Server, Paid]] = []
    died = threading.Event()

    def dies(handler: Any, body: dict[str, Any], number: int) -> None:
        if number == 6:
            died.set()
        (first if number <= 5 else hung_up)(handler, body, number)

    def comes_back() -> None:
        died.wait(10)
        server.close()
        time.sleep(0.2)
        again = Server(server.port)
        again.behave = paid = Paid(lambda number: None)
        later.append((again, paid))

    first = Paid(lambda number: None)
    server.behave = dies
    helper = threading.Thread(target=comes_back)
    helper.start()
    records = asked(endpoint(tmp_path, server, wait_s=200.0, max_retries=20), tmp_path / "records")
    helper.join()
    again, second = later[0]
    again.close()
    check_all_right(records)
    assert sorted(first.of + second.of) == sorted(set(first.of + second.of))
    assert len(first.of) + len(second.of) == N
    assert second.of


def test_an_answer_on_its_way_when_the_run_ends_is_kept(server: Server, tmp_path: Path) -> None:
    refused = threading.Event()
    slow: list[dict[str, Any]] = []

    def behave(handler: Any, body: dict[str, Any], number: int) -> None:
        if number > 1:
            refused.set()
            status(404)(handler, body, number)
            return
        slow.append(body)
        refused.wait(10)
        time.sleep(0.3)
        answer(handler, body, number)

    server.behave = behave
    made = endpoint(tmp_path, server)
    with pytest.raises(WrongEndpoint, match="must have the model"):
        asked(made, tmp_path / "records")
    n_before = len(server.asked)
    server.behave = answer
    check_all_right(asked(made, tmp_path / "records"))
    assert slow[0] not in server.asked[n_before:]


def fill(cache: AnswerCache) -> None:
    for i in range(10_000):
        cache.put(f"filler {i}", {})


def test_a_full_disk_ends_the_asking_and_is_no_fault_of_the_model(server: Server, tmp_path: Path) -> None:
    with closing(open_model(endpoint(tmp_path, server, concurrency=1))) as model:
        cache = model.engine._cache
        cache._connection.execute("PRAGMA max_page_count = 8")
        with pytest.raises(CannotWrite):
            fill(cache)
        with pytest.raises(CannotWrite, match="an answer could not be kept: database or disk is full"):
            ask(model, ["song 1", "song 2", "song 3"])
    assert len(server.asked) == 1
