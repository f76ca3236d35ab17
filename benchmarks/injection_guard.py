"""The injection guard beside a peer: false alarms on ordinary traffic, recall on attacks, CPU time.

`python benchmarks/injection_guard.py GUARD [PEER]`: GUARD is a folder that `jettison guard` made, PEER an
environment with `metatronnanoguard` and torch (by default one is made in `bench-runs/nanoguard`). Both
see the same texts, whole, in this run; the peer in a process of its own. Ordinary traffic is CLINC150's
and Banking77's test queries and XSTest's safe prompts, none of which trained or tuned either the guard
or its thresholds; the attacks are the families of the guard's test split.
"""

import json
import os
import random
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

from beside import SHARED, Timing, figure, ratio
from jettison.serve.guardrails import open_guardrail
from jettison.stats.binomial import clopper_pearson

ROUNDS, BLOCK = 16, 8
MOST_BESIDE = 150
"""Texts of a set that both see; the peer takes a tenth of a second for each. Ours then sees all."""
PEER = "metatronnanoguard==0.1.0"
CHILD = """
import json, sys, time, torch
torch.set_num_threads(1)
from nanoguard import NanoGuard
guard = NanoGuard(device="cpu")
for line in sys.stdin:
    texts = json.loads(line)
    started = time.process_time()
    found = [bool(guard.scan(text).is_injection) for text in texts]
    print(json.dumps({"caught": found, "cpu_s": time.process_time() - started}), flush=True)
"""


class Peer:
    """NanoGuard in its own environment, at its own threshold."""

    def __init__(self, python: Path) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [str(python), "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, texts: list[str]) -> tuple[list[bool], float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(texts) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer["caught"], answer["cpu_s"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Ours:
    """The guardrail as the gateway opens it, at a false-alarm share that its dev tells."""

    def __init__(self, folder: Path, share: float = 0.01) -> None:
        settings = {"model": str(folder), "false_alarm_share": share}
        self._guardrail = open_guardrail("prompt_injection", settings)

    def ask(self, texts: list[str]) -> tuple[list[bool], float]:
        started = time.process_time()
        caught = [self._guardrail.check(text, where="input").action == "block" for text in texts]
        return caught, time.process_time() - started


def make_peer(folder: Path) -> Path:
    """An environment with the peer and torch."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", PEER, "torch", "numpy"], check=True)
    return python


def sets(folder: Path) -> dict[str, list[str]]:
    """Texts by the name of their set; `attack_*` should be caught, `ordinary_*` not."""

    def rows(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().split("\n") if line]

    data = SHARED / "data"
    found = {
        f"ordinary_{name}": [r["text"] for r in rows(data / name / f"{name}.jsonl") if r["split"] == "test"]
        for name in ("clinc150", "banking77")
    }
    safe = [r for r in rows(data / "xstest" / "prompts.jsonl") if not r["type"].startswith("contrast")]
    found["ordinary_xstest_safe"] = [r["prompt"] for r in safe]
    for row in rows(folder / "guard.jsonl"):
        if row["split"] == "test":
            family = row["family"]
            own = "bastion" if family.startswith("bastion_") and family != "bastion_lookalikes" else family
            found.setdefault(f"{row['kind']}_{own}", []).append(row["text"])
            found.setdefault(f"{row['kind']}_all_of_test", []).append(row["text"])
    return found


def main(folder: Path, python: Path) -> None:
    subjects: dict[str, Any] = {"jettison": Ours(folder), "nanoguard": Peer(python)}
    at_shares = {share: Ours(folder, share) for share in (0.002, 0.01)}
    given = sets(folder)
    mixed = [text for texts in given.values() for text in texts[:: max(1, len(texts) // 40)]]
    for subject in subjects.values():
        subject.ask(mixed[:64])
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(ROUNDS):
        block = mixed[number % 8 :: max(1, len(mixed) // BLOCK)][:BLOCK]
        for name in sorted(subjects, reverse=bool(number % 2)):
            spent[name].append(subjects[name].ask(block)[1] / len(block))
    for set_name, whole in given.items():
        texts = random.Random(0).sample(whole, min(len(whole), MOST_BESIDE))
        for name, subject in subjects.items():
            caught = sum(subject.ask(texts)[0])
            share = clopper_pearson(caught, len(texts))
            against = "" if name == "nanoguard" else "nanoguard, the next line"
            print(
                figure(
                    f"caught_share_{set_name}_{name}", share.value, share.low, share.high, "share", against,
                    n=len(texts),
                ),
                flush=True,
            )  # fmt: skip
        if len(whole) > len(texts):
            for share, ours in at_shares.items():
                share_of = clopper_pearson(sum(ours.ask(whole)[0]), len(whole))
                print(
                    figure(
                        f"caught_share_{set_name}_jettison_at_{share}", share_of.value, share_of.low,
                        share_of.high, "share", "", n=len(whole),
                    ),
                    flush=True,
                )  # fmt: skip
    timings = {name: Timing(name, times) for name, times in spent.items()}
    for name, timing in timings.items():
        ordered = sorted(timing.cpu_s)
        print(
            figure(
                f"cpu_us_per_text_{name}",
                timing.median_s * 1e6,
                ordered[0] * 1e6,
                ordered[-1] * 1e6,
                "us",
                "",
            )
        )
    value, low, high = ratio(timings["nanoguard"], timings["jettison"])
    print(figure("times_cheaper", value, low, high, "x", PEER))
    subjects["nanoguard"].close()


if __name__ == "__main__":
    given_peer = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("bench-runs/nanoguard")
    main(Path(sys.argv[1]), make_peer(given_peer))
