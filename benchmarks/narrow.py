"""How many answers change when neurons and heads leave: pruned alone, and refitted in closed form.

    python benchmarks/narrow.py [--width 0.5] [--texts 1033] [--tokens 20000] [--folder F]

narrows CLINC150's incumbent and compares it with the incumbent on texts of the val split, evenly
spaced, which neither reads. Nothing here reads the test split. Layers are refitted on half of the
tokens that the step takes by default. F keeps what was made. Prints one JSON object a figure; about
ten minutes of one core.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from beside import figure
from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.compress.incumbent import take_in
from jettison.compress.narrow import Narrow
from jettison.compress.prune import Prune
from jettison.compress.step import Step, StepContext, apply_step
from jettison.stats.binomial import clopper_pearson
from student_speed import MODEL, read_development


def labels_of(candidate: Candidate, texts: Sequence[str]) -> list[str | None]:
    model = open_model(candidate)
    try:
        return [output.label for output in model.predict(texts)]
    finally:
        model.close()


def main(folder: Path, widths: list[float], n_texts: int, n_tokens: int) -> None:
    data = read_development()
    incumbent = take_in(
        str(MODEL), labels=data.labels, out_of_scope="oos", cache=folder / "cache", seed=0, data=data
    )
    context = StepContext(data=data, incumbent=incumbent, folder=folder, workspace=folder / "workspace")
    spaced = np.linspace(0, len(data.dev) - 1, min(n_texts, len(data.dev))).astype(int)
    texts = [data.dev[place].input for place in spaced]
    wanted = labels_of(incumbent, texts)
    for width in widths:
        steps: dict[str, Step] = {
            "pruned": Prune(width=width),
            "narrowed": Narrow(width=width, n_tokens=n_tokens),
            "uneven": Narrow(width=width, n_tokens=n_tokens, uneven=True),
            "half_heads": Narrow(width=width, n_tokens=n_tokens, uneven=True, heads=0.5),
        }
        for name, step in steps.items():
            started = time.process_time()
            made = apply_step(step, incumbent, context, cache=folder / "cache")
            took = time.process_time() - started
            changed = sum(a != b for a, b in zip(labels_of(made, texts), wanted, strict=True))
            seen = clopper_pearson(changed, len(texts))
            value = changed / len(texts)
            print(
                figure(f"{name}_{width:g}_changed_share", value, seen.low, seen.high, "share", "incumbent"),
                flush=True,
            )
            print(figure(f"{name}_{width:g}_cpu_s", took, took, took, "s", "CPU, one thread"), flush=True)


if __name__ == "__main__":
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--width", type=float, action="append")
    parser.add_argument("--texts", type=int, default=1033)
    parser.add_argument("--tokens", type=int, default=20_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        main(given.folder or Path(made), given.width or [0.5, 0.33], given.texts, given.tokens)
