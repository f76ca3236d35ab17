"""Models in child processes: batched, bounded, and their deaths are errors of the requests they had."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from gateways import (
    Faulty,
    ask,
    client,
    config_of,
    post,
    records_in,
    request,
    running,
    upstream_of,
    wait_until,
)
from jettison.candidate import write_candidate
from jettison.errors import BrokenArtifact
from jettison.route import Cascade, Single
from jettison.serve.config import EngineConfig
from releasing import LABELS

CHILD = EngineConfig(in_process=(), max_batch=8, max_wait_s=0.005, queue=64, hang_s=20, start_s=30)


def engine_of(gateway):
    (engine,) = gateway.gateway.plan.engines.values()
    return engine


def test_a_killed_engine_is_an_error_then_not_ready_then_back(tmp_path, release):
    with running(config_of(tmp_path, release=release, engine=CHILD)) as gateway:
        assert ask(gateway, "pear").json["choices"][0]["message"]["content"] == "pear"
        pid = engine_of(gateway).pid
        assert pid != os.getpid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not engine_of(gateway).is_ready, 3)
        found = ask(gateway, "pear")
        assert (found.status, found.json["error"]["code"]) == (503, "engine_down")
        assert "retry-after" in found.headers
        gateway.gateway._probe = None
        assert request(gateway.port, "GET", "/health/ready").status == 503
        wait_until(lambda: ask(gateway, "pear").status == 200, 30)
        assert engine_of(gateway).pid != pid
        gateway.gateway._probe = None
        assert request(gateway.port, "GET", "/health/ready").status == 200
        page = request(gateway.port, "GET", "/metrics").raw.decode()
        assert 'event="died"' in page


def test_a_request_in_flight_when_its_engine_dies_is_told_so(tmp_path, release):
    engine = EngineConfig(in_process=(), hang_s=20)
    with (
        running(config_of(tmp_path, release=release, engine=engine)) as gateway,
        ThreadPoolExecutor(1) as pool,
    ):
        os.kill(engine_of(gateway).pid, signal.SIGSTOP)
        waiting = pool.submit(ask, gateway, "pear")
        wait_until(lambda: engine_of(gateway)._asked)
        os.kill(engine_of(gateway).pid, signal.SIGKILL)
        found = waiting.result(10)
        assert (found.status, found.json["error"]["code"]) == (503, "engine_died")
        assert records_in(gateway)[-1].unanswered


def test_with_a_fallback_nobody_notices(tmp_path, release):
    with Faulty() as upstream:
        route = Cascade(
            lean=Single(candidate="release"), fallback=Single(candidate="upstream:big"), threshold=0.0
        )
        config = config_of(
            tmp_path,
            release=release,
            engine=CHILD,
            upstreams={"big": upstream_of(upstream.url)},
            route=route,
        )
        with running(config) as gateway:
            os.kill(engine_of(gateway).pid, signal.SIGKILL)
            found = [ask(gateway, f"pear {i}") for i in range(20)]
            assert {one.status for one in found} == {200}
            assert any(one.headers["x-jettison-escalated"] == "true" for one in found)


def test_an_engine_that_only_probes_ask_is_found_to_hang_and_asked_once_however_many_probe(
    tmp_path, release, monkeypatch
):
    monkeypatch.setattr("jettison.serve.gateway.PROBE_S", 0.3)
    config = config_of(tmp_path, release=release, engine=EngineConfig(in_process=(), hang_s=0.6))
    with running(config) as gateway, ThreadPoolExecutor(20) as pool:
        pid = engine_of(gateway).pid
        os.kill(pid, signal.SIGSTOP)
        asked = [pool.submit(request, gateway.port, "GET", "/health/ready") for _ in range(20)]
        found = [one.result(10) for one in asked]
        assert {one.status for one in found} == {503}
        assert set(found[0].json["engines"].values()) == {"slow"}
        assert engine_of(gateway)._last_id == 1
        wait_until(lambda: engine_of(gateway).is_ready and engine_of(gateway).pid != pid, 30)
        wait_until(lambda: ask(gateway, "pear").status == 200, 30)  # a busy machine may hang once more
        wait_until(lambda: engine_of(gateway)._n_waiting == 0)


def test_an_engine_that_hangs_is_killed_and_started_anew(tmp_path, release):
    config = config_of(tmp_path, release=release, engine=EngineConfig(in_process=(), hang_s=0.5))
    with running(config) as gateway:
        pid = engine_of(gateway).pid
        os.kill(pid, signal.SIGSTOP)
        found = ask(gateway, "pear")
        assert (found.status, found.json["error"]["code"]) == (503, "engine_died")
        wait_until(lambda: engine_of(gateway).is_ready and engine_of(gateway).pid != pid, 30)


def test_the_queue_is_bounded_and_what_waited_is_answered(tmp_path, release):
    engine = EngineConfig(in_process=(), max_batch=4, queue=8, hang_s=20)
    with (
        running(config_of(tmp_path, release=release, engine=engine)) as gateway,
        ThreadPoolExecutor(30) as pool,
    ):
        os.kill(engine_of(gateway).pid, signal.SIGSTOP)
        asked = [pool.submit(ask, gateway, f"pear {i}") for i in range(30)]
        wait_until(lambda: sum(one.done() for one in asked) == 22)
        refused = [one.result() for one in asked if one.done()]
        assert {(one.status, one.json["error"]["code"]) for one in refused} == {(503, "engine_busy")}
        assert all("retry-after" in one.headers for one in refused)
        os.kill(engine_of(gateway).pid, signal.SIGCONT)
        assert sorted(one.result(10).status for one in asked) == [200] * 8 + [503] * 22
        assert engine_of(gateway)._n_waiting == 0


def test_asks_are_batched_up_to_the_bound_and_answered_in_their_order():
    import socket

    import msgspec

    from jettison.model import Output
    from jettison.serve.engine_child import HEAD, Asked, Told, receive, serve

    class Model:
        batches: ClassVar[list[int]] = []

        def predict(self, inputs):
            self.batches.append(len(inputs))
            return [Output(label=text.upper(), confidence=1.0) for text in inputs]

    ours, theirs = socket.socketpair()
    with ours, theirs:
        for i in range(10):  # all are there before the model is
            data = msgspec.msgpack.encode(Asked(i, "predict", [f"t{i}"]))
            ours.sendall(HEAD.pack(len(data)) + data)
        thread = threading.Thread(
            target=serve, args=(theirs, Model()), kwargs={"max_batch": 4, "max_wait_s": 0.2}
        )
        thread.start()
        told = [msgspec.msgpack.decode(receive(ours), type=Told) for _ in range(10)]
        ours.shutdown(socket.SHUT_WR)
        thread.join(5)
    assert [(one.id, one.answers[0].text) for one in told] == [(i, f"T{i}") for i in range(10)]
    assert Model.batches == [4, 4, 2]


def test_a_model_that_cannot_read_its_files_fails_the_ask_and_not_the_child():
    import socket

    import msgspec

    from jettison.serve.engine_child import HEAD, Asked, Told, receive, serve

    class Model:
        def embed(self, inputs):
            if inputs == ["lost"]:
                raise OSError("its file is gone")
            return [[1.0] for _ in inputs]

    ours, theirs = socket.socketpair()
    with ours, theirs:
        for i, text in enumerate(("lost", "there")):
            data = msgspec.msgpack.encode(Asked(i, "embed", [text]))
            ours.sendall(HEAD.pack(len(data)) + data)
        thread = threading.Thread(
            target=serve, args=(theirs, Model()), kwargs={"max_batch": 1, "max_wait_s": 0.0}
        )
        thread.start()
        lost, there = (msgspec.msgpack.decode(receive(ours), type=Told) for _ in range(2))
        ours.shutdown(socket.SHUT_WR)
        thread.join(5)
    assert (lost.error, there.vectors) == ("OSError: its file is gone", [[1.0]])


def test_a_model_that_does_not_load_refuses_the_start(tmp_path):
    folder = tmp_path / "candidate"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"no model")
    (folder / "tokenizer.json").write_text("{}")
    candidate = write_candidate(folder, name="lean|er", backend="onnx", labels=LABELS)
    from jettison.serve.engine import Child
    from jettison.serve.metrics import Metrics

    child = Child("broken", "candidate", candidate.path, CHILD, Metrics())

    async def start():
        await child.start()

    import asyncio

    with pytest.raises(BrokenArtifact, match="engine 'broken' must load"):
        asyncio.run(start())


def test_no_child_outlives_its_gateway(tmp_path, release):
    with running(config_of(tmp_path, release=release, engine=CHILD)) as gateway:
        pid = engine_of(gateway).pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_generating_release_takes_whole_chats(tmp_path):
    folder = tmp_path / "lm"
    folder.mkdir()
    settings = {"kind": "generate", "prompt": {"template": "{input}"}}
    candidate = write_candidate(
        folder, name="lean|er", backend="fake_language", labels=(), settings=settings
    )
    from jettison.serve.calls import Call
    from jettison.serve.config import InputConfig
    from jettison.serve.engine import Child
    from jettison.serve.local import LocalArm
    from jettison.serve.metrics import Metrics

    async def asked():
        child = Child("lm", "candidate", candidate.path, CHILD, Metrics())
        await child.start()
        try:
            call = Call(
                operation="chat",
                path="/chat/completions",
                body={"messages": [{"role": "user", "content": "say these four words"}], "max_tokens": 2},
                request_id="r",
                key="k",
                is_sticky=False,
                started_s=0.0,
                text="say these four words",
            )
            return await LocalArm(candidate, child, InputConfig()).answer(call)
        finally:
            await child.close()

    import asyncio

    reply = asyncio.run(asked())
    assert reply.output == "four words"  # the fake engine repeats the last words that fit
    assert reply.confidence == pytest.approx(0.6065, abs=1e-3)  # exp(-0.5): the mean token's probability
    assert reply.completion_tokens == 2


def test_many_streams_of_a_child_engine_end_well(tmp_path, release):
    with running(config_of(tmp_path, release=release, engine=CHILD)) as gateway:
        errors = []

        def one(i):
            try:
                chunks = client(gateway).chat.completions.create(
                    model="m", messages=[{"role": "user", "content": f"pear {i}"}], stream=True
                )
                assert "".join(c.choices[0].delta.content or "" for c in chunks) == "pear"
            except Exception as error:  # noqa: BLE001 - shown below
                errors.append(error)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        body = {
            "inputs": [
                {"name": "t", "datatype": "BYTES", "shape": [20], "data": [f"pear {i}" for i in range(20)]}
            ]
        }
        assert post(gateway, "/v2/models/fruit/infer", body).json["outputs"][0]["data"] == ["pear"] * 20
