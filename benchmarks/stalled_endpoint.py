"""What a closed loop says of an endpoint that stalls, beside latency from the schedule.

A server on the loopback answers in some milliseconds, one at a time, but takes none for a third of a
second once in every run. Locust with one user and no pause, our own `single-stream` (closed loops) and
our open loop at 100 requests a second measure it in turn; each run meets one stall. The p99 of a closed
loop is that of the answers between stalls: while the server stands, it asks nothing.
Run: `make bench NAME=stalled_endpoint` (a minute; Locust is installed into a cache of its own).
"""

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from beside import figure
from jettison.cost.http_target import http_target
from jettison.cost.play_http import HttpPlayer
from load_generator import ANSWER, BODY
from peer_locust import run_locust

ANSWER_S, STALL_FROM_S, STALL_S, RUN_S, RATE = 0.004, 1.0, 0.32, 6.0, 100


class StallingServer:
    """Answers one request at a time; stands still once in each run, counted from its first request."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._first_s, self._last_s = 0.0, -1e9

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                async with self._turn:
                    await asyncio.sleep(self._wait_s(time.perf_counter()))
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _wait_s(self, now: float) -> float:
        # Half a second of silence ends a run.
        if now - self._last_s > 0.5:
            self._first_s = now
        self._last_s = now
        into = now - self._first_s - STALL_FROM_S
        return STALL_S - into if 0 <= into < STALL_S else ANSWER_S


async def serve() -> None:
    server = await asyncio.start_server(StallingServer().connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def ours(url: str, *, is_open: bool) -> float:
    """99th percentile, seconds: from the schedule, or of a closed loop."""
    client = HttpPlayer(http_target(url), ["one"])
    n = int(RUN_S * RATE)
    if is_open:
        calls = client.play([0] * n, list(np.arange(n) / RATE))
        times = calls.latency_s
    else:
        n = int((RUN_S - STALL_S) / (ANSWER_S + 0.001))
        calls = client.play([0] * n, [0.0] * n, concurrency=1)
        times = calls.service_s
    client.close()
    assert calls.is_ok.all()
    time.sleep(1.0)
    return float(np.quantile(times, 0.99, method="inverted_cdf"))


def locust(url: str, peers: Path) -> float:
    """99th percentile that one Locust user without a pause reports, seconds."""
    total = run_locust(url, BODY, users=1, run_s=RUN_S, peers=peers)
    time.sleep(1.0)
    return float(total["99%"]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "jettison-peers")
    given = parser.parse_args()
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/x"
    found: dict[str, list[float]] = {"schedule": [], "single_stream": [], "locust": []}
    try:
        for _ in range(given.rounds):
            found["schedule"].append(ours(url, is_open=True))
            found["single_stream"].append(ours(url, is_open=False))
            found["locust"].append(locust(url.removesuffix("/x"), given.peers))
            last = ", ".join(f"{name} {1000 * values[-1]:.1f}" for name, values in found.items())
            print(f"p99 in ms: {last}", flush=True)
    finally:
        server.kill()
        server.wait()
    for name, values in found.items():
        print(
            figure(
                f"stalled_p99_ms_{name}", 1000 * float(np.median(values)), 1000 * min(values),
                1000 * max(values), "ms, median, least and most of the rounds",
                "latency from the schedule" if name != "schedule" else "Locust, one user without a pause",
            )
        )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main()
