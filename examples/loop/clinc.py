"""Makes what the loop starts from out of real data: CLINC150, whose banking and credit card intents are a
desk's own and whose travel intents are new to it, and MiniLM fine-tuned on all of them as the large model.

    python clinc.py FOLDER SHARED

It writes the same files as `shop.py`. MiniLM learned from CLINC150's train split, so all that is measured
or asked comes from the other two: the task's dev and test are taken from them, and the traffic is the rest,
texts that come more than once. Of each travel intent the desk has three examples, which is how it knows its
name. What is asked before the next release (`shop.jsonl`, `travel.jsonl`) and after it (`...-later.jsonl`)
are different texts.
"""

import json
import random
import shutil
import sys
from collections import defaultdict
from pathlib import Path

from safetensors.numpy import load_file, save_file
from shop import write_lines, write_task

from jettison.candidate import write_candidate

KNOWN = ("banking", "credit_cards")
NEW = "travel"
N_NEW_EXAMPLES = 3
N_TRAIN, N_DEV, N_TEST, N_LATER = 60, 10, 18, 4
"""Texts of a known intent in the task, and in what is asked last."""

Rows = list[dict[str, str]]


def write_incumbent(folder: Path, model: Path, labels: list[str]) -> None:
    """MiniLM that answers one of the desk's intents: of its 151 classes the others are left out."""
    config = json.loads((model / "config.json").read_text())
    known = {name: int(place) for place, name in config["id2label"].items()}
    kept = [known[label] for label in labels]
    tensors = load_file(model / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][kept]
    config["id2label"] = dict(enumerate(labels))
    config["label2id"] = {label: place for place, label in enumerate(labels)}
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model / name, folder / name)
    write_candidate(folder, name="large", backend="hf", labels=tuple(labels), settings={"max_length": 64})


def main(folder: Path, shared: Path) -> None:
    rng, by_intent = random.Random(7), defaultdict[tuple[str, str, str], list[str]](list)
    for line in (shared / "data" / "clinc150" / "clinc150.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["domain"] in (*KNOWN, NEW):
            by_intent[row["domain"], row["label"], row["split"]].append(row["text"])
    task, asked = Rows(), defaultdict[str, Rows](list)
    for (domain, label, split), texts in by_intent.items():
        rng.shuffle(texts)
        labelled = [{"text": text, "label": label} for text in texts]
        if domain == NEW and split == "train":
            task += [{**row, "split": "train"} for row in labelled[:N_NEW_EXAMPLES]]
        elif domain == NEW:
            n_later = 2 * N_LATER if split == "test" else 0
            asked["travel-later"] += labelled[:n_later]
            asked["travel"] += labelled[n_later:]
        elif split == "train":
            task += [{**row, "split": "train"} for row in labelled[:N_TRAIN]]
        elif split == "val":
            task += [{**row, "split": "dev"} for row in labelled[:N_DEV]]
            asked["shop"] += labelled[N_DEV:]
        else:
            task += [{**row, "split": "test"} for row in labelled[:N_TEST]]
            asked["shop-later"] += labelled[N_TEST : N_TEST + N_LATER]
            asked["shop"] += labelled[N_TEST + N_LATER :]
    (folder / "travel-labels.txt").write_text("\n".join(sorted({row["label"] for row in asked[NEW]})))
    labels = sorted({row["label"] for row in task})
    shifted = dict(zip(labels, labels[1:] + labels[:1], strict=True))
    write_task(folder, "data", task)
    write_task(folder, "wrong", [{**row, "label": shifted[row["label"]]} for row in task[::3]])
    for name, rows in asked.items():
        write_lines(folder / f"{name}.jsonl", rows)
    write_incumbent(folder / "incumbent", shared / "models" / "clinc-minilm", labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).resolve())
