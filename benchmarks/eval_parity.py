"""Is a language model given the same answers here as by lm-eval and by `transformers.generate`?

Real questions (BIG-Bench Hard: ten tasks with a closed set of answers) of one causal checkpoint, in
float32 on a CPU:

- `choose`: one task file in lm-eval's own format, read by both. Every log-likelihood, with the question
  and without it, and the accuracy by all three rules: plain, by length, against the unconditional one.
  Of the values farthest apart, a pass in float64 says who is how far off.
- `generate`: greedy completions, batched here with prompts of mixed lengths, against `generate` of one
  prompt at a time: the same text, as many tokens, each of the same probability.

What lm-eval answered is kept in `--work`. It lives in an environment of its own on top of this one, which
is made if it is not there.

    python benchmarks/eval_parity.py --model FOLDER [--part choose generate] [--peer DIR] [--work DIR]
"""

import argparse
import hashlib
import json
import os
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))

from beside import SHARED
from eval_speed import LM_EVAL, peer_python, run

RULES = {"acc": "none", "acc_norm": "length", "acc_mutual_info": "unconditional"}
CLOSED = {
    "boolean_expressions": ("True", "False"),
    "sports_understanding": ("yes", "no"),
    "web_of_lies": ("Yes", "No"),
}
"""Tasks whose inputs do not list their answers."""
LEFT_OUT = ("object_counting", "causal_judgement")
"""The first has no closed set of answers, the second a page of text before each question."""
OPTION = re.compile(r"^(?:\((?P<letter>[A-Z])\)|-) (?P<text>.+)$", re.MULTILINE)
TOLERANCE = 1e-4
APART = 1e-3
"""Nats by which log-probabilities of one token never differ for rounding."""
METRIC = "{{metric: {}, aggregation: mean, higher_is_better: true}}"
YAML = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{metrics}]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a causal checkpoint")
    parser.add_argument("--part", nargs="*", choices=("choose", "generate"), default=("choose", "generate"))
    parser.add_argument("--each", type=int, default=21, help="questions of each task")
    parser.add_argument("--completions", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=24, help="longest completion")
    parser.add_argument("--work", type=Path, default=Path("bench-runs/eval_parity"))
    parser.add_argument("--peer", type=Path, help="environment of lm-eval; made if it is not there")
    given = parser.parse_args()
    work: Path = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    model = given.model.resolve()
    rows = questions(given.each)
    if "choose" in given.part:
        choose(model, rows, work, peer_python((given.peer or work / "lm-eval").resolve()))
    if "generate" in given.part:
        generate(model, rows, given.completions, given.tokens)


def questions(each: int, seed: int = 0) -> list[dict[str, Any]]:
    """Some of each task, drawn with a seed: the question, its answers as they are said, the right one."""
    rng = random.Random(seed)
    by_task: dict[str, list[dict[str, Any]]] = {}
    for line in (SHARED / "data/bbh_subset/bbh12.jsonl").open():
        row = json.loads(line)
        if row["task"] not in LEFT_OUT and (made := as_choices(row)) is not None:
            by_task.setdefault(row["task"], []).append(made)
    return [row for rows in by_task.values() for row in rng.sample(rows, min(each, len(rows)))]


def as_choices(row: dict[str, str]) -> dict[str, Any] | None:
    """A row with its options as answers; None where its target is none of them."""
    stem, _, listed = row["input"].partition("\nOptions:\n")
    options = [(one["letter"], one["text"].strip()) for one in OPTION.finditer(listed)]
    choices = [text for _, text in options] or list(CLOSED[row["task"]])
    said = {f"({letter})": text for letter, text in options if letter}
    target = said.get(row["target"], row["target"])
    if target not in choices or len(set(choices)) < len(choices):
        return None
    return {
        "id": f"{row['task']}-{row['id']}",
        "task": row["task"],
        "question": f"Q: {stem.strip()}\nA:",
        "choices": choices,
        "answer": choices.index(target),
    }


def choose(model: Path, rows: Sequence[dict[str, Any]], work: Path, python: Path) -> None:
    """The same task file by both: log-likelihoods, and accuracy by each rule."""
    (work / "tasks").mkdir(exist_ok=True)
    data = work / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {}
    for name, metrics in (("all", list(RULES)), *((rule, [rule]) for rule in RULES)):
        files[name] = work / f"tasks/bbh_{name}.yaml"
        listed = ", ".join(METRIC.format(metric) for metric in metrics)
        files[name].write_text(YAML.format(name=f"bbh_{name}", data=data, metrics=listed))
    theirs = by_lm_eval(model, data, work, python)
    engine = Remembering(model)
    base = {"against": LM_EVAL, "model": model.name, "n_questions": len(rows)}
    for rule in RULES:
        ours = dict(by_jettison(engine, files[rule], work))
        found = {**base, **compare(rule, theirs, ours)}
        print(json.dumps({"name": "choose_parity", "rule": rule, **found}), flush=True)
        if rule == "acc":
            print(json.dumps({"name": "choose_exact", **exact(model, theirs, ours)}), flush=True)


