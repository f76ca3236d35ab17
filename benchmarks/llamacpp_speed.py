"""How much of llama.cpp's speed reaches a user through our backend?

The same prompts (Banking77 queries), greedy, one thread: asked of `jettison.backends.llamacpp` and of
`xllamacpp` called directly with nothing but the prompt, all in this process, in turns of random order.
Texts go to `handle_completions`, chats to `handle_chat_completions`. Each has a server of its own, since
one would keep the keys and values of a prompt that another asks next; none keeps those of older prompts.
Like is held against like: the call without log-probabilities against our setting that leaves them away,
and the call with them against our default, which takes confidences from them. A figure without a goal
says what they cost: our default against the call without them. Answers must be the same, letter for letter.
Log-likelihoods of choices are compared with those in the list of the whole vocabulary, place by place,
with nothing kept from one call to the next.

    python benchmarks/llamacpp_speed.py --model FILE.gguf
"""

import argparse
import json
import random
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import xllamacpp

from beside import SHARED, Timing, figure, ratio
from jettison.backends.llamacpp import DEFAULT_CONTEXT, LlamaCppEngine
from jettison.candidate import Candidate, write_candidate
from jettison.files import link_or_copy
from jettison.language import Ask, Continuation
from jettison.task.prompt import Message

GOAL = 0.97
LOGPROBS: dict[str, dict[str, Any]] = {
    "text": {"n_probs": 20},
    "chat": {"logprobs": True, "top_logprobs": 20},
}
COMPARED = (
    ("tokens_per_s", "ours, no log-probabilities", "direct", GOAL),
    ("tokens_per_s_with_logprobs", "ours", "direct with log-probabilities", GOAL),
    ("tokens_per_s_what_logprobs_cost", "ours", "direct", None),
)
OPTIONS = (" card", " transfer", " top up", " exchange rate")


class Answer(NamedTuple):
    """One completion and what it took."""

    text: str
    n_tokens: int


