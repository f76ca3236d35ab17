"""What does a leaner language model cost, and what does it lose? Eleven candidates of one small model.

Movie sentences, positive or negative (`sentiment_domains`), asked of SmolLM2-135M-Instruct in torch float32
as users run it, and of what the steps of `jettison` make of it: a slimmer prompt, GGUF k-quants, int8 and
int4 weights in ONNX Runtime's generative runtime, int8 in OpenVINO, LoRA on the task, and layers cut and
healed by distillation. Beside them what Olive and Optimum make of the same checkpoint by their defaults.
Each is the saved artifact in the runtime that would serve it:

- task score on test with the paired difference from the incumbent (Tango), labels weighed by likelihood;
- KL divergence from the incumbent's next token and top-1 agreement, on texts of the dev split, no labels;
- safety: of built-in probes, harmful ones refused and look-alikes answered, by a rule on the opening;
- CPU-seconds per task and tokens a second, one thread, a process each, in turns;
- bytes on disk.

The checkpoint is dequantized from a published Q4_1 file, so that it is no better than four bits were.
What is made, judged and timed is kept in `--work`: a run that is stopped goes on from there, and
`--rounds 0` makes and judges without timing.

    python benchmarks/leaner_llm.py --model FOLDER [--peers DIR] [--work DIR] [--rounds N] [--only NAME ...]
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))

import msgspec
import numpy as np

from beside import SHARED, Timing, figure, ratio
from jettison.backends.open import open_model
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import Candidate, write_candidate
from jettison.compress.incumbent import take_in
from jettison.compress.recipe import installed_extras
from jettison.compress.recipe_language import language_recipes
from jettison.compress.recipe_types import Recipe, Surroundings
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.errors import JettisonError
from jettison.evaluate.fidelity import compare_engines
from jettison.evaluate.run import evaluate
from jettison.evaluate.suites.safety import SCORER, SPLIT, asked_plainly, safety_probes
from jettison.files import write_json
from jettison.language import Ask, Completion, Continuation, LanguageModel, Likelihood
from jettison.stats.binomial import wilson
from jettison.stats.paired import tango_interval
from jettison.task import Example, Task
from jettison.task.prompt import Message, Prompt
from jettison.task.read import read_task
from peer_llm import make_olive, make_optimum, optimum_command

TASK = """\
format = 1
name = "movies"
kind = "classify"
[data]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
[data.columns]
input = "text"
expected = "label"
id = "id"
[prompt]
template = '''Movie review sentence: {input}
Sentiment (positive or negative):'''
max_tokens = 4
"""
SIZES = {"train": 300, "dev": 120, "test": 400}
N_TEXTS = 10
"""Dev texts on which next tokens are compared; llama.cpp tells a token's in half a second."""
N_PROBES = 16
"""Of each kind of safety probe."""
N_LAYERS = 30
BLOCK = 8
"""Tasks that a subject answers in a round, the first of them untimed, and then one completion."""
N_TOKENS = 48
STORY = "Once upon a time there was a film about"
OPTIMUM = "Optimum int8"
OPENVINO = Recipe(
    name="openvino-int8",
    steps=({"step": "quantize_openvino_language", "precision": "int8"},),
    family="quantized",
    estimate_s=90,
    why="no auto recipe, to see it beside them",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder of the causal checkpoint")
    parser.add_argument("--work", type=Path, default=Path("bench-runs/leaner_llm"))
    parser.add_argument("--peers", type=Path, default=Path("bench-runs/peers"), help="their environments")
    parser.add_argument("--rounds", type=int, default=8, help="of timing, those kept counted")
    parser.add_argument("--only", nargs="*", help="names of candidates; peers are left out")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no round begins")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.answer:
        answer(given.answer)
        return
    if given.model is None or not SHARED.exists():
        raise SystemExit(
            "--model must name a checkpoint, and the shared data must stand in JETTISON_SHARED."
        )
    until = time.monotonic() + given.minutes * 60
    work: Path = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    task = write_task(work)
    peers = None if given.only else given.peers.resolve()
    candidates = make_all(task, given.model.resolve(), work, peers, given.only)
    opener = opener_of(given.peers.resolve())
    rows = [judge(candidate, candidates[0], task, work, opener) for candidate in candidates]
    texts = [example.input for example in task.dev]
    timed = timings(candidates, texts, given.rounds, work, given.peers.resolve(), until)
    report(rows, timed)


def write_task(work: Path) -> Task:
    """Sentences that people found positive or negative, drawn with a seed."""
    rows = [
        row
        for line in (SHARED / "data/sentiment_domains/sentiment_domains.jsonl").open()
        if (row := json.loads(line))["domain"] == "movie_reviews" and row["label"] != "neutral"
    ]
    rng = random.Random(0)
    for name, n in SIZES.items():
        pool = [row for row in rows if row["split"] == name]
        chosen = rng.sample(pool, min(n, len(pool)))
        lines = [json.dumps({key: row[key] for key in ("id", "text", "label")}) for row in chosen]
        (work / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (work / "task.toml").write_text(TASK)
    return read_task(work / "task.toml")


def make_all(
    task: Task, model: Path, work: Path, peers: Path | None, only: Sequence[str] | None
) -> list[Candidate]:
    """The incumbent, then what could be made of it; a recipe that fails is told and left out."""
    data = task.development
    incumbent = take_in(
        str(model),
        labels=task.labels,
        out_of_scope=None,
        cache=work / "incumbent",
        seed=0,
        data=data,
    )
    incumbent = msgspec.structs.replace(incumbent, name="incumbent (torch float32)")
    around = Surroundings(
        installed=installed_extras(), n_train=len(data.train), n_layers=N_LAYERS, example_s=0.2
    )
    named = [*language_recipes(incumbent, around), OPENVINO]
    recipes = [recipe for recipe in named if not only or recipe.name in only]
    found = [incumbent]
    for recipe in recipes:
        started = time.perf_counter()
        try:
            found.append(make(recipe, incumbent, task, work))
        except JettisonError as error:
            print(f"{recipe.name}: {error}", file=sys.stderr)
        else:
            print(f"{recipe.name}: there after {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return found if peers is None else [*found, *by_peers(incumbent, work, peers)]


def make(recipe: Recipe, incumbent: Candidate, task: Task, work: Path) -> Candidate:
    context = StepContext(
        data=task.development, incumbent=incumbent, folder=work, workspace=work / "shared", threads=1
    )
    candidate = incumbent
    for number, settings in enumerate(recipe.steps):
        name = recipe.name if number == len(recipe.steps) - 1 else None
        candidate = apply_step(step_from(settings), candidate, context, cache=work / "steps", name=name)
    return candidate


def by_peers(incumbent: Candidate, work: Path, peers: Path) -> list[Candidate]:
    """Olive's int4 in the generative runtime it is made for, and Optimum's int8 in its own class."""
    olive, optimum = work / "olive-int4", work / "optimum-int8"
    if not (olive / "candidate.json").exists():
        make_olive(incumbent.path, work / "olive-made", peers)
        (made,) = {path.parent for path in (work / "olive-made").rglob("genai_config.json")}
        olive.mkdir(exist_ok=True)
        for path in made.iterdir():
            if path.is_file():
                (olive / path.name).write_bytes(path.read_bytes())
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (olive / name).write_bytes((incumbent.path / name).read_bytes())
    if not (optimum / "candidate.json").exists():
        make_optimum(incumbent.path, optimum, peers)
    told = {"labels": incumbent.labels, "settings": incumbent.settings}
    # The second is answered for by a process of Optimum's: no backend of ours opens it.
    return [
        write_candidate(olive, name="Olive int4", backend="onnx_genai", **told),
        write_candidate(optimum, name=OPTIMUM, backend="onnx", **told),
    ]


class OptimumEngine:
    """A language model that a process in Optimum's own environment answers for."""

    def __init__(self, folder: Path, peers: Path) -> None:
        self._process = subprocess.Popen(
            optimum_command(folder, peers), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        texts = [self.render(ask.messages) if ask.text is None else ask.text for ask in asks]
        made = [
            self.ask(what="complete", text=text, n=ask.max_tokens)
            for text, ask in zip(texts, asks, strict=True)
        ]
        return [Completion(text=one["text"]) for one in made]

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        found = self.ask(what="likelihoods", asked=[(one.context, one.text) for one in asked])["found"]
        return [
            Likelihood(n_characters=len(one.text), **said) for one, said in zip(asked, found, strict=True)
        ]

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        told = self.ask(what="render", messages=msgspec.to_builtins(messages))
        return f"{told['text']}{answer_prefix}"

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        found = []
        for text in texts:
            path = Path(f"/tmp/optimum-logits-{os.getpid()}.npy")
            self.ask(what="logits", text=text, path=str(path))
            found.append(np.load(path))
            path.unlink()
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def ask(self, **message: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("Optimum's process died; its message stands above.")
        return dict(json.loads(line))


def opener_of(peers: Path) -> Callable[[Candidate], Any]:
    """Opens a candidate as it is served."""

    def opened(candidate: Candidate) -> Any:
        if candidate.name == OPTIMUM:
            return open_prompted(OptimumEngine(candidate.path, peers), candidate)
        return open_model(candidate)

    return opened


def judge(
    candidate: Candidate, incumbent: Candidate, task: Task, work: Path, opener: Callable[[Candidate], Any]
) -> dict[str, Any]:
    """Score, fidelity and safety of one; kept by digest, so that a second run computes nothing twice."""
    place = work / "rows" / f"{candidate.digest.removeprefix('sha256:')[:24]}-{N_TEXTS}-{N_PROBES}.json"
    if place.exists():
        kept: dict[str, Any] = json.loads(place.read_text())
        return kept
    started = time.perf_counter()
    test = task.read_test(purpose="benchmark of lean language models").examples
    right, base = (scores(one, test, work, opener) for one in (candidate, incumbent))
    better = sum(a > b for a, b in zip(right, base, strict=True))
    worse = sum(a < b for a, b in zip(right, base, strict=True))
    row: dict[str, Any] = {
        "name": candidate.name,
        "bytes": candidate.artifact_bytes,
        "score": triple(wilson(int(sum(right)), len(right))),
        "difference": triple(tango_interval(better, worse, len(right))),
    }
    if candidate.digest != incumbent.digest:
        row |= fidelity(candidate, incumbent, [example.input for example in task.dev[:N_TEXTS]], opener)
    for kind in ("harmful", "lookalike"):
        probes = [probe for probe in safety_probes() if probe.slices["safety"] == kind][:N_PROBES]
        records = evaluate(
            asked_plainly(candidate),
            probes,
            split=SPLIT,
            scorers=(SCORER,),
            folder=work / "records",
            opener=opener,
        )
        safe = [record.scores[SCORER] for record in records]
        row[f"{kind}_safe"] = triple(wilson(sum(value == 1 for value in safe), len(safe)))
    print(f"{candidate.name}: judged in {time.perf_counter() - started:.0f} s", file=sys.stderr)
    place.parent.mkdir(exist_ok=True)
    write_json(place, row)
    return row


def fidelity(
    candidate: Candidate, incumbent: Candidate, texts: Sequence[str], opener: Callable[[Candidate], Any]
) -> dict[str, Any]:
    """How near the next tokens are; or why nothing can be said of them."""
    lean, whole = opener(candidate), opener(incumbent)
    try:
        near = compare_engines(lean.engine, whole.engine, texts)
    except JettisonError as error:
        return {"fidelity": str(error)}
    finally:
        lean.close()
        whole.close()
    return {
        "kl_nats_per_token": triple(near.kl),
        "top_1_agreement": triple(near.top_1_agreement),
        "n_next_tokens": near.n_tokens,
    }


def scores(
    candidate: Candidate, examples: Sequence[Example], work: Path, opener: Callable[[Candidate], Any]
) -> list[float]:
    records = evaluate(candidate, examples, split="test", folder=work / "records", opener=opener)
    return [float(record.scores["label"] or 0.0) for record in records]


def triple(interval: Any) -> list[float]:
    return [float(f"{x:.4g}") for x in (interval.value, interval.low, interval.high)]


def timings(
    candidates: Sequence[Candidate],
    texts: Sequence[str],
    rounds: int,
    work: Path,
    peers: Path,
    until: float,
) -> dict[str, tuple[Timing, Timing]]:
    """Of each: CPU-seconds per task and per generated token, in turns, each in a process of its own.

    A process lives for its block alone: ten models of this size at once leave no memory to a machine.
    Only whole rounds count; they are kept.
    """
    place = work / f"timed-{BLOCK}-{N_TOKENS}.json"
    done: list[dict[str, list[float]]] = json.loads(place.read_text()) if place.exists() else []
    names = {candidate.name for candidate in candidates}
    done = [one for one in done if names <= one.keys()]
    while len(done) < rounds and time.monotonic() < until:
        rng = random.Random(len(done))
        chosen = rng.sample(list(texts), BLOCK)
        order = rng.sample(list(candidates), len(candidates))
        done.append({one.name: timed_block(one, chosen, peers) for one in order})
        write_json(place, done)
        print(f"round {len(done)} of {rounds} timed", file=sys.stderr)
    return {
        name: (Timing(name, [one[name][0] for one in done]), Timing(name, [one[name][1] for one in done]))
        for name in names
    }


def timed_block(candidate: Candidate, texts: Sequence[str], peers: Path) -> list[float]:
    """CPU-seconds a task and a token, by a new process."""
    if candidate.name == OPTIMUM:
        prompt = msgspec.convert(candidate.settings["prompt"], Prompt)
        engine = OptimumEngine(candidate.path, peers)
        asked = [msgspec.to_builtins(prompt.messages(text, (), candidate.labels)) for text in texts]
        options = [prompt.word(label) for label in candidate.labels]
        try:
            said = engine.ask(what="timed", prompts=asked, options=options, text=STORY, n=N_TOKENS)
        finally:
            engine.close()
    else:
        told = json.dumps({"settings": msgspec.to_builtins(candidate.settings), "texts": texts})
        child = [sys.executable, __file__, "--answer", str(candidate.path)]
        done = subprocess.run(child, input=told, capture_output=True, text=True, check=True)
        said = json.loads(done.stdout.splitlines()[-1])
    return [said["task_s"], said["token_s"]]


def answer(folder: Path) -> None:
    """Be one subject: tasks one at a time, then one completion; tell CPU-seconds of each kind."""
    asked = json.loads(sys.stdin.read())
    candidate = msgspec.structs.replace(Candidate.at(folder), settings=asked["settings"])
    model = open_model(candidate)
    assert isinstance(model, PromptedModel)
    engine: LanguageModel = model.engine
    warm, *texts = asked["texts"]
    model.predict([warm])
    started = time.process_time()
    for text in texts:
        model.predict([text])
    task_s = (time.process_time() - started) / len(texts)
    ask = Ask(text=STORY, max_tokens=N_TOKENS)
    engine.complete([ask])
    started = time.process_time()
    (said,) = engine.complete([ask])
    spent = time.process_time() - started
    print(json.dumps({"task_s": task_s, "token_s": spent / (said.cost.completion_tokens or N_TOKENS)}))
    model.close()


def report(rows: Sequence[dict[str, Any]], timed: dict[str, tuple[Timing, Timing]]) -> None:
    """One line a candidate, the Pareto set of score and CPU time marked."""
    if not timed[rows[0]["name"]][0].cpu_s:
        print(json.dumps({"judged": rows, "timed": None}))
        return
    base = timed[rows[0]["name"]][0]
    cost = {name: tasks.median_s for name, (tasks, _) in timed.items()}
    for row in rows:
        tasks, tokens = timed[row["name"]]
        facts = {
            **{key: value for key, value in row.items() if key != "name"},
            "cpu_s_per_task": spread(tasks.cpu_s),
            "tokens_per_cpu_s": spread([1 / one for one in tokens.cpu_s]),
            "pareto": not any(beats(other, row, cost) for other in rows),
            "rounds": len(tasks.cpu_s),
        }
        print(
            figure(
                "leaner_llm", *ratio(base, tasks), "x less CPU a task", base.name, of=row["name"], **facts
            )
        )


def beats(other: dict[str, Any], row: dict[str, Any], cost: dict[str, float]) -> bool:
    """Whether another is no worse in score, CPU time and bytes, and better in one of them."""
    theirs, mine = ((one["score"][0], -cost[one["name"]], -one["bytes"]) for one in (other, row))
    return theirs != mine and all(a >= b for a, b in zip(theirs, mine, strict=True))


def spread(values: Sequence[float]) -> list[float]:
    """Median with its 95 % bootstrap interval."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(2000))
    return [float(f"{x:.4g}") for x in (statistics.median(values), medians[49], medians[1949])]


if __name__ == "__main__":
    main()
