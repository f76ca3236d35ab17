"""What a live answer took: CPU-seconds of its engine, shared among its batch, and the estimate on top."""

import asyncio
import socket
import threading
from pathlib import Path

import msgspec
import pytest

from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.serve import spending as module
from jettison.serve.calls import Reply
from jettison.serve.engine import InProcess
from jettison.serve.engine_child import Asked, Told, WireAnswer, receive, send, serve
from jettison.serve.spending import Spending


def fake(folder: Path, latency_s: float) -> Candidate:
    folder.mkdir()
    return write_candidate(
        folder, name="m", backend="fake", labels=("a", "b"), settings={"latency_s": latency_s}
    )


def test_a_call_is_shared_equally_among_its_answers() -> None:
    clock = iter([1.0, 1.3])
    spent = Spending(cpu_s=lambda: next(clock))
    answers = [WireAnswer("a") for _ in range(3)]
    spent.end(spent.begin(), answers)
    assert [answer.cpu_s for answer in answers] == pytest.approx([0.1] * 3)
    assert all((answer.energy_tier or "").startswith("E") for answer in answers)
    # A tenth of a CPU-second at some watts of one virtual CPU.
    assert 0.01 < (answers[0].energy_j or 0.0) < 2.0


def test_where_an_accelerator_works_there_are_no_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_on_gpu", lambda: True)
    spent = Spending()
    (answer,) = [WireAnswer("a")]
    spent.end(spent.begin(), [answer])
    assert answer.cpu_s is not None
    assert (answer.energy_j, answer.energy_tier) == (None, None)


def test_an_engine_in_a_process_of_its_own_tells_what_each_answer_took(tmp_path: Path) -> None:
    """The fake burns 5 ms of CPU a text."""
    ours, theirs = socket.socketpair()
    model = open_model(fake(tmp_path / "m", 0.005))
    child = threading.Thread(target=serve, args=(theirs, model), kwargs={"max_batch": 4, "max_wait_s": 0.0})
    child.start()
    for number in range(2):  # the first pays for imports, too
        send(ours, Asked(number, "predict", ["one", "two"]))
        told = msgspec.msgpack.decode(receive(ours) or b"", type=Told)
    ours.close()
    child.join()
    theirs.close()
    for answer in told.answers:
        assert answer.cpu_s is not None
        assert 0.005 <= answer.cpu_s < 0.015
        assert answer.energy_j is not None


def test_one_in_the_gateway_itself_does_too_and_a_record_holds_it(tmp_path: Path) -> None:
    async def ask() -> WireAnswer:
        engine = InProcess(fake(tmp_path / "m", 0.005))
        await engine.start()
        (answer,) = await engine.predict(["one"])
        await engine.close()
        return answer

    answer = asyncio.run(ask())
    assert answer.cpu_s is not None
    assert answer.cpu_s >= 0.005
    reply = Reply(
        candidate="c",
        model="m",
        cpu_s=answer.cpu_s,
        energy_j=answer.energy_j,
        energy_tier=answer.energy_tier,
    )
    cost = reply.cost()
    assert (cost.cpu_s, cost.energy_j, cost.energy_tier) == (
        answer.cpu_s, answer.energy_j, answer.energy_tier,
    )  # fmt: skip
