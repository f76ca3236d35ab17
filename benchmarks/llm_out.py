"""A language model behind an address sorts texts: what does the model that takes its place cost?

Movie sentences or tweets, positive or negative (`sentiment_domains`). Qwen2.5-Coder-0.5B-Instruct, four
bits, one thread, is served over HTTP by llama.cpp in a process of its own, and is the incumbent. It
answers the team's traffic once; an encoder, a static and a linear student learn from its answers and from
the labels that people gave to some of the traffic, and `jettison`'s loop judges them against it by
people's labels.

Cost is CPU-seconds per task at one request at a time, in turns, so many texts a round: for the incumbent
of the server's whole process (what we spend on asking is not counted), for the release of its own process
and of the server's, should it still ask there. No answer is kept while this is measured. Needs
`pip install 'jettison[gguf,demo]'`.

    python benchmarks/llm_out.py --model qwen2.5-0.5b-q4.gguf [--domain NAME] [--work DIR] [--traffic N]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

from beside import SHARED, Timing, figure, ratio
from jettison.backends.endpoint import endpoint_candidate
from jettison.backends.open import open_model
from jettison.backends.released import open_release_model
from jettison.candidate import Candidate
from jettison.cli.progress import Screen
from jettison.decision import Decision
from jettison.loop.config import read_config
from jettison.loop.demo import fetch_model
from jettison.loop.run import run
from jettison.record import read_records
from jettison.release.read import open_release
from jettison.task.read import read_task

TASK = """\
format = 1
name = "{domain}"
kind = "classify"
[data]
train = "train.jsonl"
dev = "dev.jsonl"
test = "test.jsonl"
unlabelled = "traffic.jsonl"
drop_leaked = {drop_leaked}
[data.columns]
input = "text"
expected = "label"
id = "id"
[prompt]
system = "{system}"
template = '''Is this {noun} positive or negative? Answer with one word.

{{input}}'''
max_tokens = 4
"""
SETTINGS = """\
format = 1
task = "task.toml"
incumbent = "{url}"
student = "model"
output = "run"
training_threads = 1
seed = 0
skip = {skip}
[endpoint]
model = "qwen2.5-0.5b"
revision = "{revision}"
concurrency = 1
[[gates]]
type = "not_worse"
margin = 0.02
slices = ["all"]
"""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of a task, how its prompt speaks of them, and how many go where."""

    domain: str
    """As `sentiment_domains` calls it."""
    system: str
    noun: str
    sizes: dict[str, int]
    drop_leaked: bool
    """Leave out of dev and train what nearly equals a text of test."""


DOMAINS = {
    "movies": Texts(
        domain="movie_reviews",
        system="You judge sentences of movie reviews.",
        noun="sentence from a movie review",
        sizes={"test": 1000, "dev": 500, "traffic": 2500},
        drop_leaked=False,
    ),
    # Few sentences to learn from: a task on which the language model, which has read much, is better.
    "tweets": Texts(
        domain="tweets",
        system="You judge tweets.",
        noun="tweet",
        sizes={"test": 2000, "dev": 800, "traffic": 600},
        drop_leaked=True,
    ),
}
PORT = 18765
"""Always the same, so that a second run finds what the first one made."""
BLOCK = 12
"""Requests to the language model in a round."""
LOOK = "a look at a finished release"
N_RELEASE = 100
"""Requests to the release in a round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="GGUF file of the language model")
    parser.add_argument("--work", type=Path, default=Path("bench-runs/llm_out"))
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--domain", choices=sorted(DOMAINS), default="movies")
    parser.add_argument("--traffic", type=int, default=2500, help="texts to learn from, at most")
    parser.add_argument("--labelled", type=int, default=2500, help="of the traffic, labelled by people too")
    parser.add_argument(
        "--fresh-test",
        type=int,
        metavar="N",
        help="judge movies by N sentences that no run without this reads, and choose by all of dev",
    )
    parser.add_argument("--skip", action="append", default=[], help="a recipe that is not tried")
    parser.add_argument(
        "--look", action="store_true", help="who a finished run's release passes on, and who needs it"
    )
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.model)
        return
    if given.answer:
        answer(given.answer)
        return
    if given.look:
        print(json.dumps(who_needs_it(given.work)))
        return
    if not SHARED.exists():
        raise SystemExit(f"the shared data must stand in {SHARED}; set JETTISON_SHARED.")
    given.work.mkdir(parents=True, exist_ok=True)
    os.environ["JETTISON_ANSWERS"] = str(given.work / "answers")  # a second run asks for nothing twice
    with Served(given.model) as served:
        bench(served, given)


def serve(model: Path) -> None:
    """Be the server: tell the address, and go on until standard input ends."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = 2048
    params.n_parallel = 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = -1
    params.cache_ram_mib = 0
    params.port = PORT
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