def by_lm_eval(model: Path, data: Path, work: Path, python: Path) -> dict[str, dict[str, Any]]:
    """Logged samples by question: all log-likelihoods, and whether each metric found it right."""
    name = hashlib.sha256(f"{model}\0{data.read_text()}".encode()).hexdigest()[:12]
    out = work / f"lm-eval-{name}"
    if not any(out.rglob("samples_bbh_all_*.jsonl")):
        out.mkdir(exist_ok=True)
        ask_lm_eval(model, out, work, python)
    [samples] = out.rglob("samples_bbh_all_*.jsonl")
    return {row["doc"]["id"]: row for row in map(json.loads, samples.read_text().splitlines())}


def ask_lm_eval(model: Path, out: Path, work: Path, python: Path) -> None:
    command = [str(python), "-m", "lm_eval", "run", "--model", "hf", "--tasks", "bbh_all"]
    command += ["--model_args", f"pretrained={model},dtype=float32", "--device", "cpu"]
    command += ["--include_path", str(work / "tasks"), "--batch_size", "16"]
    run([*command, "--output_path", str(out), "--log_samples"], out, HF_HOME=str(work / "hf-home"))


class Remembering:
    """Our engine; what it was asked for one rule, it is not asked again for another."""

    def __init__(self, model: Path) -> None:
        from jettison.backends.causal import CausalEngine
        from jettison.candidate import write_candidate

        self.model = model
        settings = {"threads": 1, "dtype": "float32"}
        self._engine = CausalEngine(
            write_candidate(model, name=model.name, backend="hf_causal", labels=(), settings=settings)
        )
        self._known: dict[Any, Any] = {}

    def likelihoods(self, asked: Sequence[Any]) -> list[Any]:
        new = [one for one in dict.fromkeys(asked) if one not in self._known]
        self._known.update(zip(new, self._engine.likelihoods(new), strict=True))
        return [self._known[one] for one in asked]

    def close(self) -> None:
        """Kept open for the next rule."""


def by_jettison(engine: Remembering, task_file: Path, work: Path) -> Iterator[tuple[str, Any]]:
    """Records by question, of the task file as it is."""
    import msgspec

    from jettison.backends.prompted import open_prompted
    from jettison.candidate import write_candidate
    from jettison.evaluate import evaluate
    from jettison.task import read_task

    task = read_task(task_file)
    prompt = msgspec.to_builtins(task.development.prompt)
    candidate = write_candidate(
        engine.model,
        name=f"{engine.model.name}-{task.name}",
        backend="hf_causal",
        labels=(),
        settings={"kind": task.kind, "prompt": prompt},
    )
    examples = task.read_test(purpose="parity with lm-eval").examples
    folder = Path(tempfile.mkdtemp(dir=work))
    records = evaluate(
        candidate,
        examples,
        split="test",
        scorers=task.scorers,
        folder=folder,
        keep_logits=True,
        opener=lambda one: open_prompted(engine, one),  # type: ignore[arg-type]
    )
    by_id = {example.id: example for example in examples}
    for record in records:
        yield str(by_id[record.example_id].id), record


def compare(rule: str, theirs: dict[str, dict[str, Any]], ours: dict[str, Any]) -> dict[str, Any]:
    """Largest difference of what choices are compared by, and the accuracy of both."""
    apart, same = [], 0
    for id_, record in ours.items():
        sample = theirs[id_]
        weighed = as_weighed(rule, sample)
        apart += [abs(a - float(b)) for a, b in zip(weighed, record.logits, strict=True)]
        same += sample[rule] == record.scores["label"]
    return {
        "max_abs_difference": float(f"{max(apart):.3g}"),
        "n_values": len(apart),
        "accuracy_lm_eval": statistics.mean(theirs[id_][rule] for id_ in ours),
        "accuracy_jettison": statistics.mean(one.scores["label"] for one in ours.values()),
        "n_same_verdict": same,
        "n_read": len(ours),
    }


