"""Runs a peer beside us: one process each, the same texts one at a time, blocks interleaved.

`python benchmarks/beside.py KIND PATH THREADS` is the process of one subject; it answers
lines of JSON on stdin. The rest is what the benchmark scripts import.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SHARED = Path(os.environ.get("JETTISON_SHARED", Path(__file__).resolve().parents[2] / "shared"))


class Subject(NamedTuple):
    """Something that labels texts, and how to open it."""

    name: str
    kind: str
    """`transformers`, `onnxruntime`, `release` or `candidate`."""
    path: Path


class Timing(NamedTuple):
    """CPU-seconds per task of one subject, one figure a round."""

    name: str
    cpu_s: list[float]

    @property
    def median_s(self) -> float:
        return statistics.median(self.cpu_s)


def measure(
    subjects: Sequence[Subject],
    texts: Sequence[str],
    *,
    warm: Sequence[str] = (),
    rounds: int = 24,
    seed: int = 0,
) -> list[Timing]:
    """CPU-seconds per task at batch 1, one thread, in blocks of random order within each round.

    Every subject first answers `warm`, other texts than are timed: a service has seen requests before,
    and our students remember the words of those.
    """
    rng = random.Random(seed)
    processes = [_start(subject, texts, warm) for subject in subjects]
    try:
        spent: list[list[float]] = [[] for _ in subjects]
        block_s = [
            _ask(process, {"rows": [0, 1, 2, 3], "repeats": 5})["cpu_s"] / 20 for process in processes
        ]
        for _ in range(rounds):
            rows = rng.sample(range(len(texts)), min(128, len(texts)))
            for index in rng.sample(range(len(subjects)), len(subjects)):
                repeats = max(1, round(0.08 / (block_s[index] * len(rows))))
                done = _ask(processes[index], {"rows": rows, "repeats": repeats})
                spent[index].append(done["cpu_s"] / (repeats * len(rows)))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [Timing(subject.name, times) for subject, times in zip(subjects, spent, strict=True)]


def ratio(over: Timing, under: Timing, *, seed: int = 0) -> tuple[float, float, float]:
    """Median of the per-round ratios `over / under` with a 95 % bootstrap interval."""
    rng = random.Random(seed)
    ratios = [a / b for a, b in zip(over.cpu_s, under.cpu_s, strict=True)]
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[49], medians[1949]


def figure(name: str, value: float, low: float, high: float, unit: str, against: str, **facts: Any) -> str:
    """One line of a benchmark's output."""
    rounded = {"value": float(f"{value:.4g}"), "low": float(f"{low:.4g}"), "high": float(f"{high:.4g}")}
    return json.dumps({"name": name, **rounded, "unit": unit, "against": against, **facts})


def _start(subject: Subject, texts: Sequence[str], warm: Sequence[str]) -> "subprocess.Popen[str]":
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, "1")}
    process = subprocess.Popen(
        [sys.executable, __file__, subject.kind, str(subject.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    _ask(process, {"texts": list(texts), "warm": list(warm)})
    return process


def _ask(process: "subprocess.Popen[str]", message: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a measured process died; its message stands above.")
    reply: dict[str, Any] = json.loads(line)
    return reply


def _open(kind: str, path: Path) -> Callable[[str], str]:
    """A function from text to label, opened as that tool's users open it."""
    if kind == "transformers":
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        torch.set_num_threads(1)
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForSequenceClassification.from_pretrained(path).eval()
        names = model.config.id2label

        def transformers_label(text: str) -> str:
            with torch.inference_mode():
                return str(names[int(model(**tokenizer(text, return_tensors="pt")).logits.argmax())])

        return transformers_label
    if kind == "onnxruntime":
        import numpy as np
        import onnxruntime as ort
        from tokenizers import Tokenizer

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(path / "model.onnx", options)
        tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        tokenizer.no_padding()
        wanted = {node.name for node in session.get_inputs()}

        def onnxruntime_label(text: str) -> str:
            ids = np.array([tokenizer.encode(text).ids], np.int64)
            given = {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }
            return str(session.run(None, {k: v for k, v in given.items() if k in wanted})[0].argmax())

        return onnxruntime_label
    if kind == "candidate":
        from jettison.backends.open import open_model
        from jettison.candidate import Candidate

        opened = open_model(Candidate.at(path))
        return lambda text: opened.predict([text])[0].label
    from jettison.backends.released import open_release_model

    released = open_release_model(path)
    return lambda text: released.predict([text])[0].label


def _serve(kind: str, path: Path) -> None:
    label = _open(kind, path)
    texts: list[str] = []
    for line in sys.stdin:
        message = json.loads(line)
        if "texts" in message:
            texts = message["texts"]
            for text in message["warm"]:
                label(text)
            answers = [label(text) for text in texts[:100]]
            print(json.dumps({"answers": answers}), flush=True)
            continue
        chosen = [texts[row] for row in message["rows"]] * message["repeats"]
        started = time.process_time()
        for text in chosen:
            label(text)
        print(json.dumps({"cpu_s": time.process_time() - started}), flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]))
