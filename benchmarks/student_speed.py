"""CPU time of one short text: the students against the incumbent in int8 and TF-IDF + linear SVM.

`python benchmarks/student_speed.py [FOLDER]` trains on CLINC150's train split, measures on its
val split at batch 1 on one thread, in interleaved blocks, and prints one JSON object a figure.
Nothing here reads the test split. FOLDER keeps what was made; without one it is made afresh
(about five minutes on two cores).
"""

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from beside import SHARED, Timing, figure, ratio
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.compress.export import Export
from jettison.compress.linear import DistillLinear
from jettison.compress.quantize import Quantize
from jettison.compress.static import DistillStatic
from jettison.compress.step import StepContext, apply_step
from jettison.files import link_or_copy_folder
from jettison.task import Development, Example

ROUNDS = 60
BLOCK = 16
MODEL = SHARED / "models" / "clinc-minilm"
DATA = SHARED / "data" / "clinc150" / "clinc150.jsonl"


def read_development() -> Development:
    """CLINC150's train and val splits, the labels in the model's order."""
    config = json.loads((MODEL / "config.json").read_text())
    labels = tuple(config["id2label"][str(index)] for index in range(len(config["id2label"])))
    rows = [json.loads(line) for line in DATA.read_text().splitlines()]

    def split(name: str) -> tuple[Example, ...]:
        kept = [row for row in rows if row["split"] == name]
        return tuple(
            Example(id=f"{name}-{number}", input=row["text"], expected=row["label"])
            for number, row in enumerate(kept)
        )

    return Development(
        name="clinc150", kind="classify", labels=labels, out_of_scope="oos",
        train=split("train"), dev=split("val"), unlabelled=(),
    )  # fmt: skip


def make_candidates(data: Development, folder: Path) -> dict[str, Candidate]:
    """The incumbent in int8 and its two students."""
    link_or_copy_folder(MODEL, folder / "incumbent")
    incumbent = write_candidate(
        folder / "incumbent", name="clinc-minilm", backend="hf", labels=data.labels,
        out_of_scope="oos", settings={"max_tokens": 64, "threads": 1},
    )  # fmt: skip
    context = StepContext(data=data, incumbent=incumbent, folder=folder, workspace=folder / "workspace")
    cache = folder / "cache"
    exported = apply_step(Export(), incumbent, context, cache=cache)
    return {
        "int8": apply_step(Quantize(), exported, context, cache=cache),
        "static": apply_step(DistillStatic(), incumbent, context, cache=cache),
        "linear": apply_step(DistillLinear(), incumbent, context, cache=cache),
    }


def fit_tfidf(data: Development) -> Any:
    """What scikit-learn's users build: TF-IDF of words and characters, a linear SVM."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True),
    )
    model = make_pipeline(features, LinearSVC())
    return model.fit([e.input for e in data.train], [e.expected for e in data.train])


def measure(subjects: dict[str, Callable[[str], Any]], texts: Sequence[str]) -> dict[str, Timing]:
    """CPU-seconds per text of each subject: blocks of the same texts, in random order each round."""
    rng = random.Random(0)
    for ask in subjects.values():
        for text in texts[:200]:
            ask(text)
    spent: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(ROUNDS):
        block = rng.sample(list(texts), BLOCK)
        for name in rng.sample(list(subjects), len(subjects)):
            # A pass that is not counted: each subject starts with its own data in the cache.
            for text in block[:4]:
                subjects[name](text)
            started = time.process_time()
            for text in block:
                subjects[name](text)
            spent[name].append((time.process_time() - started) / BLOCK)
    return {name: Timing(name, times) for name, times in spent.items()}


def report(timings: dict[str, Timing], accuracy: dict[str, float]) -> None:
    """One line a figure: microseconds with the middle 95 % of blocks, then ratios with intervals."""
    for name, timing in timings.items():
        ordered = sorted(timing.cpu_s)
        low, high = ordered[len(ordered) // 40], ordered[-1 - len(ordered) // 40]
        print(
            figure(
                f"cpu_us_per_text_{name}", timing.median_s * 1e6, low * 1e6, high * 1e6, "us", "",
                val_accuracy_in_scope=round(accuracy[name], 4),
            )
        )  # fmt: skip
    for student in ("static", "linear"):
        for peer in ("int8", "tfidf_svm"):
            value, low, high = ratio(timings[peer], timings[student])
            against = {
                "int8": "the incumbent in int8, ONNX Runtime",
                "tfidf_svm": "scikit-learn TF-IDF + LinearSVC",
            }
            print(figure(f"times_cheaper_{student}", value, low, high, "x", against[peer]))


def main(folder: Path) -> None:
    data = read_development()
    models = {name: open_model(candidate) for name, candidate in make_candidates(data, folder).items()}
    tfidf = fit_tfidf(data)
    in_scope = [example for example in data.dev if example.expected != data.out_of_scope]
    texts = [example.input for example in in_scope]
    answers = {name: [o.label for o in model.predict(texts)] for name, model in models.items()}
    answers["tfidf_svm"] = tfidf.predict(texts).tolist()
    accuracy = {
        name: sum(a == e.expected for a, e in zip(found, in_scope, strict=True)) / len(in_scope)
        for name, found in answers.items()
    }

    def asking(model: Any) -> Callable[[str], Any]:
        return lambda text: model.predict([text])

    subjects = {name: asking(model) for name, model in models.items()} | {"tfidf_svm": asking(tfidf)}
    report(measure(subjects, texts), accuracy)


if __name__ == "__main__":
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    if any(os.environ.get(name) != "1" for name in names):
        # Libraries read these when they are loaded, which is past.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(names, "1")})
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))
