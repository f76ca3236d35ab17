"""Real answers to real texts for `drift.py`: two tasks, each with its reference and its new domain.

CLINC150 by the fine-tuned MiniLM, as jettison opens and calibrates it; sentiment by TF-IDF and logistic
regression, trained on movie reviews. Answers are kept as JSON lines in a folder and made once.
"""

import json
import random
from pathlib import Path

import msgspec

from beside import SHARED
from jettison.backends.open import open_model
from jettison.candidate import write_candidate
from jettison.evaluate.calibrate import calibrate
from jettison.files import link_or_copy_folder
from jettison.record import Record
from jettison.task import Development, Example

Answers = dict[str, list[Record]]
"""Part (`reference`, `clean`, or a new domain) → records, each with the text asked."""


def background_texts(task: str) -> list[str]:
    """What a release counts words on: the texts that the model was trained on."""
    if task == "clinc150":
        rows = _rows(SHARED / "data" / "clinc150" / "clinc150.jsonl")
        return [row["text"] for row in rows if row["split"] == "train" and row["label"] != "oos"]
    rows = _rows(SHARED / "data" / "sentiment_domains" / "sentiment_domains.jsonl")
    return [row["text"] for row in rows if row["split"] == "train"]


def clinc_answers(folder: Path) -> Answers:
    """In-scope queries as reference (val) and clean traffic (test); out of scope is the new domain."""
    kept = folder / "clinc150.jsonl"
    if kept.exists():
        return _read(kept)
    model = SHARED / "models" / "clinc-minilm"
    config = json.loads((model / "config.json").read_text())
    labels = tuple(config["id2label"][str(index)] for index in range(len(config["id2label"])))
    rows = _rows(SHARED / "data" / "clinc150" / "clinc150.jsonl")
    random.Random(0).shuffle(rows)
    val = [row for row in rows if row["split"] == "val"]
    half = len(val) // 2
    # The half that calibrates is not the reference: its confidences would look a little too good.
    fitted = tuple(
        Example(id=f"val-{n}", input=r["text"], expected=r["label"]) for n, r in enumerate(val[:half])
    )
    data = Development(
        name="clinc150", kind="classify", labels=labels, out_of_scope="oos",
        train=(), dev=fitted, unlabelled=(),
    )  # fmt: skip
    link_or_copy_folder(model, folder / "incumbent")
    candidate = write_candidate(
        folder / "incumbent", name="clinc-minilm", backend="hf", labels=labels,
        out_of_scope="oos", settings={"max_tokens": 64, "threads": 1},
    )  # fmt: skip
    calibrated = calibrate(candidate, data, cache=folder / "cache")
    parts = {
        "reference": [r["text"] for r in val[half:] if r["label"] != "oos"],
        "clean": [r["text"] for r in rows if r["split"] == "test" and r["label"] != "oos"],
        "out of scope": [r["text"] for r in rows if r["split"] == "test" and r["label"] == "oos"],
    }
    opened = open_model(calibrated)
    found: Answers = {}
    for part, texts in parts.items():
        outputs = opened.predict(texts)
        found[part] = [
            Record(
                candidate="clinc-minilm", example_id=f"{part}-{n}", split="live", output=o.label,
                confidence=o.confidence, in_scope=o.in_scope, flagged=o.flagged, input=text,
            )
            for n, (text, o) in enumerate(zip(texts, outputs, strict=True))
        ]  # fmt: skip
    opened.close()
    return _kept(kept, found)


def sentiment_answers(folder: Path) -> Answers:
    """Movie reviews as reference (dev) and clean traffic (test); the other three are new domains."""
    kept = folder / "sentiment.jsonl"
    if kept.exists():
        return _read(kept)
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = _rows(SHARED / "data" / "sentiment_domains" / "sentiment_domains.jsonl")
    random.Random(0).shuffle(rows)
    train = [row for row in rows if row["split"] == "train"]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10))
    model.fit([row["text"] for row in train], [row["label"] for row in train])
    parts = {
        "reference": [row["text"] for row in rows if row["split"] == "dev"],
        "clean": [row["text"] for row in rows if row["split"] == "test"],
    }
    for domain in ("tweets", "product_reviews", "news_editorials"):
        parts[domain] = [row["text"] for row in rows if row["domain"] == domain]
    found: Answers = {}
    for part, texts in parts.items():
        shares = model.predict_proba(texts)
        found[part] = [
            Record(
                candidate="tfidf", example_id=f"{part}-{n}", split="live", input=text,
                output=str(model.classes_[share.argmax()]), confidence=float(share.max()),
            )
            for n, (text, share) in enumerate(zip(texts, shares, strict=True))
        ]  # fmt: skip
    return _kept(kept, found)


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _kept(path: Path, found: Answers) -> Answers:
    lines = [
        msgspec.json.encode({"part": part, "record": record})
        for part, some in found.items()
        for record in some
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return found


def _read(path: Path) -> Answers:
    found: Answers = {}
    for line in path.read_bytes().splitlines():
        row = msgspec.json.decode(line)
        found.setdefault(row["part"], []).append(msgspec.convert(row["record"], Record))
    return found