def exact(
    model: Path, theirs: dict[str, dict[str, Any]], ours: dict[str, Any], n: int = 24
) -> dict[str, Any]:
    """How far both are from a pass in float64: where they are farthest apart, and at random places."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    both = [
        (id_, choice, float(theirs[id_]["resps"][i][0][0]), float(record.logits[i]))
        for id_, record in ours.items()
        for i, choice in enumerate(theirs[id_]["doc"]["choices"])
    ]
    both.sort(key=lambda one: -abs(one[2] - one[3]))
    n_over = sum(abs(a - b) > TOLERANCE for _, _, a, b in both)
    tokenizer = AutoTokenizer.from_pretrained(model)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64).eval()
    errors: list[tuple[float, float]] = []
    for id_, choice, their, our in (*both[:n], *random.Random(0).sample(both[n:], n)):
        context = theirs[id_]["doc"]["question"]
        n_context = len(tokenizer.encode(context, add_special_tokens=False))
        ids = torch.tensor(tokenizer.encode(f"{context} {choice}", add_special_tokens=False))
        with torch.inference_mode():
            logprobs = torch.log_softmax(plain(ids[None]).logits[0, :-1], -1)
        told = logprobs.gather(1, ids[1:, None])[n_context - 1 :, 0].sum().item()
        errors.append((abs(their - told), abs(our - told)))
    return {
        "n_apart_by_more_than_1e-4": n_over,
        "n_values": len(both),
        "n_exact": len(errors),
        "max_error_lm_eval": max(their for their, _ in errors),
        "max_error_jettison": max(our for _, our in errors),
    }


def as_weighed(rule: str, sample: dict[str, Any]) -> list[float]:
    """What lm-eval compares the choices of a question by, from its logged log-likelihoods."""
    said = [float(one[0][0]) for one in sample["resps"]]
    choices = sample["doc"]["choices"]
    given, alone = said[: len(choices)], said[len(choices) :]
    if rule == "acc_norm":
        return [one / len(choice) for one, choice in zip(given, choices, strict=True)]
    if rule == "acc_mutual_info":
        return [one - other for one, other in zip(given, alone, strict=True)]
    return given


def generate(model: Path, rows: Sequence[dict[str, Any]], n: int, n_tokens: int) -> None:
    """Greedy completions of ours, in batches, and of plain generate, one at a time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from jettison.backends.causal import CausalEngine
    from jettison.candidate import write_candidate
    from jettison.language import Ask

    # Cut off in the middle, so that there is something to go on with.
    words = [row["question"].split(" ") for row in random.Random(1).sample(list(rows), n)]
    texts = [" ".join(some[: -(-2 * len(some) // 3)]) for some in words]
    settings = {"threads": 1, "dtype": "float32", "batch_size": 16}
    engine = CausalEngine(
        write_candidate(model, name=model.name, backend="hf_causal", labels=(), settings=settings)
    )
    ours = engine.complete([Ask(text=text, max_tokens=n_tokens) for text in texts])
    engine.close()
    torch.set_num_threads(1)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    same, n_made, lengths, apart, gaps = 0, 0, [], 0.0, []
    for text, mine in zip(texts, ours, strict=True):
        asked = tokenizer(text, return_tensors="pt", return_token_type_ids=False)
        lengths.append(asked.input_ids.shape[1])
        with torch.inference_mode():
            made = plain.generate(
                **asked,
                max_new_tokens=n_tokens,
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id,
                return_dict_in_generate=True,
                output_logits=True,
            )
        ids = made.sequences[0, lengths[-1] :]
        logprobs = torch.log_softmax(torch.cat(made.logits).float(), -1)
        told = list(mine.token_logprobs or ())
        # Ours does not count the token that ends an answer.
        n_counted = len(ids) - (len(ids) > 1 and int(ids[-1]) == plain.generation_config.eos_token_id)
        taken = logprobs.gather(1, ids[:, None])[:n_counted, 0].tolist()
        is_same = len(told) == len(taken) and mine.text == tokenizer.decode(ids, skip_special_tokens=True)
        if is_same:
            apart = max(apart, *(abs(a - b) for a, b in zip(taken, told, strict=True)))
        else:
            found = zip(taken, told, strict=False)
            at = next((i for i, (a, b) in enumerate(found) if abs(a - b) > APART), len(taken) - 1)
            first, second = logprobs[at].topk(2).values.tolist()
            gaps.append(first - second)
            made_text = tokenizer.decode(ids, skip_special_tokens=True)
            print(
                f"{mine.text!r} {len(told)} here, {made_text!r} {len(taken)} by generate", file=sys.stderr
            )
        same, n_made = same + is_same, n_made + len(ids)
    facts = {"n_same": same, "n": len(texts), "n_tokens": n_made, "max_abs_logprob_difference": apart}
    facts |= {"nats_between_the_two_likeliest_where_they_part": gaps}
    facts |= {"prompt_tokens": [min(lengths), statistics.median(lengths), max(lengths)]}
    print(json.dumps({"name": "greedy_parity", "model": model.name, **facts}), flush=True)


if __name__ == "__main__":
    main()
