"""How many requests a second the load generator sends on one core, and how late, beside two peers.

The target is a server that answers at once, on the other core. Open loop, Poisson arrivals drawn
before: ours and a client on aiohttp (a task a request, as one writes it) play the same schedules, in
turn. A rate is sustained when requests leave at 95 % of it or more and every one is answered. Locust
(a closed loop: 64 users without a pause) says what it reaches; it cannot be given a schedule.
Run: `make bench NAME=load_generator` (three minutes; Locust is installed into a cache of its own).
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from beside import figure
from jettison.cost.http_target import http_target
from jettison.cost.play_http import HttpPlayer
from jettison.cost.schedule import poisson_schedule
from jettison.cost.validity import LEAST_DELIVERED
from peer_locust import run_locust

RATES = (500, 1000, 2000, 4000, 8000, 12000)
BODY = b'{"input": "one"}'
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"label": "a"}'


class Played(NamedTuple):
    """What one client made of one schedule."""

    sent_per_s: float
    late_s: np.ndarray
    ok_share: float
    cpu_s: float

    @property
    def line(self) -> str:
        p50, p99, most = 1000 * np.quantile(self.late_s, [0.5, 0.99, 1.0])
        each = 1e6 * self.cpu_s / len(self.late_s)
        return (
            f"{self.sent_per_s:6.0f} sent/s, {self.ok_share:.0%} answered, late by {p50:.2f} / {p99:.2f} / "
            f"{most:.1f} ms (median / p99 / most), {each:.0f} µs CPU each"
        )

    def sustains(self, rate: float) -> bool:
        return self.sent_per_s >= LEAST_DELIVERED * rate and self.ok_share == 1.0


class NullServer(asyncio.Protocol):
    """Answers each request with the same bytes, at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._rest = transport, b""

    def data_received(self, data: bytes) -> None:
        self._rest += data
        n = 0
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._rest) < end + 4 + length:
                break
            self._rest = self._rest[end + 4 + length :]
            n += 1
        if n:
            self._transport.write(ANSWER * n)  # type: ignore[attr-defined]


async def serve() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    server = await asyncio.get_running_loop().create_server(NullServer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def play_ours(url: str, due: list[float]) -> Played:
    client = HttpPlayer(http_target(url), ["one"])
    client.play([0] * 64, [0.0] * 64)
    calls = client.play([0] * len(due), due)
    client.close()
    sent = due[-1] * len(due) / max(calls.sent_s) / due[-1]
    return Played(sent, np.asarray(calls.late_s), float(calls.is_ok.mean()), calls.client_cpu_s)


def play_aiohttp(url: str, due: list[float]) -> Played:
    import aiohttp

    late = np.zeros(len(due))
    n_ok = 0

    async def ask(session: aiohttp.ClientSession, index: int, started: float) -> None:
        nonlocal n_ok
        late[index] = time.perf_counter() - started - due[index]
        async with session.post(url, data=BODY) as answer:
            await answer.read()
            n_ok += answer.status == 200

    async def play() -> float:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            cpu_from, started = time.process_time(), time.perf_counter()
            tasks = []
            for index, moment in enumerate(due):
                left = started + moment - time.perf_counter()
                if left > 0:
                    await asyncio.sleep(left)
                tasks.append(asyncio.create_task(ask(session, index, started)))
            await asyncio.gather(*tasks)
            return time.process_time() - cpu_from

    cpu_s = asyncio.run(play())
    last = due[-1] + late[-1]
    return Played(len(due) / last, late, n_ok / len(due), cpu_s)


def locust_per_s(url: str, run_s: float, peers: Path) -> float:
    """Requests a second that one Locust process gets through, 64 users without a pause."""
    return float(run_locust(url, BODY, users=64, run_s=run_s, peers=peers)["Requests/s"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "jettison-peers")
    parser.add_argument("--no-locust", action="store_true")
    arguments = parser.parse_args()
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    clients: dict[str, Callable[[str, list[float]], Played]] = {"ours": play_ours, "aiohttp": play_aiohttp}
    best: dict[str, list[float]] = {name: [] for name in clients}
    at_2000: list[Played] = []
    try:
        for number in range(arguments.rounds):
            gone: set[str] = set()
            most = dict.fromkeys(clients, 0.0)
            for rate in RATES:
                due = poisson_schedule(rate, arguments.seconds, rng=np.random.default_rng([number, rate]))
                for name in list(clients) if number % 2 else reversed(list(clients)):
                    if name in gone:
                        continue
                    played = clients[name](f"{url}/x", due)
                    print(f"round {number + 1}  {name:<8} {rate:>6}/s: {played.line}", flush=True)
                    if played.sustains(rate):
                        most[name] = rate
                    else:
                        gone.add(name)
                    if name == "ours" and rate == 2000:
                        at_2000.append(played)
            for name, rate in most.items():
                best[name].append(rate)
        locust = None if arguments.no_locust else locust_per_s(url, 10.0, arguments.peers)
    finally:
        server.kill()
        server.wait()
    late_p99_ms = [float(1000 * np.quantile(played.late_s, 0.99)) for played in at_2000]
    print(
        figure(
            "max_rate_per_s",
            float(np.median(best["ours"])),
            min(best["ours"]),
            max(best["ours"]),
            "requests/s sustained on one core, the steps tried: " + ", ".join(map(str, RATES)),
            f"a client on aiohttp: {np.median(best['aiohttp']):g} on the same schedules",
            late_p99_ms_at_2000=[round(ms, 3) for ms in late_p99_ms],
            late_p50_ms_at_2000=[round(float(1000 * np.median(p.late_s)), 3) for p in at_2000],
            aiohttp=best["aiohttp"],
            locust_closed_loop=locust,
        )
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        main()
