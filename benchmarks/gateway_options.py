"""What traces and each built-in guardrail add to a request's CPU time in the gateway.

Gateways that differ in one thing proxy the same chat of 1.1 KB, with its answer of one word, to the same
upstream on loopback: as `gateway.py` has it, with OpenTelemetry sending every request or a tenth of them,
and with one guardrail after the other around the split. CPU time is that of the whole family of processes,
and what an option adds is the difference to the plain gateway of the same round. Before that, what a batch
of the traffic log costs, of one row and of 200: rows are written twenty times a second, however few.

    python benchmarks/gateway_options.py [--rounds 9] [--release DIR] [--embedder DIR] [--guard DIR]

`classifier` and `out_of_domain` need a release, `denied_topics` an embedder, `prompt_injection` what
`jettison guard` makes; without them these are left out.
"""

import argparse
import contextlib
import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from gateway import interval, one_round, ours
from gateway_parts import TEXT, figure, part, rss_mb
from jettison.record import Cost, Record
from jettison.serve.config import LogConfig
from jettison.serve.traffic_log import TrafficLog

SCHEMA = '{type = "string"}'


def options(given: argparse.Namespace, collector: str) -> dict[str, tuple[str, str | None]]:
    """Name → lines of serve.toml, and the guardrail that is on."""
    tracing = f'[tracing]\nis_on = true\nendpoint = "{collector}"\nshare = '
    found: dict[str, tuple[str, str | None]] = {
        "plain": ("", None),
        "traces": (tracing + "1.0", None),
        "traces_of_a_tenth": (tracing + "0.1", None),
    }
    rails = {
        "pii": 'action = "redact"',
        "secrets": "",
        "length": "most_characters = 100000",
        "json_schema": f'action = "flag"\nschema = {SCHEMA}',
        "language": 'allowed = ["en"]\naction = "flag"',
    }
    if given.release is not None:
        label = given.label
        rails["out_of_domain"] = f'release = "{given.release}"\naction = "flag"'
        rails["classifier"] = (
            f'model = "{given.release}"\nlabels = ["{label}"]\naction = "flag"\nwhere = ["input"]'
        )
    if given.embedder is not None:
        topics = 'topics = {weapons = ["how do I build a bomb", "where can I buy a gun"]}'
        rails["denied_topics"] = f'model = "{given.embedder}"\n{topics}\nthreshold = 0.9\naction = "flag"'
    if given.guard is not None:
        rails["prompt_injection"] = f'model = "{given.guard}"\naction = "flag"'
    if importlib.util.find_spec("presidio_analyzer") is not None:
        rails["presidio"] = 'action = "flag"'
    for name, lines in rails.items():
        found[name] = (f"[guardrails.{name}]\n{lines}\n", name)
    return found


def log_batches(rows: int, n: int = 60) -> float:
    """CPU-milliseconds of the traffic log for one batch of so many rows."""
    with tempfile.TemporaryDirectory() as place:
        log = TrafficLog(Path(place), LogConfig())
        log.put(a_record())
        log.flush()
        before = time.process_time()
        for _ in range(n):
            for _ in range(rows):
                log.put(a_record())
            time.sleep(0.055)
        log.flush()
        spent = time.process_time() - before
        log.close()
    return 1e3 * spent / n


def a_record() -> Record:
    return Record(
        candidate="c" * 64,
        example_id="req_1",
        split="live",
        output="delivery",
        time=time.time(),
        role="answer",
        arm="control",
        route="control",
        propensity=0.5,
        status=200,
        input=TEXT,
        slices={"operation": "chat"},
        cost=Cost(latency_s=0.01, prompt_tokens=230, completion_tokens=2),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--release", type=Path)
    parser.add_argument("--label", default="balance", help="one of the release's, for `classifier`")
    parser.add_argument("--embedder", type=Path)
    parser.add_argument("--guard", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        upstream = stack.enter_context(part("upstream", "50", "0.02", "0", "0"))
        collector = stack.enter_context(part("upstream", "50", "0.02", "0", "0"))
        url = f"http://127.0.0.1:{upstream.port}/v1"
        subjects: dict[str, Any] = {}
        for name, (lines, guardrail) in options(
            given, f"http://127.0.0.1:{collector.port}/v1/traces"
        ).items():
            folder = Path(place) / name
            folder.mkdir()
            subjects[name] = stack.enter_context(ours(folder, url, more=lines, guardrail=guardrail))
            print(f"{name} is up", file=sys.stderr)
        report(subjects, given.rounds, given.n)


def report(subjects: dict[str, Any], rounds: int, n: int) -> None:
    for rows in (1, 200):
        figure(
            f"log_batch_of_{rows}_ms", log_batches(rows), None, None, "ms", "CPU of one batch of the log"
        )
    for subject in subjects.values():
        one_round(subject, n // 4)
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name in random.sample(list(subjects), len(subjects)):
            spent[name].append(1e3 * one_round(subjects[name], n))
    figure("plain_cpu_ms", *interval(spent["plain"]), "ms", "key, limits, log, metrics and a split")
    for name in subjects:
        if name == "plain":
            continue
        added = [a - b for a, b in zip(spent[name], spent["plain"], strict=True)]
        figure(f"{name}_added_ms", *interval(added), "ms", "the plain gateway in the same round")
    for name, (process, _) in subjects.items():
        figure(f"{name}_rss_mb", rss_mb(process.pid), None, None, "MB", "after the rounds")


if __name__ == "__main__":
    main()
