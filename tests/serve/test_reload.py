"""A gateway takes up a changed release or file while it answers."""

import asyncio
import os
import threading
from contextlib import contextmanager

from gateways import Faulty, ask, delta, reloads, running, wait_until
from jettison.files import write_atomic
from jettison.serve.config import read_serve_config
from releasing import make_candidate, make_decision, make_release


@contextmanager
def under_load(gateway, **given):
    """Requests without a pause from four threads; yields the list of what went wrong."""
    failed, n, stop = [], [0], threading.Event()

    def load():
        while not stop.is_set():
            try:
                found = ask(gateway, "pear", **given)
                n[0] += 1
                if found.status != 200:
                    failed.append(found.raw)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure
                failed.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert n[0] > 20


def test_reloads_under_load_fail_no_request_and_a_faulty_one_changes_nothing(tmp_path, release):
    second = tmp_path / "second"
    make_release(second, candidate=(c := make_candidate(second / "c", seed=1)), decision=make_decision(c))
    link = tmp_path / "current"
    link.symlink_to(release)
    path = tmp_path / "serve.toml"
    head = "release = 'current'\nstate = 'state'\n"
    path.write_text(head)
    read = lambda: read_serve_config(path)
    with running(read(), read_again=read, watched=(path,)) as gateway, under_load(gateway) as failed:
        first = gateway.gateway.release_digest
        new = tmp_path / "new"
        new.symlink_to(second / "7")
        os.replace(new, link)  # as a deployment swaps releases
        wait_until(lambda: gateway.gateway.release_digest != first, 10)
        write_atomic(path, head + "[limits]\nbody_bytes = 'x'\n")
        wait_until(lambda: reloads(gateway, "refused") == 1, 10)
        write_atomic(path, head + "model = 'renamed'\n")
        wait_until(lambda: gateway.gateway.model_name == "renamed", 10)
        write_atomic(path, head + "port = 1\n")
        wait_until(lambda: reloads(gateway, "refused") == 2, 10)
        assert gateway.gateway.model_name == "renamed"
        assert failed == []


def test_a_stream_under_way_ends_under_the_plan_that_it_began_with(tmp_path):
    go_on = threading.Event()
    with Faulty() as upstream:

        async def slow(exchange):
            await exchange.begin_stream()
            await exchange.event(delta("a "))
            while not go_on.is_set():
                await exchange.chunk(b": wait\n\n")
                await asyncio.sleep(0.05)
            await exchange.event(delta("b"))
            await exchange.event("[DONE]")
            await exchange.end_stream()

        upstream.behave = slow
        path = tmp_path / "serve.toml"
        text = f"state = 'state'\n[upstreams.big]\nurl = '{upstream.url}'\ntotal_s = 20.0\n"
        path.write_text(text)
        read = lambda: read_serve_config(path)
        with running(read(), read_again=read, watched=(path,)) as gateway:
            found = []
            thread = threading.Thread(target=lambda: found.append(ask(gateway, "x", stream=True)))
            thread.start()
            wait_until(lambda: upstream.n == 1)
            old = gateway.gateway.plan
            path.write_text("model = 'renamed'\n" + text)
            wait_until(lambda: gateway.gateway.plan is not old, 10)
            go_on.set()
            thread.join(10)
            assert [e["choices"][0]["delta"]["content"] for e in found[0].events[:-1]] == ["a ", "b"]
            assert found[0].events[-1] == "[DONE]"


def test_what_is_written_while_a_file_is_taken_up_is_read_the_next_time(tmp_path, release):
    path = tmp_path / "serve.toml"
    text = f"release = '{release}'\nstate = 'state'\nmodel = '{{}}'\n"
    write_atomic(path, text.format("first"))
    later = ["third"]

    def read():
        config = read_serve_config(path)
        if config.model == "second" and later:
            write_atomic(path, text.format(later.pop()))
        return config

    with running(read(), read_again=read, watched=(path,)) as gateway:
        write_atomic(path, text.format("second"))
        wait_until(lambda: gateway.gateway.model_name == "third", 10)
