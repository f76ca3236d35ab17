"""What does the embedder that takes an encoder's place in a search cost, and what is lost?

The incumbent is all-MiniLM-L6-v2; `jettison run` makes, judges and releases what takes its place, by
nDCG@10 and recall@10. Two searches:

- `xquad`: English questions (1,190) each look for the paragraph of 240 that they were asked about; test is
  the questions about 36 of the 48 articles, an article's questions drawn together;
- `banking77`: customers' messages look for their subject among the 77 of a bank's help; test is the data's
  own test split (3,080), dev are 1,000 messages of its train split.

Beside the release and the other candidates, the same encoder as its users search with it:
sentence-transformers in torch float32 and in int8 ONNX, and the static table that model2vec makes of it,
each in an environment of its own.

Cost is CPU-seconds a query: one at a time, one thread, a process each, in turns: tokens, vector, one
product with the corpus, the first 100 in order. What has been made stays in `--work`.

    python benchmarks/embed.py [--data banking77] [--rehearse] [--work DIR] [--peers DIR] [--rounds N]
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

from beside import SHARED, Timing, figure, ratio
from jettison.backends.open import open_model
from jettison.backends.released import open_release_model
from jettison.candidate import Candidate
from jettison.decision import NotWorse
from jettison.loop.config import RunConfig
from jettison.loop.demo import fetch_model
from jettison.loop.run import run
from jettison.release import open_release
from jettison.stats.group_jackknife import jackknife_mean, number_groups
from jettison.task.read import read_task
from peer_embed import KINDS, peer_command

N_PARAGRAPHS = 5
"""Of each article: XQuAD gives no titles, but lists paragraphs by article."""
N_DEV = {"xquad": 12, "banking77": 1000}
"""Articles whose questions are dev, those of the others being test; messages of train that are dev."""
MARGIN = {"xquad": 0.02, "banking77": 0.01}
"""Of both figures; set before test was read."""
K = 10
TASK = """\
format = 1
name = "search"
kind = "embed"
scorers = ["ndcg", "recall_at_k"]
scorer.ndcg.k = 10
[data]
dev = "dev.jsonl"
test = "test.jsonl"
corpus = "corpus.jsonl"
[data.columns]
input = "query"
expected = "passage"
id = "id"
"""
INCUMBENT = "sentence-transformers, torch"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=sorted(MARGIN), default="xquad")
    parser.add_argument("--work", type=Path, help="bench-runs/embed-DATA unless named")
    parser.add_argument("--peers", type=Path, default=Path("bench-runs/peers"), help="their environments")
    parser.add_argument("--rehearse", action="store_true", help="decide on half of dev; test is not read")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--block", type=int, default=24, help="queries in a round")
    parser.add_argument("--answer", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.answer:
        answer(*given.answer)
        return
    if not SHARED.exists():
        raise SystemExit(f"the shared data must stand in {SHARED}; set JETTISON_SHARED.")
    work: Path = (given.work or Path(f"bench-runs/embed-{given.data}")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "model" / "model.safetensors").exists():
        fetch_model(work / "model")
    write_task(given.data, work, rehearse=given.rehearse)
    subjects = decided(work, MARGIN[given.data])
    for name in KINDS:
        subjects[name] = peer_command(name, work / "model", work / name, given.peers.resolve())
    compare(subjects, work, rounds=given.rounds, block=given.block)


def decided(work: Path, margin: float) -> dict[str, list[str]]:
    """Run the loop to its release; the commands that start it and the other candidates."""
    outcome = run(
        RunConfig(
            task=str(work / "task.toml"),
            incumbent=str(work / "model"),
            output=str(work / "run"),
            gates=tuple(NotWorse(scorer=name, margin=margin) for name in ("ndcg", "recall_at_k")),
            usd_per_hour=0.1,
            # For the choice of a nominee alone; what is told below is timed anew.
            cost_s=1.0,
            cost_openings=3,
        )
    )
    decision = outcome.decision
    print(json.dumps({"verdict": decision.verdict.value, "chosen": decision.chosen}), flush=True)
    for one in decision.candidates:
        verdicts = [f"{gate.verdict.value}: {gate.reason}" for gate in one.gates]
        print(json.dumps({"candidate": one.name, "role": one.role, "gates": verdicts}), flush=True)
    child = [sys.executable, __file__, "--answer"]
    found = {}
    if outcome.release is not None:
        release = open_release(outcome.release)
        found[f"release ({decision.chosen})"] = [*child, "release", str(release.path)]
    for file in sorted((work / "run").glob("**/candidate.json")):
        made = Candidate.at(file.parent)
        if "release" not in file.parts and made.name in (
            "incumbent",
            "onnx-float32",
            "onnx-int8",
            "static",
        ):
            found[f"jettison, {made.name}"] = [*child, "candidate", str(file.parent)]
    return found


def write_task(data: str, work: Path, *, rehearse: bool) -> None:
    """Corpus, dev and test; in a rehearsal dev is half of itself, and test the other half."""
    corpus, dev, test = (xquad if data == "xquad" else banking77)(random.Random(1))
    if rehearse:
        groups = list(dict.fromkeys(row["group"] for row in dev))
        first = set(groups[: len(groups) // 2])
        dev, test = ([row for row in dev if (row["group"] in first) is half] for half in (True, False))
    for name, rows in (("corpus", corpus), ("dev", dev), ("test", test)):
        (work / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    is_grouped = len({row["group"] for row in test}) < len(test)
    (work / "task.toml").write_text(TASK + ('group = "group"\n' if is_grouped else ""))


Rows = list[dict[str, str]]


def xquad(rng: random.Random) -> tuple[Rows, Rows, Rows]:
    """Paragraphs, and questions about some articles and about the others."""
    rows = [json.loads(line) for line in (SHARED / "data/xquad/xquad_en.jsonl").open()]
    contexts = list(dict.fromkeys(row["context"] for row in rows))
    numbers = {text: i for i, text in enumerate(contexts)}
    corpus = [{"id": f"p{i}", "text": text} for text, i in numbers.items()]
    asked = [
        {
            "id": row["id"],
            "query": row["question"],
            "passage": f"p{numbers[row['context']]}",
            "group": f"a{numbers[row['context']] // N_PARAGRAPHS}",
        }
        for row in rows
    ]
    dev = set(rng.sample(sorted({row["group"] for row in asked}), N_DEV["xquad"]))
    return (
        corpus,
        [row for row in asked if row["group"] in dev],
        [row for row in asked if row["group"] not in dev],
    )


def banking77(rng: random.Random) -> tuple[Rows, Rows, Rows]:
    """Subjects by their names, messages of train and messages of test; each is a group of its own."""
    rows = [json.loads(line) for line in (SHARED / "data/banking77/banking77.jsonl").open()]
    labels = sorted({row["label"] for row in rows})
    corpus = [{"id": label, "text": label.replace("_", " ")} for label in labels]
    made: dict[str, Rows] = {"train": [], "test": []}
    for i, row in enumerate(rows):
        if row["split"] in made:
            one = {"id": f"m{i}", "query": row["text"], "passage": row["label"], "group": f"m{i}"}
            made[row["split"]].append(one)
    return corpus, rng.sample(made["train"], N_DEV["banking77"]), made["test"]


def answer(kind: str, folder: str) -> None:
    """Be one of ours: what a peer is asked, answered by the release or a candidate."""
    if kind == "release":
        model, size = open_release_model(folder), None
        release = open_release(folder)
        size = sum(Candidate.at(f.parent).artifact_bytes for f in release.path.rglob("candidate.json"))
    else:
        candidate = Candidate.at(folder)
        model, size = open_model(candidate), candidate.artifact_bytes
    for line in sys.stdin:
        asked = json.loads(line)
        if "corpus" in asked:  # its vectors are in the candidate
            print(json.dumps({"bytes": size}), flush=True)
            continue
        started = time.process_time()
        found = [json.loads(model.predict([query])[0].label) for query in asked["queries"]]
        spent = time.process_time() - started
        print(json.dumps({"found": found, "cpu_s": spent / len(found)}), flush=True)


def compare(subjects: dict[str, list[str]], work: Path, *, rounds: int, block: int) -> None:
    """What each finds among the test questions, and its CPU time in turns."""
    task = read_task(work / "task.toml")
    corpus = {passage.id: passage.text for passage in task.development.corpus}
    test = task.read_test(purpose="benchmark of embedders").examples
    processes = {name: _started(command) for name, command in subjects.items()}
    try:
        sizes = {name: _ask(process, {"corpus": corpus})["bytes"] for name, process in processes.items()}
        places: dict[str, np.ndarray] = {}
        for name, process in processes.items():
            found = _ask(process, {"queries": [one.input for one in test]})["found"]
            places[name] = np.array(
                [place(ids, one.expected) for ids, one in zip(found, test, strict=True)]
            )
        spent: dict[str, list[float]] = {name: [] for name in processes}
        rng = random.Random(0)
        for _ in range(rounds):
            queries = [one.input for one in rng.sample(list(test), block)]
            for name in rng.sample(sorted(processes), len(processes)):
                spent[name].append(_ask(processes[name], {"queries": queries})["cpu_s"])
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    groups = [one.group or one.id for one in test]
    gains = {name: np.where(at < K, 1 / np.log2(at + 2), 0.0) for name, at in places.items()}
    for name, mine in gains.items():
        times = Timing(name, spent[name])
        print(
            figure(
                "embed",
                *ratio(Timing(INCUMBENT, spent[INCUMBENT]), times),
                "x less CPU a query",
                INCUMBENT,
                of=name,
                ndcg_at_10=_interval(mine, groups),
                ndcg_difference=_interval(mine - gains[INCUMBENT], groups),
                recall_at_10=_interval((places[name] < K) * 1.0, groups),
                cpu_ms=round(times.median_s * 1000, 3),
                bytes=sizes[name],
                rounds=rounds,
            ),
            flush=True,
        )


def place(ids: Sequence[str], wanted: str | None) -> float:
    """Place of the one right paragraph, from 0; infinity where it was not found."""
    return float(ids.index(wanted)) if wanted in ids else math.inf


def _interval(values: np.ndarray, groups: Sequence[str]) -> list[float]:
    """Mean with its interval, queries of one group left out together."""
    found = jackknife_mean(values, np.ones(len(values)), number_groups(groups, len(values)))
    return [round(one, 5) for one in (found.value, found.low, found.high)]


def _started(command: Sequence[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(process: "subprocess.Popen[str]", message: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a measured process died; its message stands above.")
    return dict(json.loads(line))


if __name__ == "__main__":
    main()