class Direct:
    """The bindings as their users call them."""

    def __init__(self, path: Path, threads: int) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = DEFAULT_CONTEXT
        params.n_parallel = 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.verbosity = -1
        params.cache_ram_mib = 0
        self.server = xllamacpp.Server(params)

    def text(self, prompt: str, n: int, **more: Any) -> Answer:
        given = {"prompt": prompt, "max_tokens": n, "temperature": 0.0, **more}
        reply = self.server.handle_completions(given)
        return Answer(reply["choices"][0]["text"], reply["usage"]["completion_tokens"])

    def chat(self, prompt: str, n: int, **more: Any) -> Answer:
        messages = [{"role": "user", "content": prompt}]
        given = {"messages": messages, "max_tokens": n, "temperature": 0.0, **more}
        reply = self.server.handle_chat_completions(given)
        return Answer(reply["choices"][0]["message"]["content"], reply["usage"]["completion_tokens"])

    def ids(self, text: str) -> list[int]:
        body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
        request = urllib.request.Request(
            f"{self.server.listening_address}/tokenize", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return [int(token) for token in json.load(reply)["tokens"]]

    def logprob(self, context: str, text: str, n_vocabulary: int) -> float:
        """Of a continuation, from the whole list of the vocabulary at each of its places."""
        head, whole = self.ids(context), self.ids(context + text)
        if whole[: len(head)] != head:
            raise SystemExit(f"{text!r} joins the last token of {context!r}; choose other options.")
        total = 0.0
        for place in range(len(head), len(whole)):
            given = {
                "prompt": whole[:place],
                "max_tokens": 1,
                "temperature": 0.0,
                "n_probs": n_vocabulary,
                "cache_prompt": False,
            }
            reply = self.server.handle_completions(given)
            listed = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            total += next(one["logprob"] for one in listed if one["id"] == whole[place])
        return total


class Ours:
    """The same through the backend."""

    def __init__(self, path: Path, folder: Path, **settings: Any) -> None:
        self.engine = LlamaCppEngine(_candidate(path, folder, settings))

    def text(self, prompt: str, n: int) -> Answer:
        return self._answer(Ask(text=prompt, max_tokens=n))

    def chat(self, prompt: str, n: int) -> Answer:
        return self._answer(Ask(messages=(Message(role="user", content=prompt),), max_tokens=n))

    def _answer(self, ask: Ask) -> Answer:
        [made] = self.engine.complete([ask])
        if made.error is not None:
            raise SystemExit(f"the backend must answer, got: {made.error}")
        return Answer(made.text, made.cost.completion_tokens or 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a .gguf file")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=2, help="in a round, other ones in each")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--choices", type=int, default=8, help="contexts whose choices are compared")
    given = parser.parse_args()
    texts = read_texts(given.rounds * given.prompts + given.choices)
    with tempfile.TemporaryDirectory() as scratch:
        path = given.model.resolve()
        direct, told = Direct(path, given.threads), Direct(path, given.threads)
        ours = Ours(path, Path(scratch) / "ours", threads=given.threads)
        bare = Ours(path, Path(scratch) / "bare", threads=given.threads, logprobs=False)
        for kind in ("text", "chat"):
            subjects = {
                "ours": getattr(ours, kind),
                "ours, no log-probabilities": getattr(bare, kind),
                "direct": getattr(direct, kind),
                "direct with log-probabilities": partial(getattr(told, kind), **LOGPROBS[kind]),
            }
            compare_speed(kind, subjects, texts[given.choices :], given)
        compare_choices(ours, direct, texts[: given.choices])
        ours.engine.close()
        bare.engine.close()


def compare_speed(
    kind: str,
    subjects: Mapping[str, Callable[[str, int], Answer]],
    texts: Sequence[str],
    given: argparse.Namespace,
) -> None:
    """Tokens per second of each, a round's figures from the same prompts; and whether answers agree."""
    rng = random.Random(0)
    wall: dict[str, list[float]] = {name: [] for name in subjects}
    cpu: dict[str, list[float]] = {name: [] for name in subjects}
    answers: dict[str, list[Answer]] = {name: [] for name in subjects}
    for ask in subjects.values():
        ask("Warm up.", 8)
    for start in range(0, len(texts), given.prompts):
        asked = [prompt_of(text, kind) for text in texts[start : start + given.prompts]]
        for name in rng.sample(sorted(subjects), len(subjects)):
            wall_from, cpu_from = time.perf_counter(), time.process_time()
            found = [subjects[name](text, given.max_tokens) for text in asked]
            spent, worked = time.perf_counter() - wall_from, time.process_time() - cpu_from
            n = sum(answer.n_tokens for answer in found)
            wall[name].append(spent / n)
            cpu[name].append(worked / n)
            answers[name] += found
    n_same = sum(len(set(some)) == 1 for some in zip(*answers.values(), strict=True))
    for name, mine, theirs, goal in COMPARED:
        # Seconds a token of theirs over ours is tokens a second of ours over theirs.
        value, low, high = ratio(Timing("", wall[theirs]), Timing("", wall[mine]))
        of_cpu = ratio(Timing("", cpu[theirs]), Timing("", cpu[mine]))
        print(
            figure(
                f"llamacpp_{kind}_{name}",
                value,
                low,
                high,
                "of the direct call's tokens/s, wall",
                f"xllamacpp {xllamacpp.__version__}, {theirs}, {given.threads} thread",
                **({"goal": goal, "met": value >= goal} if goal else {}),
                cpu_ratio=[round(one, 4) for one in of_cpu],
                jettison_tokens_per_s=round(1 / statistics.median(wall[mine]), 2),
                direct_tokens_per_s=round(1 / statistics.median(wall[theirs]), 2),
                rounds=len(wall[mine]),
                n_tokens=sum(answer.n_tokens for answer in answers[mine]),
                same_answers=f"{n_same} of {len(texts)}",
                model=given.model.resolve().parent.name,
            ),
            flush=True,
        )
    if n_same < len(texts):
        raise SystemExit(f"greedy answers must be those of the direct call, got {n_same} of {len(texts)}.")


def compare_choices(ours: Ours, direct: Direct, texts: Sequence[str]) -> None:
    """Log-likelihoods of choices, asked all together of ours and one by one of the bindings."""
    asked = [
        Continuation(context=f"Customer: {text}\nTopic:", text=option)
        for text in texts
        for option in OPTIONS
    ]
    found = [one.logprob for one in ours.engine.likelihoods(asked)]
    size = ours.engine.n_vocabulary
    wanted = [direct.logprob(one.context, one.text, size) for one in asked]
    apart = sorted(abs(a - b) for a, b in zip(found, wanted, strict=True))
    n = len(OPTIONS)
    same = sum(_best(found[i : i + n]) == _best(wanted[i : i + n]) for i in range(0, len(asked), n))
    print(
        figure(
            "llamacpp_choose_logprob_apart",
            apart[-1],
            apart[0],
            apart[-1],
            "nats, largest; smallest to largest",
            "xllamacpp, the whole vocabulary's list, nothing kept between calls",
            median=float(f"{statistics.median(apart):.3g}"),
            n=len(apart),
            same_choice=f"{same} of {len(texts)}",
        ),
        flush=True,
    )
    if same < len(texts):
        raise SystemExit(f"choices must be those of the direct call, got {same} of {len(texts)}.")


def read_texts(n: int) -> list[str]:
    """Queries of Banking77's test split, the same ones in every run."""
    rows = map(json.loads, (SHARED / "data/banking77/banking77.jsonl").read_text().splitlines())
    return random.Random(0).sample([row["text"] for row in rows if row["split"] == "test"], n)


def prompt_of(text: str, kind: str) -> str:
    """A text to go on from, or what a user says."""
    asked = f"A customer of a bank writes: {text}"
    return f"{asked}\nThe bank answers:" if kind == "text" else f"{asked}\nWrite the bank's answer."


def _best(row: Sequence[float]) -> int:
    return max(range(len(row)), key=row.__getitem__)


def _candidate(path: Path, folder: Path, settings: dict[str, Any]) -> Candidate:
    folder.mkdir()
    link_or_copy(path, folder / "model.gguf")
    return write_candidate(folder, name="model", backend="llamacpp", labels=(), settings=settings)


if __name__ == "__main__":
    main()