class Served:
    """The language model in a process of its own."""

    def __init__(self, model: Path) -> None:
        self.model = model

    def __enter__(self) -> "Served":
        command = [sys.executable, __file__, "--model", str(self.model), "--serve"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.url = f"{self.process.stdout.readline().strip()}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def cpu_s(self) -> float:
        """CPU-seconds of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def write_task(work: Path, domain: str, n_traffic: int, n_labelled: int, n_fresh: int | None) -> None:
    """Sentences that people found positive or negative, drawn with a seed; traffic without its labels."""
    chosen = DOMAINS[domain]
    drawn = draw(chosen, n_fresh)
    traffic = drawn.pop("traffic")[:n_traffic]
    write_lines(work / "train.jsonl", traffic[:n_labelled], ("id", "text", "label"))
    write_lines(work / "traffic.jsonl", traffic[n_labelled:], ("id", "text"))
    for name, rows in drawn.items():
        write_lines(work / f"{name}.jsonl", rows, ("id", "text", "label"))
    settings = TASK.format(
        domain=domain,
        system=chosen.system,
        noun=chosen.noun,
        drop_leaked=str(chosen.drop_leaked).lower(),
    )
    if n_labelled >= len(traffic):
        settings = settings.replace('unlabelled = "traffic.jsonl"\n', "")
    (work / "task.toml").write_text(settings)
    if not (work / "model" / "config.json").exists():
        fetch_model(work / "model")


def draw(texts: Texts, n_fresh: int | None) -> dict[str, list[dict[str, Any]]]:
    """Rows of test, dev and traffic: from the data's own splits, or from all rows where it has none."""
    rows = [
        row
        for line in (SHARED / "data/sentiment_domains/sentiment_domains.jsonl").open()
        if (row := json.loads(line))["domain"] == texts.domain and row["label"] != "neutral"
    ]
    rng = random.Random(0)
    pools = {
        name: [row for row in rows if row["split"] == split]
        for name, split in (("test", "test"), ("dev", "dev"), ("traffic", "train"))
    }
    if not pools["test"]:
        shuffled = iter(rng.sample(rows, len(rows)))
        return {name: list(islice(shuffled, n)) for name, n in texts.sizes.items()}
    drawn = {name: rng.sample(pools[name], min(n, len(pools[name]))) for name, n in texts.sizes.items()}
    if n_fresh is not None:
        used = {row["id"] for chosen in drawn.values() for row in chosen}
        left = [row for row in (*pools["test"], *pools["traffic"]) if row["id"] not in used]
        drawn["test"], drawn["dev"] = rng.sample(left, n_fresh), pools["dev"]
    return drawn


def write_lines(path: Path, rows: list[dict[str, Any]], kept: tuple[str, ...]) -> None:
    path.write_text("".join(json.dumps({key: row[key] for key in kept}) + "\n" for row in rows))


def bench(served: Served, given: argparse.Namespace) -> None:
    """Run the loop, time the release beside the language model, print the figures."""
    work, rounds, n_labelled = given.work, given.rounds, given.labelled
    write_task(work, given.domain, given.traffic, n_labelled, given.fresh_test)
    revision = f"{served.model.stat().st_size} bytes"  # answers belong to the file, whatever the port
    settings = SETTINGS.format(url=served.url, revision=revision, skip=json.dumps(given.skip))
    (work / "jettison.toml").write_text(settings)
    before, started = served.cpu_s(), time.perf_counter()
    with Screen() as screen:
        outcome = run(read_config(work / "jettison.toml"), watcher=screen)
    decision = outcome.decision
    asked_s = served.cpu_s() - before
    print(f"loop: {time.perf_counter() - started:.0f} s, the server {asked_s:.0f} s CPU", file=sys.stderr)
    for report in decision.candidates:
        print(f"{report.role} {report.name}: {report.verdict}", file=sys.stderr)
    facts = facts_of(decision)
    if outcome.release is None:
        empty = {"value": None, "low": None, "high": None, "unit": "ratio", "against": "no release"}
        print(json.dumps({"name": "llm_out_ratio", **empty, "labelled": n_labelled, **facts}))
        return
    test = read_task(work / "task.toml").read_test(purpose="timing of a finished release")
    texts = [example.input for example in test.examples]
    large, lean = timings(served, outcome.release, texts, work, rounds)
    for one in (large, lean):
        print(f"{one.name}: {1e3 * one.median_s:.3f} ms CPU per task", file=sys.stderr)
    print(figure("llm_out_ratio", *ratio(large, lean), "ratio", large.name, labelled=n_labelled, **facts))


def timings(
    served: Served, release: Path, texts: list[str], work: Path, rounds: int
) -> tuple[Timing, Timing]:
    """CPU-seconds per task of the language model's server and of the release, round by round."""
    rng = random.Random(0)
    large: list[float] = []
    lean: list[float] = []
    with tempfile.TemporaryDirectory() as place:
        asked = incumbent_at(Path(place), served, work)
        model = open_model(asked)
        for number in range(rounds):
            before = served.cpu_s()
            for text in rng.sample(texts, BLOCK):
                model.predict([text])
            large.append((served.cpu_s() - before) / BLOCK)
            lean.append(release_s(served, release, rng.sample(texts, N_RELEASE), Path(place) / str(number)))
        model.close()
    return Timing("Qwen2.5-Coder-0.5B q4_k_m by llama.cpp", large), Timing("release", lean)


def release_s(served: Served, release: Path, texts: list[str], answers: Path) -> float:
    """CPU-seconds per task of the release, in a process of its own, and of the server while it answers."""
    child = [sys.executable, __file__, "--model", str(served.model), "--answer", str(release)]
    before = served.cpu_s()
    done = subprocess.run(
        child,
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "JETTISON_ANSWERS": str(answers)},
    )
    return (float(done.stdout) + served.cpu_s() - before) / len(texts)


