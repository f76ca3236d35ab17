"""What does evaluating a language model cost beside the model, and how much is computed twice?

A thousand multiple-choice questions with worked examples before each (Banking77: which of four
intents), asked of one causal checkpoint by `jettison.evaluate.evaluate` and by lm-eval's `hf`: whole
processes, start-up included, one thread, in turns. Then the same with a model that does nothing, by
`jettison` and by lm-eval's `dummy`: what remains is the harness, and the difference between a thousand
questions and one is what it costs per question (ours is asked ten thousand, since a thousand vanish in
the noise of starting). Log-likelihoods and accuracy must agree, and greedy completions must be those of
`transformers.generate`, token for token.

lm-eval lives in an environment of its own on top of this one; it is made if it is not there.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from beside import SHARED, figure

LM_EVAL = "lm-eval[hf]==0.4.13"
N_SHOTS, N_CHOICES = 8, 4
TIMES_NULL = 10
"""Questions asked of nothing by ours, as a multiple of those by lm-eval."""
CHILD_ENV = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
TASK_YAML = """task: questions
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


class Ran(NamedTuple):
    """One process: what it took, and where it wrote."""

    cpu_s: float
    wall_s: float
    out: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a causal checkpoint; without it, a small random GPT-2")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16, help="of lm-eval")
    parser.add_argument("--work", type=Path, default=Path("bench-runs/eval_speed"))
    parser.add_argument("--peer", type=Path, help="environment of lm-eval; made if it is not there")
    parser.add_argument("--completions", type=int, default=64, help="compared with those of generate")
    parser.add_argument("--skip-null", action="store_true")
    parser.add_argument("--child", nargs=4, metavar=("KIND", "MODEL", "N", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    work = given.work.resolve()
    if given.child:
        kind, model, n, out = given.child
        return answer(kind, Path(model), work / "questions.jsonl", int(n), Path(out))
    work.mkdir(parents=True, exist_ok=True)
    python = peer_python((given.peer or work / "lm-eval").resolve())
    texts = write_questions(work / "questions.jsonl", given.n)
    (work / "tasks").mkdir(exist_ok=True)
    (work / "tasks/questions.yaml").write_text(TASK_YAML.format(data=work / "questions.jsonl"))
    model = given.model.resolve() if given.model else write_small_model(work / "small", texts)
    about(model, work, given.n)
    bench = Bench(work, python, model, given.batch_size)
    compare_model(bench, given.n, given.rounds)
    compare_generation(model, texts, given.completions)
    if not given.skip_null:
        compare_null(bench, given.n, given.rounds)
    return None


class Bench(NamedTuple):
    """Where everything is."""

    work: Path
    peer: Path
    model: Path
    batch_size: int

    def ours(self, kind: str, n: int) -> Ran:
        out = Path(tempfile.mkdtemp(dir=self.work))
        child = ["--work", str(self.work), "--child", kind, str(self.model), str(n), str(out)]
        return run([sys.executable, __file__, *child], out)

    def theirs(self, kind: str, n: int) -> Ran:
        out = Path(tempfile.mkdtemp(dir=self.work))
        command = [str(self.peer), "-m", "lm_eval", "run", "--model", kind, "--tasks", "questions"]
        command += ["--include_path", str(self.work / "tasks"), "--limit", str(n)]
        command += ["--batch_size", str(self.batch_size), "--output_path", str(out), "--log_samples"]
        if kind == "hf":
            command += ["--model_args", f"pretrained={self.model},dtype=float32", "--device", "cpu"]
        return run(command, out, HF_HOME=str(self.work / "hf-home"))


def compare_model(bench: Bench, n: int, rounds: int) -> None:
    """The same checkpoint by both, in turns: CPU time of whole processes, and whether they agree."""
    whole = [(bench.theirs("hf", n), bench.ours("model", n)) for _ in range(rounds)]
    one = [(bench.theirs("hf", 1), bench.ours("model", 1)) for _ in range(min(rounds, 3))]
    theirs, ours = (statistics.median(pair[i].cpu_s for pair in whole) for i in (0, 1))
    their_start, our_start = (statistics.median(pair[i].cpu_s for pair in one) for i in (0, 1))
    ratios = [a.cpu_s / b.cpu_s for a, b in whole]
    print(
        figure(
            "choose_vs_lm_eval",
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            "x less CPU time, whole process; range of rounds",
            f"lm-eval 0.4.13 hf, batch {bench.batch_size}",
            lm_eval_s=round(theirs, 2),
            jettison_s=round(ours, 2),
            lm_eval_one_question_s=round(their_start, 2),
            jettison_one_question_s=round(our_start, 2),
            without_start_up=round((theirs - their_start) / (ours - our_start), 2),
            rounds=rounds,
        )
    )
    print(json.dumps({"name": "parity", **agreement(whole[-1][0].out, whole[-1][1].out)}), flush=True)


def compare_null(bench: Bench, n: int, rounds: int) -> None:
    """Milliseconds per question of each harness: a thousand less one, of a model that does nothing."""
    for name, run_null, many in (
        ("jettison", lambda k: bench.ours("null", k), TIMES_NULL * n),
        ("lm-eval dummy", lambda k: bench.theirs("dummy", k), n),
    ):
        pairs = [(run_null(many).cpu_s, run_null(1).cpu_s) for _ in range(rounds)]
        each = [1000 * (all_of - one) / (many - 1) for all_of, one in pairs]
        print(
            figure(
                "overhead_ms_per_example",
                statistics.median(each),
                min(each),
                max(each),
                "ms of CPU per example; range of rounds",
                name,
                n_examples=many,
                start_up_s=round(statistics.median(one for _, one in pairs), 2),
                rounds=rounds,
            ),
            flush=True,
        )


def compare_generation(model: Path, texts: Sequence[str], n: int, n_tokens: int = 24) -> None:
    """Greedy completions of ours, batched with what they share computed once, and of plain generate."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from jettison.backends.causal import CausalEngine
    from jettison.candidate import write_candidate
    from jettison.language import Ask

    texts = texts[:n]
    candidate = write_candidate(
        model, name="model", backend="hf_causal", labels=(), settings={"threads": 1}
    )
    engine = CausalEngine(candidate)
    ours = engine.complete([Ask(text=text, max_tokens=n_tokens) for text in texts])
    engine.close()
    torch.set_num_threads(1)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    same, n_made = 0, 0
    for text, mine in zip(texts, ours, strict=True):
        asked = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            made = plain.generate(
                **asked, max_new_tokens=n_tokens, do_sample=False, pad_token_id=tokenizer.eos_token_id
            )[0, asked.input_ids.shape[1] :]
        # Ours gives its answer as text; a special token at the end is no part of it.
        same += mine.text == tokenizer.decode(made, skip_special_tokens=True)
        n_made += len(made)
    print(
        json.dumps({"name": "greedy_generations", "n_same": same, "n": len(texts), "n_tokens": n_made}),
        flush=True,
    )


def agreement(theirs: Path, ours: Path) -> dict[str, Any]:
    """Largest difference of a log-likelihood, and both accuracies."""
    from jettison.record import mean_score, read_records

    [samples] = theirs.rglob("samples_questions_*.jsonl")
    rows = {row["doc"]["id"]: row for row in map(json.loads, samples.read_text().splitlines())}
    records = read_records(next(ours.glob("test-*.parquet")))
    apart = [
        abs(float(resp[0][0]) - logit)
        for record in records
        for resp, logit in zip(rows[record.example_id]["resps"], record.logits, strict=True)
    ]
    return {
        "max_abs_logprob_difference": float(f"{max(apart):.3g}"),
        "n_logprobs": len(apart),
        "accuracy_lm_eval": statistics.mean(row["acc"] for row in rows.values()),
        "accuracy_jettison": mean_score(records, "label"),
        "n_same_answer": sum(rows[r.example_id]["acc"] == r.scores["label"] for r in records),
        "n_examples": len(records),
    }


def answer(kind: str, model: Path, data: Path, n: int, out: Path) -> None:
    """What the measured process of ours does: read the questions, evaluate, leave records."""
    from jettison import registry
    from jettison.candidate import write_candidate
    from jettison.evaluate import evaluate
    from jettison.task import Example

    rows = [json.loads(line) for line in data.read_text().splitlines()[:n]]
    examples = [
        Example(
            id=f"{row['id']}-{again}" if again else row["id"],
            input=row["question"],
            expected=row["choices"][row["answer"]],
            choices=tuple(row["choices"]),
        )
        for again in range(-(-n // len(rows)))
        for row in rows
    ][:n]
    settings = {"kind": "choose", "prompt": {"chat": False}, "threads": 1}
    folder = model
    if kind == "null":
        registry.register("backends", "null", open_null)
        folder = out / "null"
        folder.mkdir()
    backend = "null" if kind == "null" else "hf_causal"
    candidate = write_candidate(folder, name=kind, backend=backend, labels=(), settings=settings)
    evaluate(candidate, examples, split="test", folder=out, keep_logits=True)


def open_null(candidate: Any) -> Any:
    """An engine that finds everything equally likely, behind the prompt as any other."""
    from jettison.backends.prompted import open_prompted
    from jettison.language import Likelihood

    class Null:
        def likelihoods(self, asked: Sequence[Any]) -> list[Likelihood]:
            return [
                Likelihood(logprob=-1.0, n_tokens=1, n_characters=len(one.text), greedy=False)
                for one in asked
            ]

        def close(self) -> None:
            pass

    return open_prompted(Null(), candidate)  # type: ignore[arg-type]


def write_questions(path: Path, n: int, seed: int = 0) -> list[str]:
    """Banking77 as multiple choice: worked examples, a message, four intents, one of them right."""
    rng = random.Random(seed)
    rows = [json.loads(line) for line in (SHARED / "data/banking77/banking77.jsonl").open()]
    labels = sorted({row["label"] for row in rows})
    train = [row for row in rows if row["split"] == "train"]
    tests = [row for row in rows if row["split"] == "test"]
    shots = "\n\n".join(
        ask(row, labels, rng)[0] + f" {said(row['label'])}" for row in rng.sample(train, N_SHOTS)
    )
    head = "Each customer's message to a bank is about one of four subjects. Name the right one.\n\n"
    made = []
    for number, row in enumerate(rng.sample(tests, n)):
        question, choices = ask(row, labels, rng)
        answer_at = choices.index(said(row["label"]))
        text = f"{head}{shots}\n\n{question}"
        made.append({"id": f"q{number}", "question": text, "choices": choices, "answer": answer_at})
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return [row["question"] for row in made]


def ask(row: dict[str, str], labels: Sequence[str], rng: random.Random) -> tuple[str, list[str]]:
    others = rng.sample([label for label in labels if label != row["label"]], N_CHOICES - 1)
    choices = [said(label) for label in (*others, row["label"])]
    rng.shuffle(choices)
    return f"Message: {row['text']}\nSubjects: {'; '.join(choices)}\nRight subject:", choices


def said(label: str) -> str:
    return label.replace("_", " ").rstrip("?").lower()


def write_small_model(folder: Path, texts: Sequence[str]) -> Path:
    """A GPT-2 of four layers with random weights, and a byte-level tokenizer trained on the questions."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    if (folder / "config.json").is_file():
        return folder
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        texts[:200], vocab_size=2000, special_tokens=["<|endoftext|>"], show_progress=False
    )
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, bos_token=end, eos_token=end, pad_token=end
    ).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 1024, "initializer_range": 0.2}
    config = GPT2Config(vocab_size=tokenizer.get_vocab_size(), bos_token_id=0, eos_token_id=0, **size)
    GPT2LMHeadModel(config).eval().save_pretrained(folder)
    return folder


