"""A cascade end to end over HTTP: does live traffic behave as the release predicted?

The incumbent (the shared classifier, torch float32) stands behind a gateway of its own; the release's
lean arm answers in a second gateway that passes on to it (`jettison serve RELEASE --incumbent URL`). The
threshold is certified by Learn then Test on one half of CLINC150's dev split. What is predicted comes from
dev alone: the share answered lean from the certifying half, CPU time and latency from dev texts sent
through the same gateways. Live traffic are texts of the test split in dev's mix of in-scope and
out-of-scope, one at a time. Blocks of dev, of live and of the incumbent alone take turns. CPU time is that
of all processes of both gateways.

    python benchmarks/gateway_cascade.py [--live 1000] [--epsilon 0.01] [--lean FOLDER] [--workspace DIR]

`--lean` takes a finished calibrated student of the same task, as lean_ratio makes them, and saves its
training; without it a linear student is trained.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from scipy import stats

from gateway import interval
from gateway_load import chat_body, make_release
from gateway_parts import cpu_s, figure, started
from int8_parity import read_incumbent
from jettison.candidate import Candidate
from jettison.compress.cascade import make_cascade
from jettison.compress.linear import DistillLinear
from jettison.compress.step import StepContext, apply_step
from jettison.evaluate import calibrate, evaluate
from jettison.stats.binomial import clopper_pearson
from jettison.task import Development, Example
from jettison.task.read import read_task
from lean_ratio import clinc150

DELTA, N_BLOCKS = 0.1, 20


class Seen(NamedTuple):
    """One answer over HTTP."""

    label: str
    is_lean: bool
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", type=int, default=1000)
    parser.add_argument("--epsilon", type=float, default=0.01)
    parser.add_argument("--lean", type=Path)
    parser.add_argument("--workspace", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        workspace = (given.workspace or Path(place) / "work").absolute()
        workspace.mkdir(parents=True, exist_ok=True)
        clinc150(workspace)
        task = read_task(workspace / "task.toml")
        data = task.development
        cascade = make_arms(workspace, data, given.lean, given.epsilon)
        live = draw_live(task.read_test(purpose="gateway_cascade").examples, data, given.live)
        texts = [one.input for one in data.dev[:200]]
        release = make_release(cascade, Path(place) / "lean", texts)
        behind = make_release(Candidate.at(cascade.path / "fallback"), Path(place) / "incumbent", texts)
        serve = [sys.executable, "-m", "jettison.cli", "serve"]
        common = ["--unproven", "--port", "0", "--state"]
        with started([*serve, str(behind), *common, f"{place}/state-b"], until='"listening"') as incumbent:
            url = f"http://127.0.0.1:{incumbent.port}/v1"
            command = [*serve, str(release), *common, f"{place}/state-a", "--incumbent", url]
            with started(command, until='"listening"') as gateway:
                compare(gateway, incumbent, cascade, data, live, given.epsilon)


def make_arms(workspace: Path, data: Development, lean_folder: Path | None, epsilon: float) -> Candidate:
    """The cascade with its certified threshold."""
    raw, _ = read_incumbent(workspace)
    incumbent = calibrate(raw, data, cache=workspace / "calibrated")
    if lean_folder is not None:
        lean = Candidate.at(lean_folder)
    else:
        context = StepContext(data=data, incumbent=incumbent, folder=workspace, workspace=workspace)
        made = apply_step(DistillLinear(), incumbent, context, cache=workspace / "made")
        lean = calibrate(made, data, cache=workspace / "calibrated")
    answered = {
        one.digest: evaluate(one, data.dev, split="dev", folder=workspace / "records")
        for one in (lean, incumbent)
    }
    return make_cascade(
        lean,
        incumbent,
        data,
        cache=workspace / "cascades",
        lean_records=answered[lean.digest],
        fallback_records=answered[incumbent.digest],
        incumbent_records=answered[incumbent.digest],
        epsilon=epsilon,
        delta=DELTA,
    )


def draw_live(test: Sequence[Example], data: Development, n: int) -> list[Example]:
    """Test examples in dev's shares of in-scope and out-of-scope: the certificate is of such a mix."""
    rng = np.random.default_rng(0)
    n_out = round(n * sum(one.expected == "oos" for one in data.dev) / len(data.dev))
    out = [one for one in test if one.expected == "oos"]
    within = [one for one in test if one.expected != "oos"]
    drawn = [out[i] for i in rng.permutation(len(out))[:n_out]]
    drawn += [within[i] for i in rng.permutation(len(within))[: n - n_out]]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def ask_each(port: int, texts: Sequence[str]) -> list[Seen]:
    """Chats one after another over one kept connection."""

    async def run() -> list[Seen]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        found = []
        for text in texts:
            body = chat_body(text)
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            began = time.perf_counter()
            writer.write(head.encode() + body)
            raw = (await reader.readuntil(b"\r\n\r\n")).lower()
            size = int(raw.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
            answer = json.loads(await reader.readexactly(size))
            if raw[9:12] != b"200":
                raise SystemExit(f"a request failed: {answer}")
            label = answer["choices"][0]["message"]["content"]
            found.append(Seen(label, b"x-jettison-escalated: true" not in raw, time.perf_counter() - began))
        writer.close()
        return found

    return asyncio.run(run())


class Block(NamedTuple):
    """CPU and wall seconds a request, and what was answered."""

    cpu: float
    wall: float
    seen: list[Seen]


def timed(port: int, pids: Sequence[int], texts: Sequence[str]) -> Block:
    """Some texts; CPU of all processes of the gateways named."""
    before = sum(map(cpu_s, pids))
    found = ask_each(port, texts)
    cpu = (sum(map(cpu_s, pids)) - before) / len(texts)
    return Block(cpu, float(np.mean([one.seconds for one in found])), found)


def compare(
    gateway: Any,
    incumbent: Any,
    cascade: Candidate,
    data: Development,
    live: Sequence[Example],
    epsilon: float,
) -> None:
    """Blocks of dev texts, of live texts and of the incumbent alone, in turns; then what came of them."""
    both = (gateway.pid, incumbent.pid)
    rng = np.random.default_rng(1)
    dev = [data.dev[i].input for i in rng.permutation(len(data.dev))]
    asked = [one.input for one in live]
    ask_each(gateway.port, dev[:200])
    rounds: dict[str, list[Block]] = {"dev": [], "live": [], "alone": []}
    for i in range(N_BLOCKS):
        part = slice(i * len(asked) // N_BLOCKS, (i + 1) * len(asked) // N_BLOCKS)
        subjects = {
            "dev": (gateway.port, both, dev[200:][part]),
            "live": (gateway.port, both, asked[part]),
            "alone": (incumbent.port, both, asked[part]),
        }
        for name in rng.permutation(list(subjects)):
            rounds[name].append(timed(*subjects[name]))
    seen = {name: [one for block in blocks for one in block.seen] for name, blocks in rounds.items()}
    tell_answers(
        seen["live"], [one.label for one in seen["alone"]], [one.expected for one in live], epsilon
    )
    tell_share(cascade, data, seen["live"], rng)
    for name, unit in (("cpu", "ms of CPU a task"), ("wall", "ms, mean latency")):
        tell_cost(name, unit, *(np.array([getattr(b, name) for b in rounds[r]]) for r in rounds))
    for is_lean, name in ((True, "lean"), (False, "escalated")):
        walls = {
            r: [1e3 * one.seconds for one in seen[r] if one.is_lean == is_lean] for r in ("dev", "live")
        }
        value, low, high = interval(walls["live"])
        expected, *_ = interval(walls["dev"])
        figure(f"live_{name}_p50_ms", value, low, high, "ms", f"on dev {expected:.2f}")


def tell_share(
    cascade: Candidate, data: Development, seen: Sequence[Seen], rng: np.random.Generator
) -> None:
    """The certificate's share, with the interval of what so many live requests may show of it."""
    n = len(data.dev_certify)
    accepted = round(cascade.lineage[-1].notes["accepted_share"] * n)
    shares = rng.beta(accepted + 0.5, n - accepted + 0.5, 20_000)
    low, high = np.quantile(rng.binomial(len(seen), shares) / len(seen), (0.025, 0.975))
    against = f"{n} certifying examples; interval of what {len(seen)} live requests may show"
    figure("predicted_lean_share", accepted / n, float(low), float(high), "share", against)
    share = sum(one.is_lean for one in seen) / len(seen)
    figure("live_lean_share", share, None, None, "share", where(share, low, high))


def tell_cost(name: str, unit: str, dev: np.ndarray, live: np.ndarray, alone: np.ndarray) -> None:
    """Live's mean beside its prediction interval from dev, and beside the incumbent's own service."""
    spread = np.sqrt(dev.var(ddof=1) * (1 / len(dev) + 1 / len(live)))
    half = stats.t.ppf(0.975, len(dev) - 1) * spread
    low, high = 1e3 * (dev.mean() - half), 1e3 * (dev.mean() + half)
    against = f"dev texts, {len(dev)} blocks; interval for the mean of as many live blocks"
    figure(f"predicted_{name}_ms", float(1e3 * dev.mean()), float(low), float(high), unit, against)
    value = float(1e3 * live.mean())
    figure(f"live_{name}_ms", value, None, None, unit, where(value, low, high))
    draws = np.random.default_rng(2).integers(0, len(live), (4000, len(live)))
    low, high = np.quantile(live[draws].mean(axis=1) / alone[draws].mean(axis=1), (0.025, 0.975))
    against = f"the incumbent's own service: {1e3 * alone.mean():.2f} ms"
    figure(
        f"live_{name}_ratio", float(live.mean() / alone.mean()), float(low), float(high), "ratio", against
    )


def where(value: float, low: float, high: float) -> str:
    """Whether a live figure is what was predicted."""
    return f"predicted {low:.4g} to {high:.4g}: {'inside' if low <= value <= high else 'OUTSIDE'}"


def tell_answers(
    seen: Sequence[Seen], direct: Sequence[str], expected: Sequence[str | None], epsilon: float
) -> None:
    """Accuracy beside the incumbent's on the same texts, and the harm that the certificate bounds."""
    right = np.array([one.label == e for one, e in zip(seen, expected, strict=True)])
    was = np.array([a == e for a, e in zip(direct, expected, strict=True)])
    harmful = int(sum(one.is_lean for one, r, w in zip(seen, right, was, strict=True) if w and not r))
    n = len(right)
    harm = clopper_pearson(harmful, n)
    differences = right.astype(float) - was
    half = 1.96 * differences.std(ddof=1) / np.sqrt(n)
    loss = float(differences.mean())
    figure("live_accuracy", float(right.mean()), None, None, "share", f"incumbent {was.mean():.4f}, n {n}")
    figure("live_accuracy_difference", loss, loss - half, loss + half, "share", f"bound: {-epsilon:g}")
    against = f"certified: at most {epsilon:g} with probability {1 - DELTA:g}; {harmful} of {n}"
    figure("live_harm", harmful / n, harm.low, harm.high, "share", against)


if __name__ == "__main__":
    main()
