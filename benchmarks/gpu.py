"""A language model on a GPU beside itself on the CPU: the same answers, how fast, for how many joules?

- Likelihoods of multiple choice (Banking77, worked examples before each) on the GPU in float32 and in
  bfloat16, against float32 on the CPU: largest and mean difference, answers changed, accuracy.
- Greedy completions on the GPU against those of `transformers.generate` on the same GPU, in float32, one
  by one: token for token as text. In bfloat16 the batch decides ties, so the share that is equal is told.
- Speed: the same prompts by ours and by `generate` with the same batch, bfloat16, in turns.
- Energy: joules of a completion by NVML's counter, idle power of the board included, beside the same
  window's power readings multiplied by time, as most tools do it.
- Steps that train or round, on the GPU and then on the CPU: seconds, and the score on dev.

    python benchmarks/gpu.py --model FOLDER [--n 400] [--completions 64] [--rounds 8] [--steps NAME ...]

Without a GPU it says so and ends; `--device cpu` rehearses everything on the CPU.
"""

import argparse
import json
import random
import shutil
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from beside import figure
from eval_speed import write_questions
from jettison.backends.causal import CausalEngine
from jettison.backends.hf import quiet_transformers
from jettison.candidate import Candidate, write_candidate
from jettison.compress.incumbent import take_in
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.cost.meter_nvml import NvmlMeter
from jettison.errors import JettisonError
from jettison.evaluate.run import evaluate
from jettison.language import Ask, Continuation
from jettison.record import mean_score
from leaner_llm import write_task