def peer_python(folder: Path) -> Path:
    """Python of an environment with lm-eval, on top of this one: torch is not installed twice."""
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        inside = next((folder / "lib").glob("python3*/site-packages"))
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (inside / "below.pth").write_text("".join(f"{path}\n" for path in ours))
        subprocess.run([str(python), "-m", "pip", "install", "-q", LM_EVAL], check=True)
    return python


def run(command: list[str], out: Path, **env: str) -> Ran:
    """CPU time, user and system, of a process and what it starts."""
    with (out / "output.log").open("w") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **CHILD_ENV, **env})
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu_s = used.ru_utime + used.ru_stime
    print(f"{cpu_s:.2f} s CPU, {wall_s:.2f} s: {' '.join(command)[-240:]}", file=sys.stderr, flush=True)
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{(out / 'output.log').read_text()[-3000:]}")
    return Ran(cpu_s, wall_s, out)


def about(model: Path, work: Path, n: int) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [json.loads(line) for line in (work / "questions.jsonl").open()]
    lengths = [len(tokenizer(row["question"]).input_ids) for row in rows[:50]]
    facts = {"model": model.name, "n_examples": n, "n_choices": N_CHOICES, "n_shots": N_SHOTS}
    size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    load = [round(one, 2) for one in os.getloadavg()]
    print(
        json.dumps(
            {
                **facts,
                "median_context_tokens": statistics.median(lengths),
                "weights_bytes": size,
                "load": load,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