def answer(release: Path) -> None:
    """Be the release's process: answer texts one at a time, tell the CPU-seconds of all of them."""
    model = open_release_model(release)
    texts = json.loads(sys.stdin.read())
    started = time.process_time()
    for text in texts:
        model.predict([text])
    print(time.process_time() - started)
    model.close()


def incumbent_at(folder: Path, served: Served, work: Path) -> Candidate:
    """The incumbent asked as in the run, with no answer kept."""
    config = read_config(work / "jettison.toml")
    data = read_task(config.task).development
    from jettison.compress.incumbent_language import language_settings

    return endpoint_candidate(
        folder,
        url=served.url,
        model=config.endpoint["model"],
        labels=data.labels,
        settings=language_settings(data),
        keep_answers=False,
        concurrency=1,
    )


def who_needs_it(work: Path) -> dict[str, Any]:
    """Whom a released cascade asks the language model about, and how few it could have been on test.

    Seen from behind: texts that reach the last lean arm are passed on one by one, the least sure first,
    until as many answers are right as the release has right. Reads test's labels; nothing may be chosen by
    it.
    """
    release = open_release(work / "run" / "release")
    (digest,) = release.candidates.values()
    records = [r for name in release.evidence for r in read_records(release.path / "evidence" / name)]
    ours = {r.example_id: r for r in records if r.candidate == digest}
    theirs = {r.example_id: r for r in records if r.candidate != digest}
    depth = max(str(r.arm).count("/") for r in ours.values())
    texts = {e.id: e.input for e in read_task(work / "task.toml").read_test(purpose=LOOK).examples}
    reaching = [i for i, r in ours.items() if str(r.arm).count("/") == depth]
    last = open_model(
        Candidate.at(release.path.joinpath(*release.candidates, *["fallback"] * depth, "lean"))
    )
    answers = last.predict([texts[i] for i in reaching])
    last.close()
    asked = np.array([str(ours[i].arm).endswith("fallback") for i in reaching])
    lean = np.array([float(a.label == ours[i].expected) for a, i in zip(answers, reaching, strict=True)])
    model = np.array([theirs[i].scores["label"] for i in reaching], float)
    released = np.array([r.scores["label"] for r in ours.values()], float)
    alone = released.sum() - (model - lean)[asked].sum()
    by_doubt = np.argsort([answer.confidence for answer in answers])
    with_so_many = alone + np.cumsum((model - lean)[by_doubt])
    return {
        "n": len(ours),
        "arms": dict(Counter(str(r.arm) for r in ours.values())),
        "right": {
            "release": released.mean(),
            "language model": np.mean([r.scores["label"] for r in theirs.values()]),
            "lean arms alone": alone / len(ours),
            "language model, of those passed on": model[asked].mean(),
            "last lean arm, of those passed on": lean[asked].mean(),
        },
        "passed_on": int(asked.sum()),
        "would_have_done": 1 + int(np.argmax(with_so_many >= released.sum())),
    }


def facts_of(decision: Decision) -> dict[str, Any]:
    """Verdict, qualities and difference that go with the ratio."""
    chosen = next((r for r in decision.candidates if r.name == decision.chosen), None)
    facts: dict[str, Any] = {
        "verdict": decision.verdict.value,
        "release": decision.chosen,
        "verdicts": dict(Counter(str(r.verdict) for r in decision.candidates if r.role != "incumbent")),
    }
    for gate in () if chosen is None else chosen.gates:
        if gate.difference is not None:
            d = gate.difference
            facts[f"{gate.metric} {gate.slice}"] = [round(100 * x, 2) for x in (d.value, d.low, d.high)]
    return facts


if __name__ == "__main__":
    main()
