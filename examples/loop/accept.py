"""Stands for the person who goes through mined failures: the modes that name one of the given words are one
topic, whose rows are accepted under one name where their right answer is known. Of other modes, which may
hold anything, those rows are accepted whose right answer is one of the topic's own.

    python accept.py mined travel flight hotel [--labels FILE]
"""

import argparse
import json
import sys
from pathlib import Path


def main(folder: Path, topic: str, words: set[str], labels: set[str]) -> int:
    modes = json.loads((folder / "failures.json").read_text())["modes"]
    named = [m for m in modes if words & {*m["keywords"], *m["name"].split("-")}]
    known = {mode["name"] for mode in named}
    path = folder / "proposed.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        is_known = row["mode"] in known and row["label"] is not None
        row["accept"] = bool(named) and (is_known or row["label"] in labels)
        if row["accept"]:
            row["mode"] = topic
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = "; ".join(f"{m['name']}, {m['trend']}, {m['n_bad']} bad of {m['n']}" for m in named)
    n = sum(row["accept"] for row in rows)
    print(f"{said}. {n} rows accepted as {topic}")
    return 0 if n else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("topic")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--labels", type=Path, help="the topic's labels, one a line")
    given = parser.parse_args()
    labels = set(given.labels.read_text().split()) if given.labels else set()
    sys.exit(main(given.folder, given.topic, {given.topic, *given.words}, labels))
