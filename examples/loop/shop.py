"""Makes what the loop starts from: a shop's labelled requests, a stream of travel requests that the shop
has never seen, and the large model that knows both (the one a team runs today).

    python shop.py FOLDER

It writes `data.jsonl` and `task.toml` (the shop alone: what the lean model is proved on), `wrong.toml`
(some of the same with every label shifted by one, as after a faulty export), `shop.jsonl` and
`travel.jsonl` (what is asked later, with the right label) and `incumbent/` (a linear model of both).
"""

import json
import random
import sys
import tomllib
from pathlib import Path

import numpy as np

from jettison.backends.linear import WEIGHTS
from jettison.candidate import write_candidate
from jettison.compress.linear import save_rows
from jettison.compress.linear_features import count_features
from jettison.compress.linear_fit import LinearSchedule, fit_linear

LABELS = ("cancel", "change", "refund", "status", "complaint", "invoice")
SIZES = {"train": 1000, "dev": 600, "test": 600}
N_TRAFFIC = 4000

TEXTS = tomllib.loads((Path(__file__).parent / "requests.toml").read_text(encoding="utf-8"))
Phrases = dict[str, list[str]]


def written(rng: random.Random, phrases: Phrases) -> tuple[str, str]:
    """One request as people type it, and its label."""
    label = rng.choice(LABELS)
    text = rng.choice(phrases[label])
    for slot, words in TEXTS["slots"].items():
        text = text.replace(f"{{{slot}}}", rng.choice(words))
    parts = [rng.choice(TEXTS["around"]["before"]), text, rng.choice(TEXTS["around"]["after"])]
    text = " ".join(part for part in parts if part)
    if rng.random() < 0.3:  # a letter is missed
        at = rng.randrange(len(text))
        text = text[:at] + text[at + 1 :]
    return text, label


def distinct(rng: random.Random, phrases: Phrases, n: int, known: set[str]) -> list[tuple[str, str]]:
    """So many requests, none of them seen before."""
    found: list[tuple[str, str]] = []
    while len(found) < n:
        text, label = written(rng, phrases)
        if text not in known:
            known.add(text)
            found.append((text, label))
    return found


def write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_task(folder: Path, name: str, rows: list[dict[str, str]]) -> None:
    write_lines(folder / f"{name}.jsonl", rows)
    (folder / ("task.toml" if name == "data" else f"{name}.toml")).write_text(
        f'format = 1\nname = "desk"\nkind = "classify"\n[data]\npath = "{name}.jsonl"\n'
        '[data.columns]\ninput = "text"\nexpected = "label"\nsplit = "split"\n'
    )


def write_incumbent(folder: Path, rows: list[tuple[str, str]]) -> None:
    """Train on right answers and write it as a candidate's folder, as any other model."""
    gold = np.array([LABELS.index(label) for _, label in rows])
    features = count_features(
        [text for text, _ in rows], len(rows), characters=(2, 6), min_count=1, max_features=500_000
    )
    schedule = LinearSchedule(
        epochs=12, patience=12, batch_size=128, learning_rate=0.5, temperature=1.0, gold_weight=3.0,
        dropout=0.1, seed=0, deadline=None,
    )  # fmt: skip
    held_out = features.transform([])
    fitted = fit_linear(
        features.matrix, 8.0 * np.eye(len(LABELS), dtype=np.float32)[gold], gold, dev=held_out,
        dev_gold=np.zeros(0, np.int64), schedule=schedule, progress=lambda said, share: None,
    )  # fmt: skip
    order = np.argsort(features.keys)
    folder.mkdir()
    arrays = {
        "keys": features.keys[order].astype(np.uint32),
        "rows": (fitted.weights * features.idf[:, None])[order].astype(np.float32),
        "mass": np.square(features.idf)[order].astype(np.float32),
        "bias": fitted.bias,
    }
    save_rows(arrays, "float32", folder / WEIGHTS)
    write_candidate(folder, name="large", backend="linear", labels=LABELS, settings={"characters": [2, 6]})


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng, known = random.Random(7), set[str]()
    splits = {split: distinct(rng, TEXTS["shop"], n, known) for split, n in SIZES.items()}
    rows = [
        {"text": text, "label": label, "split": split}
        for split, pairs in splits.items()
        for text, label in pairs
    ]
    shifted = dict(zip(LABELS, LABELS[1:] + LABELS[:1], strict=True))
    write_task(folder, "data", rows)
    write_task(folder, "wrong", [{**row, "label": shifted[row["label"]]} for row in rows[::2]])
    for name in ("shop", "travel"):
        pairs = distinct(rng, TEXTS[name], N_TRAFFIC, known)
        write_lines(folder / f"{name}.jsonl", [{"text": text, "label": label} for text, label in pairs])
    write_incumbent(
        folder / "incumbent",
        distinct(rng, TEXTS["shop"], 2000, known) + distinct(rng, TEXTS["travel"], 2000, known),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
