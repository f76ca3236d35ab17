"""What the gateway costs a request, beside LiteLLM and the least that a proxy in Python can be.

Each proxies the same chat to the same upstream on loopback. Ours has a key check with all limits, the
traffic log, metrics and a Split route on; LiteLLM its master key and nothing else; the bare one nothing
at all. CPU time is that of the whole family of processes, read from /proc, in interleaved rounds.
LiteLLM goes into an environment of its own, which the script makes.

    python benchmarks/gateway.py [--rounds 9] [--peers DIR] [--no-litellm]
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gateway_parts import REQUEST, ask_many, cpu_s, figure, part, read_reply, rss_mb, started
from jettison.serve.access import new_key

LITELLM = "litellm[proxy]==1.108.7"
SECRET = "sk-a-master-key-for-a-benchmark-on-loopback-3f7a"
N_OURS, N_LITELLM, CONCURRENCY = 2000, 120, 8


@contextlib.contextmanager
def ours(
    folder: Path, upstream: str, *, more: str = "", guardrail: str | None = None
) -> Iterator[tuple[Any, dict[str, str]]]:
    """A gateway with keys, limits, log, metrics and a split, perhaps with one guardrail around it."""
    key, digest = new_key()
    config = folder / "serve.toml"
    split = "route"
    if guardrail is not None:
        split = "route.inner"
        more += f'\n[route]\ntype = "guarded"\nguardrails = ["{guardrail}"]\n'
    config.write_text(
        f"""
