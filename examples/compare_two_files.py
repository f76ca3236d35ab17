"""The gate alone: two files of predictions, paired, at a margin of two points; the core is enough."""

import json
import random
import tempfile
from pathlib import Path

from jettison import NotWorse
from jettison.decide.compare import compare_files

rng = random.Random(0)
folder = Path(tempfile.mkdtemp())
for name, accuracy in (("today", 0.95), ("lean", 0.948)):
    rng.seed(1)
    with (folder / f"{name}.jsonl").open("w") as file:
        for i in range(2000):
            right = rng.random() < accuracy
            row = {"id": str(i), "expected": "yes", "output": "yes" if right else "no"}
            file.write(json.dumps(row) + "\n")

found = compare_files(folder / "today.jsonl", folder / "lean.jsonl", gate=NotWorse(margin=0.02))
for result in found.results:
    print(result.verdict, result.reason)