N_TOKENS = 48
STEPS: dict[str, dict[str, Any]] = {
    "lora": {"step": "finetune_language", "epochs": 1, "patience": 1},
    "gptq": {"step": "quantize_compressed", "method": "gptq", "n_texts": 64, "group_size": 64},
    "awq": {
        "step": "quantize_compressed",
        "method": "awq",
        "scheme": "W4A16_ASYM",
        "n_texts": 64,
        "group_size": 64,
    },
    "round": {
        "step": "quantize_compressed",
        "method": "round",
        "scheme": "W8A16",
        "n_texts": 64,
        "group_size": 64,
    },
    "sparse": {"step": "quantize_compressed", "method": "sparse", "n_texts": 64},
}
ON_GPU_ALONE = {"awq"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of a causal checkpoint")
    parser.add_argument("--work", type=Path, default=Path("bench-runs/gpu"))
    parser.add_argument("--n", type=int, default=400, help="multiple-choice questions")
    parser.add_argument("--completions", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8, help="of speed")
    parser.add_argument("--steps", nargs="*", default=[], choices=list(STEPS))
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=["likelihoods", "greedy", "speed", "energy"]
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--threads", type=int, default=8, help="of the CPU")
    given = parser.parse_args()
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here; `--device cpu` rehearses on the CPU.")
    board = torch.cuda.get_device_name() if given.device == "cuda" else "cpu (rehearsal)"
    tell(name="machine", board=board, torch=torch.__version__, model=given.model.name)
    work: Path = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    texts = write_questions(work / "questions.jsonl", given.n)
    # Opening a folder as a candidate writes its manifest there, so not in the user's.
    opened = work / "opened"
    if not opened.exists():
        shutil.copytree(given.model, opened)
    bench = Bench(opened, given.device, given.threads)
    parts = {
        "likelihoods": lambda: compare_likelihoods(bench, work / "questions.jsonl"),
        "greedy": lambda: compare_greedy(bench, texts[: given.completions]),
        "speed": lambda: compare_speed(bench, texts[: given.completions], given.rounds),
        "energy": lambda: compare_energy(bench, texts[: given.completions]),
    }
    for name, part in parts.items():
        if name not in given.skip:
            part()
    if given.steps:
        compare_steps(bench, given.model.resolve(), given.steps, work)


class Bench(msgspec.Struct, frozen=True):
    """What is compared, and where."""

    model: Path
    device: str
    threads: int

    def engine(self, device: str, dtype: str, batch: int = 16) -> CausalEngine:
        settings = {"threads": self.threads, "device": device, "dtype": dtype, "batch_size": batch}
        return CausalEngine(
            write_candidate(self.model, name="model", backend="hf_causal", labels=(), settings=settings)
        )

    def plain(self, dtype: str) -> tuple[Any, Any]:
        """The model as its users open it, and its tokenizer, padded on the left."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(self.model, dtype=getattr(torch, dtype))
        return model.to(self.device).eval(), AutoTokenizer.from_pretrained(self.model, padding_side="left")


def compare_likelihoods(bench: Bench, questions: Path) -> None:
    """Log-likelihoods and the answers chosen by them, float32 on the CPU the reference."""
    rows = [json.loads(line) for line in questions.open()]
    asked = [
        Continuation(context=row["question"], text=f" {choice}")
        for row in rows
        for choice in row["choices"]
    ]
    right = np.array([row["answer"] for row in rows])
    reference: np.ndarray | None = None
    for device, dtype in (("cpu", "float32"), (bench.device, "float32"), (bench.device, "bfloat16")):
        engine = bench.engine(device, dtype)
        engine.likelihoods(asked[:16])
        started = time.perf_counter()
        found = np.array([one.logprob for one in engine.likelihoods(asked)]).reshape(len(rows), -1)
        took_s = time.perf_counter() - started
        engine.close()
        if reference is None:
            reference = found
        apart = np.abs(found - reference)
        tell(
            name="gpu_likelihoods",
            device=device,
            dtype=dtype,
            max_difference=float(apart.max()),
            mean_difference=float(apart.mean()),
            n_answers_changed=int((found.argmax(1) != reference.argmax(1)).sum()),
            accuracy=float((found.argmax(1) == right).mean()),
            n_questions=len(rows),
            questions_per_s=round(len(rows) / took_s, 1),
        )


def compare_greedy(bench: Bench, texts: Sequence[str]) -> None:
    """Our completions, batched, beside those of `generate`, one by one, on the same device."""
    import torch

    for dtype in ("float32", "bfloat16"):
        engine = bench.engine(bench.device, dtype)
        ours = [one.text for one in engine.complete(asks(texts))]
        engine.close()
        model, tokenizer = bench.plain(dtype)
        same = 0
        for text, mine in zip(texts, ours, strict=True):
            given = tokenizer(text, return_tensors="pt").to(bench.device)
            with torch.inference_mode():
                made = model.generate(**given, **greedy(tokenizer))[0, given.input_ids.shape[1] :]
            same += mine == tokenizer.decode(made, skip_special_tokens=True)
        tell(name="gpu_greedy", device=bench.device, dtype=dtype, n_same=same, n=len(texts))


def compare_speed(bench: Bench, texts: Sequence[str], rounds: int) -> None:
    """Wall seconds of the same prompts by both, in turns, with the same batch, in bfloat16."""
    import torch

    for batch in (1, 16, len(texts)):
        some = texts[: max(batch, 4)]
        engine = bench.engine(bench.device, "bfloat16", batch)
        model, tokenizer = bench.plain("bfloat16")

        def ours(some: Sequence[str] = some, engine: CausalEngine = engine) -> None:
            engine.complete(asks(some))

        def theirs(
            some: Sequence[str] = some, batch: int = batch, model: Any = model, tokenizer: Any = tokenizer
        ) -> None:
            for at in range(0, len(some), batch):
                given = tokenizer(list(some[at : at + batch]), return_tensors="pt", padding=True)
                with torch.inference_mode():
                    made = model.generate(**given.to(bench.device), **greedy(tokenizer))
                tokenizer.batch_decode(made[:, given.input_ids.shape[1] :], skip_special_tokens=True)

        took_s: dict[str, list[float]] = {"ours": [], "theirs": []}
        for number in range(rounds + 1):
            turns = [("ours", ours), ("theirs", theirs)]
            random.Random(number).shuffle(turns)
            for name, run in turns:
                started = time.perf_counter()
                run()
                if number:
                    took_s[name].append(time.perf_counter() - started)
        engine.close()
        ratios = [a / b for a, b in zip(took_s["theirs"], took_s["ours"], strict=True)]
        print(
            figure(
                "gpu_completions_per_s_ratio",
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                "ratio; range of rounds",
                "transformers.generate, same batch, bfloat16",
                batch=batch,
                ours_per_s=round(len(some) / statistics.median(took_s["ours"]), 1),
                theirs_per_s=round(len(some) / statistics.median(took_s["theirs"]), 1),
                rounds=rounds,
            ),
            flush=True,
        )


def compare_energy(bench: Bench, texts: Sequence[str], at_least_s: float = 12.0) -> None:
    """Joules by the counter and by power readings over the same window, working and idle."""
    try:
        meter = NvmlMeter()
    except JettisonError as error:
        tell(name="gpu_energy", value=None, why=str(error))
        return
    engine = bench.engine(bench.device, "bfloat16", len(texts))
    engine.complete(asks(texts))
    for what in ("working", "idle"):
        with Power() as power, meter:
            started, n_answers = time.perf_counter(), 0
            while time.perf_counter() - started < at_least_s:
                if what == "working":
                    n_answers += len(engine.complete(asks(texts)))
                else:
                    time.sleep(0.05)
            took_s = time.perf_counter() - started
        counted_j, read_j = meter.cost.energy_j, power.joules
        tell(
            name="gpu_energy",
            what=what,
            tier=meter.cost.energy_tier,
            boundary=meter.boundary,
            joules_counter=counted_j,
            joules_from_power=round(read_j, 2),
            counter_over_power=None if counted_j is None else round(counted_j / read_j, 4),
            mean_w=None if counted_j is None else round(counted_j / took_s, 1),
            joules_a_completion=None if not n_answers or counted_j is None else counted_j / n_answers,
            seconds=round(took_s, 2),
        )
    engine.close()


class Power:
    """Power of the first board times time, read twenty times a second: how others do it."""

    def __enter__(self) -> "Power":
        import pynvml

        pynvml.nvmlInit()
        self._board = pynvml.nvmlDeviceGetHandleByIndex(0)
        self._read = pynvml.nvmlDeviceGetPowerUsage
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.joules = 0.0
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        before = time.perf_counter()
        while not self._ended.wait(0.05):
            now = time.perf_counter()
            self.joules += (now - before) * self._read(self._board) / 1000
            before = now


def compare_steps(bench: Bench, model: Path, names: Sequence[str], work: Path) -> None:
    """Each step where it would run by itself, then on the CPU: what it takes and what comes out."""
    task = write_task(work)
    data = task.development
    taken = take_in(
        str(model), labels=task.labels, out_of_scope=None, cache=work / "incumbent", seed=0, data=data
    )
    print(score_line("incumbent", taken, data.dev, work, bench.device, None), flush=True)
    turns = [(bench.device, name) for name in names]
    turns += [("cpu", name) for name in names if bench.device != "cpu" and name not in ON_GPU_ALONE]
    for device, name in turns:
        settings = {**taken.settings, "device": device, "threads": bench.threads}
        start = msgspec.structs.replace(taken, settings=settings)
        context = StepContext(
            data=data,
            incumbent=start,
            folder=work,
            workspace=work / f"shared-{device}",
            threads=bench.threads,
        )
        started = time.perf_counter()
        try:
            made = apply_step(
                step_from(STEPS[name]), start, context, cache=work / f"steps-{device}", name=name
            )
        except JettisonError as error:
            tell(name="gpu_step", step=name, device=device, error=str(error))
            continue
        took_s = time.perf_counter() - started
        print(score_line(name, made, data.dev, work, device, took_s), flush=True)


def score_line(
    name: str, candidate: Candidate, dev: Sequence[Any], work: Path, device: str, took_s: float | None
) -> str:
    """One step's line; judged on dev alone."""
    records = evaluate(candidate, dev, split="dev", folder=work / "records")
    return json.dumps(
        {
            "name": "gpu_step",
            "step": name,
            "device": device,
            "seconds": None if took_s is None else round(took_s, 1),
            "dev_accuracy": mean_score(records, "label"),
            "n_dev": len(records),
            "bytes": candidate.artifact_bytes,
        }
    )


def asks(texts: Sequence[str]) -> list[Ask]:
    return [Ask(text=text, max_tokens=N_TOKENS) for text in texts]


def greedy(tokenizer: Any) -> dict[str, Any]:
    return {"max_new_tokens": N_TOKENS, "do_sample": False, "pad_token_id": tokenizer.eos_token_id}


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