[upstreams.a]
url = "{upstream}"
usd_per_million_input = 1.0
usd_per_million_output = 2.0
[upstreams.b]
url = "{upstream}"
{more}
[{split}]
type = "split"
treatment_share = 0.5
salt = "s"
control = {{type = "single", candidate = "upstream:a"}}
treatment = {{type = "single", candidate = "upstream:b"}}
[[keys]]
name = "bench"
sha256 = "{digest}"
requests_per_minute = 1e9
tokens_per_minute = 1e12
concurrency = 1000
budget_usd = 1e6
"""
    )
    command = [sys.executable, "-m", "jettison.cli", "serve", "--config", str(config), "--port", "0"]
    with started([*command, "--state", str(folder / "state")], until='"listening"') as process:
        yield process, {"authorization": f"Bearer {key}"}


@contextlib.contextmanager
def litellm(python: Path, folder: Path, upstream: str) -> Iterator[tuple[Any, dict[str, str]]]:
    config = folder / "litellm.yaml"
    entry = {
        "model_name": "mock",
        "litellm_params": {"model": "openai/mock", "api_base": upstream, "api_key": "none"},
    }
    config.write_text(json.dumps({"model_list": [entry], "general_settings": {"master_key": SECRET}}))
    port = random.randrange(20000, 40000)
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
    command = [
        str(python.parent / "litellm"),
        "--config",
        str(config),
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    with (folder / "litellm.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            deadline = time.monotonic() + 240
            while True:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2)
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(
                        "litellm did not start: " + (folder / "litellm.log").read_text()[-2000:]
                    )
                time.sleep(1)
            process.port = port  # type: ignore[attr-defined]
            yield process, {"authorization": f"Bearer {SECRET}"}
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def litellm_python(peers: Path) -> Path:
    """LiteLLM's own environment, made if need be."""
    python = peers / "litellm" / "bin" / "python"
    if not (python.parent / "litellm").exists():
        subprocess.run([sys.executable, "-m", "venv", str(peers / "litellm")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", LITELLM], check=True)
    return python


def one_round(subject: tuple[Any, dict[str, str]], n: int) -> float:
    """CPU-seconds a request."""
    process, headers = subject
    before = cpu_s(process.pid)
    found = asyncio.run(
        ask_many(process.port, n, concurrency=CONCURRENCY, path="/v1/chat/completions", headers=headers)
    )
    spent = cpu_s(process.pid) - before
    bad = [status for status, _ in found if status != 200]
    if bad:
        raise SystemExit(f"{len(bad)} of {n} requests failed, the first with {bad[0]}")
    return spent / n


def interval(values: list[float]) -> tuple[float, float, float]:
    """Median with its bootstrap 95 % interval."""
    rng = np.random.default_rng(0)
    drawn = np.median(rng.choice(values, (4000, len(values))), axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return statistics.median(values), float(low), float(high)


async def added_latency(direct: int, gateway: int, headers: dict[str, str], rounds: int) -> list[float]:
    """Difference of medians at concurrency 1, in seconds, one a round."""
    added = []
    for _ in range(rounds):
        medians = []
        for port, given in ((direct, {}), (gateway, headers)):
            found = await ask_many(port, 150, concurrency=1, path="/v1/chat/completions", headers=given)
            medians.append(statistics.median(seconds for _, seconds in found))
        added.append(medians[1] - medians[0])
    return added


async def streams(port: int, headers: dict[str, str], n: int) -> tuple[int, int]:
    """Open n streams at once; how many came whole, and how many frames there were."""
    raw = json.dumps({**REQUEST, "stream": True}).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{lines}content-length: {len(raw)}\r\n\r\n"

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + raw)
        _, body = await asyncio.wait_for(read_reply(reader), 120)
        writer.close()
        words = [f'"content":"w{i} "' in body.decode().replace('": "', '":"') for i in range(50)]
        return sum(words) if body.endswith(b"data: [DONE]\n\n") else 0

    found = await asyncio.gather(*(one() for _ in range(n)))
    return sum(one == 50 for one in found), sum(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "jettison-peers")
    parser.add_argument("--no-litellm", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = Path(place)
        upstream = stack.enter_context(part("upstream", "50", "0.02", "0", "0"))
        url = f"http://127.0.0.1:{upstream.port}/v1"
        subjects = {
            "ours": stack.enter_context(ours(folder, url)),
            "bare": (stack.enter_context(part("bare", url)), {}),
        }
        if not given.no_litellm:
            python = litellm_python(given.peers)
            subjects["litellm"] = stack.enter_context(litellm(python, folder, url))
        report(subjects, given.rounds, upstream.port)


def report(subjects: dict[str, Any], rounds: int, direct: int) -> None:
    sizes = {"ours": N_OURS, "bare": N_OURS, "litellm": N_LITELLM}
    for name, subject in subjects.items():
        one_round(subject, sizes[name] // 4)  # connections and caches
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name in random.sample(list(subjects), len(subjects)):
            spent[name].append(one_round(subjects[name], sizes[name]))
    process, headers = subjects["ours"]
    added = [1e3 * one for one in asyncio.run(added_latency(direct, process.port, headers, rounds))]
    bare = asyncio.run(added_latency(direct, subjects["bare"][0].port, {}, rounds))
    memory = rss_mb(process.pid)
    whole, frames = asyncio.run(streams(process.port, headers, 256))
    after = rss_mb(process.pid)
    against = "a chat proxied with key, limits, log, metrics and a split on"
    figure("cpu_ms_per_request", *(1e3 * x for x in interval(spent["ours"])), "ms", against)
    figure(
        "bare_cpu_ms_per_request",
        *(1e3 * x for x in interval(spent["bare"])),
        "ms",
        "raw ASGI and aiohttp alone",
    )
    ratio = [a / b for a, b in zip(spent["ours"], spent["bare"], strict=True)]
    figure("over_bare", *interval(ratio), "ratio", "raw ASGI and aiohttp alone, same round")
    if "litellm" in subjects:
        figure("litellm_cpu_ms_per_request", *(1e3 * x for x in interval(spent["litellm"])), "ms", LITELLM)
        ratio = [a / b for a, b in zip(spent["litellm"], spent["ours"], strict=True)]
        figure("litellm_ratio", *interval(ratio), "ratio", f"CPU of {LITELLM} over ours, same round")
        figure("litellm_rss_mb", rss_mb(subjects["litellm"][0].pid), None, None, "MB", LITELLM)
    figure("added_p50_ms", *interval(added), "ms", "the upstream asked directly, concurrency 1")
    figure("bare_added_p50_ms", *(1e3 * x for x in interval(bare)), "ms", "raw ASGI and aiohttp alone")
    figure("rss_mb", memory, None, None, "MB", "no engines")
    figure("rss_after_streams_mb", after, None, None, "MB", "after 256 streams at once")
    figure("streams_whole", whole, None, None, "of 256", f"{frames} of 12800 words came")


if __name__ == "__main__":
    main()
