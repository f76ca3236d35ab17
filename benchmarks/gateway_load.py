"""A real classifier through the gateway: its throughput, what an overload does, and a soak.

The release is an int8 ONNX file of the shared classifier (six layers of width 384, 151 intents), served
without proof. Throughput is beside the bare ONNX Runtime session on the same batches, already tokenized and
padded, in interleaved rounds: texts sent to the gateway in batches (Open Inference Protocol), and one a
request (chats, which the engine batches). The overload is five times what chats reach just before.
The load comes from this process, on the same cores: `jettison.cost`'s player waits for due times in a busy
loop, which would take a core from the gateway, so requests go out here in ticks of 2 ms.

    python benchmarks/gateway_load.py [--rounds 9] [--overload-s 20] [--soak-minutes 20]

Nought of a part leaves it out.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy import stats

from gateway import interval
from gateway_parts import cpu_s, figure, offer, post_all, rss_mb, started
from int8_parity import MAX_TOKENS, SHARED, read_incumbent
from jettison.backends.machine import describe_machine
from jettison.backends.onnx import open_session
from jettison.backends.text import load_tokenizer
from jettison.candidate import Candidate
from jettison.compress.quantize import Quantize
from jettison.compress.step import StepContext, apply_step
from jettison.cost.schedule import poisson_schedule
from jettison.decision import CandidateReport, CostSummary, Decision, NotWorse, Verdict
from jettison.evaluate import evaluate, evaluation_file, reference_profile
from jettison.release import write_release
from jettison.task import Example

BATCH, N_BATCHES, IN_FLIGHT = 32, 24, 64
N_OVERLOADS, BLOCK_S, SETTLE_S = 5, 10.0, 60.0
CHAT, INFER = "/v1/chat/completions", "/v2/models/clinc150/infer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--overload-s", type=float, default=20.0)
    parser.add_argument("--soak-minutes", type=float, default=20.0)
    parser.add_argument("--workspace", type=Path, help="keeps the made model; a temporary folder otherwise")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        workspace = given.workspace or Path(place) / "made"
        workspace.mkdir(parents=True, exist_ok=True)
        candidate, texts = make_candidate(workspace)
        release = make_release(candidate, Path(place), texts[:200])
        print(f"load of the machine at the start: {os.getloadavg()}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "jettison.cli", "serve", str(release), "--unproven", "--port", "0"]
        with started([*command, "--state", f"{place}/state"], until='"listening"') as gateway:
            if given.rounds:
                throughput(gateway, candidate, texts, given.rounds)
            if given.overload_s:
                overload(gateway, texts, given.overload_s)
            if given.soak_minutes:
                soak(gateway, texts, given.soak_minutes)
        print(f"load of the machine at the end: {os.getloadavg()}", file=sys.stderr, flush=True)


def make_candidate(workspace: Path) -> tuple[Candidate, list[str]]:
    """The int8 file, and texts of the test split to ask it."""
    incumbent, data = read_incumbent(workspace)
    context = StepContext(data=data, incumbent=incumbent, folder=workspace, workspace=workspace)
    made = apply_step(Quantize(method="dynamic"), incumbent, context, cache=workspace / "made")
    rows = map(json.loads, (SHARED / "data/clinc150/clinc150.jsonl").read_text().splitlines())
    texts = [row["text"] for row in rows if row["split"] == "test"]
    order = np.random.default_rng(0).permutation(len(texts))[: BATCH * N_BATCHES]
    return made, [texts[i] for i in order]


def make_release(candidate: Candidate, folder: Path, texts: Sequence[str]) -> Path:
    """A release whose decision says that nothing was tested: it is served with `--unproven` alone."""
    examples = [Example(id=str(i), input=text, expected="oos") for i, text in enumerate(texts)]
    records = evaluate(candidate, examples, split="none", folder=folder / "records")
    report = CandidateReport(
        name=candidate.name,
        digest=candidate.digest,
        verdict=Verdict.NOT_ENOUGH_DATA,
        role="shown",
        gates=(),
        scores={},
        n={},
        cost=CostSummary(),
    )
    decision = Decision(
        task="clinc150",
        verdict=Verdict.NOT_ENOUGH_DATA,
        chosen=candidate.name,
        headline="For a benchmark of speed: nothing was tested.",
        reasons=("No gate was asked.",),
        incumbent=candidate.name,
        candidates=(report,),
        gates=(NotWorse(),),
        test_digest="0" * 64,
        n_test_reads=0,
        seed=0,
        machine=describe_machine(),
        created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
    )
    evidence = [evaluation_file(folder / "records", candidate, examples, split="none")]
    made = write_release(
        folder / "1",
        candidate=candidate,
        decision=decision,
        evidence=evidence,
        task_name="clinc150",
        profile=reference_profile(records, list(texts)),
    )
    return made.path


class Bare:
    """ONNX Runtime alone, on one thread as the engine is."""

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        self._session = open_session(folder / "model.onnx")
        self._names = [one.name for one in self._session.get_inputs()]
        self._tokenizer = load_tokenizer(folder / "tokenizer.json")
        self._tokenizer.enable_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self._texts = texts
        self._fed = [self._feed(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)]

    def run(self) -> float:
        """Texts a second of the session on batches that lie ready."""
        began = time.perf_counter()
        for feed in self._fed:
            self._session.run(None, feed)
        return len(self._texts) / (time.perf_counter() - began)

    def run_from_text(self) -> float:
        """The same with tokenizing."""
        began = time.perf_counter()
        for i in range(0, len(self._texts), BATCH):
            self._session.run(None, self._feed(self._texts[i : i + BATCH]))
        return len(self._texts) / (time.perf_counter() - began)

    def _feed(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        found = self._tokenizer.encode_batch(list(texts))
        ids = np.array([one.ids for one in found], np.int64)
        mask = np.array([one.attention_mask for one in found], np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: given[name] for name in self._names}


def throughput(gateway: Any, candidate: Candidate, texts: Sequence[str], rounds: int) -> None:
    """The shares of the bare session, round by round: of texts a second, and of texts a CPU-second."""
    port = gateway.port
    bare = Bare(candidate.path, texts)
    batches = [infer_body(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)]
    chats = [chat_body(text) for text in texts]
    subjects: dict[str, Any] = {
        "bare": bare.run,
        "bare_from_text": bare.run_from_text,
        "batched": lambda: sent(port, INFER, batches, len(texts), IN_FLIGHT // BATCH),
        "single": lambda: sent(port, CHAT, chats, len(texts), IN_FLIGHT),
    }
    rng = np.random.default_rng(0)
    for subject in subjects.values():
        subject()
    found: dict[str, list[float]] = {name: [] for name in subjects}
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name in rng.permutation(list(subjects)):
            clock = time.process_time if name.startswith("bare") else lambda: cpu_s(gateway.pid)
            before = clock()
            found[name].append(subjects[name]())
            spent[name].append(clock() - before)
    for name, rates in found.items():
        figure(f"{name}_texts_per_s", *interval(rates), "texts/s", f"batches of {BATCH}, {rounds} rounds")
    for name, over, against in (
        ("throughput_share", ("batched", "bare"), "batches sent whole; bare session, tokenized before"),
        ("throughput_share_from_text", ("batched", "bare_from_text"), "the same; bare with tokenizing"),
        ("single_throughput_share", ("single", "bare"), f"one text a request, {IN_FLIGHT} in flight; bare"),
    ):
        shares = [a / b for a, b in zip(found[over[0]], found[over[1]], strict=True)]
        figure(name, *interval(shares), "ratio", against)
        # The same by CPU time, which other work on the machine changes less.
        of_cpu = [b / a for a, b in zip(spent[over[0]], spent[over[1]], strict=True)]
        figure(name.replace("throughput", "cpu"), *interval(of_cpu), "ratio", f"{against}; a CPU-second")


def infer_body(texts: Sequence[str]) -> bytes:
    given = {"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}
    return json.dumps({"inputs": [given]}).encode()


def chat_body(text: str) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}]}).encode()


def sent(port: int, path: str, bodies: Sequence[bytes], n_texts: int, concurrency: int) -> float:
    """Texts a second, closed loop."""
    began = time.perf_counter()
    statuses = asyncio.run(post_all(port, path, bodies, concurrency=concurrency))
    wall_s = time.perf_counter() - began
    if set(statuses) != {200}:
        raise SystemExit(f"{path}: some of {len(bodies)} requests failed: {sorted(set(statuses))}")
    return n_texts / wall_s


def played(port: int, texts: Sequence[str], rate: float, length_s: float, seed: int) -> Any:
    """Chats at a rate, whatever becomes of them: status and seconds of each, and the wall time."""
    rng = np.random.default_rng(seed)
    due = poisson_schedule(rate, length_s, rng=rng)
    bodies = [chat_body(texts[i]) for i in rng.integers(0, len(texts), len(due))]
    return asyncio.run(offer(port, CHAT, bodies, due))


def capacity_of(port: int, texts: Sequence[str]) -> float:
    """Chats a second that it answers at this moment, on a machine that is shared."""
    return sent(port, CHAT, [chat_body(text) for text in texts], len(texts), IN_FLIGHT)


def overload(gateway: Any, texts: Sequence[str], length_s: float) -> None:
    """Blocks at five times the capacity found just before; memory counts from the end of the first."""
    goodput, refused, answered, odd, memory, rates = [], [], [], 0, [], []
    n_sent = 0
    for block in range(N_OVERLOADS):
        capacity = capacity_of(gateway.port, texts)
        rates.append(5 * capacity)
        found, wall_s = played(gateway.port, texts, rates[-1], length_s / N_OVERLOADS, block)
        n_sent += len(found)
        ok = [seconds for status, seconds in found if status == 200]
        goodput.append(len(ok) / wall_s / capacity)
        answered += ok
        refused += [seconds for status, seconds in found if status in (429, 503)]
        odd += sum(status not in (200, 429, 503) for status, _ in found)
        memory.append(rss_mb(gateway.pid))
    against = (
        f"{min(rates):.0f} to {max(rates):.0f} chats/s, 5 times the capacity just before; {n_sent} sent"
    )
    figure("overload_goodput", *interval(goodput), "share of capacity", against)
    figure("overload_refused_share", len(refused) / n_sent, None, None, "share", "answered 429 or 503")
    figure("overload_other_errors", odd, None, None, "requests", "neither 200 nor 429 nor 503")
    if refused:
        p50, p95 = np.quantile(refused, (0.5, 0.95)) * 1e3
        figure("refused_p95_ms", float(p95), None, None, "ms", f"till the refusal; p50 {p50:.1f} ms")
    if answered:
        p50, p95 = np.quantile(answered, (0.5, 0.95)) * 1e3
        figure("overload_answered_p95_ms", float(p95), None, None, "ms", f"of the 200s; p50 {p50:.1f} ms")
    told = "from the first to the last block: " + ", ".join(f"{one:.1f}" for one in memory)
    figure("overload_rss_growth_mb", memory[-1] - memory[0], None, None, "MB", told)


def soak(gateway: Any, texts: Sequence[str], minutes: float) -> None:
    """Blocks of ten seconds, the capacity found anew every minute; Theil's slope from the second on."""
    began, wrong, late = time.monotonic(), Counter[int](), []
    at, memory, rates = [], [], []
    while (passed := time.monotonic() - began) < 60 * minutes:
        block = len(rates)
        if block % 6 == 0:
            capacity = capacity_of(gateway.port, texts[: len(texts) // 2])
        rates.append(0.7 * capacity)
        found, _ = played(gateway.port, texts, rates[-1], BLOCK_S, 100 + block)
        wrong.update(status for status, _ in found if status != 200)
        late += [seconds for _, seconds in found]
        if passed >= min(SETTLE_S, 30 * minutes):
            at.append((time.monotonic() - began) / 60)
            memory.append(rss_mb(gateway.pid))
    slope = stats.theilslopes(memory, at)
    against = f"{minutes:g} minutes at {min(rates):.0f} to {max(rates):.0f} chats/s, 70 % of capacity"
    figure(
        "soak_rss_slope",
        float(slope.slope),
        float(slope.low_slope),
        float(slope.high_slope),
        "MB/min",
        against,
    )
    figure(
        "soak_rss_mb", memory[-1], memory[0], max(memory), "MB", "last; low is the first, high the highest"
    )
    figure(
        "soak_errors", wrong.total(), None, None, "requests", f"of {len(late)}; by status: {dict(wrong)}"
    )
    p50, p95 = np.quantile(late, (0.5, 0.95)) * 1e3
    figure("soak_p95_ms", float(p95), None, None, "ms", f"p50 {p50:.1f} ms")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
