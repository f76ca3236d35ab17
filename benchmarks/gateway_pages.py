"""What an open live page costs the requests: the gateway's own CPU time a request, with one and without.

A gateway proxies the same chat to an upstream on loopback, with log and texts kept. In half of the blocks,
in mixed order, somebody looks at all pages, one a second. CPU time is that of the gateway's own process;
what makes the pages is another one, whose time is told apart.

    python benchmarks/gateway_pages.py [--blocks 12] [--n 4000]
"""

import argparse
import asyncio
import http.client
import os
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from gateway import interval
from gateway_parts import TICK_HZ, ask_many, cpu_s, figure, part, started
from jettison.serve.access import new_key

PAGES = ("/ui", "/ui/experiments", "/ui/drift", "/ui/failures", "/ui/releases", "/ui/alarms")
EVERY_S = 1.0
"""Four times as often as the pages' own script looks."""


class Viewer(threading.Thread):
    """Somebody in front of the pages while `is_open`."""

    def __init__(self, port: int, key: str) -> None:
        super().__init__(daemon=True)
        self._port, self._headers = port, {"authorization": f"Bearer {key}"}
        self.is_open, self.leaves, self.n = threading.Event(), threading.Event(), 0

    def run(self) -> None:
        while not self.leaves.wait(EVERY_S):
            self.is_open.wait()
            if self.leaves.is_set():
                return
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)
            connection.request("GET", PAGES[self.n % len(PAGES)], headers=self._headers)
            reply = connection.getresponse()
            assert reply.status == 200, reply.status
            reply.read()
            connection.close()
            self.n += 1

    def leave(self) -> None:
        """Before the gateway does."""
        self.leaves.set()
        self.is_open.set()
        self.join()


def own_cpu_s(pid: int) -> float:
    """User and system time of one process alone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK_HZ


def block(gateway: Any, n: int) -> float:
    """Seconds of the gateway's CPU a request."""
    before = own_cpu_s(gateway.pid)
    found = asyncio.run(ask_many(gateway.port, n, concurrency=4, path="/v1/chat/completions", headers={}))
    assert all(status == 200 for status, _ in found)
    return (own_cpu_s(gateway.pid) - before) / n


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--n", type=int, default=4000)
    given = parser.parse_args()
    key, digest = new_key()
    with tempfile.TemporaryDirectory() as place, part("upstream", "50", "0.02", "0", "0") as upstream:
        config = Path(place) / "serve.toml"
        config.write_text(
            f'port = 0\nstate = "state"\n[log]\ntext = "keep"\n[ui]\nis_on = true\nsha256 = "{digest}"\n'
            f'[upstreams.a]\nurl = "http://127.0.0.1:{upstream.port}/v1"\nmodel = "mock"\n'
        )
        command = [sys.executable, "-m", "jettison.cli", "serve", "--config", str(config)]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with started(command, until='"event":"listening"', env=environment) as gateway:
            told(gateway, Viewer(gateway.port, key), given.blocks, given.n)


def told(gateway: Any, viewer: Viewer, blocks: int, n: int) -> None:
    """Run the blocks and print the figures."""
    viewer.start()
    viewer.is_open.set()
    block(gateway, n)  # warm, the process of the pages too
    spent: dict[bool, list[float]] = {False: [], True: []}
    began, seen = cpu_s(gateway.pid) - own_cpu_s(gateway.pid), viewer.n
    for number in range(blocks):
        for is_open in (False, True) if number % 2 else (True, False):
            (viewer.is_open.set if is_open else viewer.is_open.clear)()
            spent[is_open].append(block(gateway, n))
    viewer.leave()
    apart = cpu_s(gateway.pid) - own_cpu_s(gateway.pid) - began
    ratios = [with_page / without for with_page, without in zip(spent[True], spent[False], strict=True)]
    print(f"{viewer.n - seen} pages; their process and the log's rolls took {apart:.1f} s of CPU in all")
    print(f"closed {1e3 * statistics.median(spent[False]):.3f} ms a request")
    figure("cpu_with_page_ratio", *interval(ratios), "ratio", "the same gateway with no page open")


if __name__ == "__main__":
    main()
