"""Which way of exporting costs the least at one text at a time, in float32 and in int8?

The three methods of `export` to ONNX on the same classifier as `int8_parity.py`, one thread,
interleaved in random order. Ratios are CPU time of the method over that of `fused`, the
default: above 1, the default is cheaper.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from int8_parity import read_incumbent, say
from jettison.backends.open import open_model
from jettison.compress.export import Export
from jettison.compress.quantize import Quantize
from jettison.compress.step import StepContext, apply_step

METHODS = ("fused", "plain", "transformers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--workspace", type=Path, default=Path(".jettison/benchmarks/int8_parity"))
    given = parser.parse_args()
    incumbent, data = read_incumbent(given.workspace)
    context = StepContext(data=data, incumbent=incumbent, folder=given.workspace, workspace=given.workspace)
    cache = given.workspace / "made"
    exported = {
        method: apply_step(Export(method=method), incumbent, context, cache=cache) for method in METHODS
    }
    quantized = {
        method: apply_step(Quantize(), made, context, cache=cache) for method, made in exported.items()
    }
    texts = [example.input for example in data.dev_fit][: given.texts]
    for precision, made in (("float32", exported), ("int8", quantized)):
        times = interleave({method: open_model(candidate) for method, candidate in made.items()}, texts)
        report(precision, times)


def interleave(models: dict, texts: list[str]) -> np.ndarray:
    """CPU-seconds of each text by each method, shape (n_texts, n_methods)."""
    rng = np.random.default_rng(0)
    for model in models.values():
        model.predict(texts[:8])
        for text in texts[:8]:
            model.predict([text])
    times = np.empty((len(texts), len(METHODS)))
    for row, text in enumerate(texts):
        for column in rng.permutation(len(METHODS)):
            model = models[METHODS[column]]
            began = time.process_time_ns()
            model.predict([text])
            times[row, column] = (time.process_time_ns() - began) / 1e9
    return times


def report(precision: str, times: np.ndarray) -> None:
    n = len(times)
    sums = times[np.random.default_rng(1).integers(0, n, (2000, n))].sum(1)
    for column, method in enumerate(METHODS):
        ratio = sums[:, column] / sums[:, 0]
        value = times[:, column].sum() / times[:, 0].sum()
        against = f"fused, {times[:, 0].mean() * 1e3:.2f} ms of CPU per text, {n} texts"
        say(
            f"export_{method}_{precision}_cpu_ratio",
            value,
            *np.quantile(ratio, [0.025, 0.975]),
            "ratio",
            against,
        )


if __name__ == "__main__":
    main()
