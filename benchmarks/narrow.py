"""How many answers change when feed-forward neurons leave: pruned alone, and refitted in closed form.

`python benchmarks/narrow.py [--width 0.5] [--folder F]` narrows CLINC150's incumbent and compares it
with the incumbent on the val split, which neither reads. Nothing here reads the test split. F keeps
what was made. Prints one JSON object a figure.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

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


def main(folder: Path, widths: list[float]) -> None:
    data = read_development()
    incumbent = take_in(
        str(MODEL), labels=data.labels, out_of_scope="oos", cache=folder / "cache", seed=0, data=data
    )
    context = StepContext(data=data, incumbent=incumbent, folder=folder, workspace=folder / "workspace")
    texts = [example.input for example in data.dev]
    wanted = labels_of(incumbent, texts)
    for width in widths:
        steps: dict[str, Step] = {"pruned": Prune(width=width), "narrowed": Narrow(width=width)}
        for name, step in steps.items():
            made = apply_step(step, incumbent, context, cache=folder / "cache")
            changed = sum(a != b for a, b in zip(labels_of(made, texts), wanted, strict=True))
            seen = clopper_pearson(changed, len(texts))
            value = changed / len(texts)
            print(
                figure(f"{name}_{width:g}_changed_share", value, seen.low, seen.high, "share", "incumbent"),
                flush=True,
            )
        took = made.lineage[-1].duration_s
        print(figure(f"narrowed_{width:g}_s", took, took, took, "s", "one thread"), flush=True)


if __name__ == "__main__":
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--width", type=float, action="append")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        main(given.folder or Path(made), given.width or [0.67, 0.5, 0.33])
