"""Does serving a quantized file through jettison cost anything, in answers or in time?

Int8 files of a real classifier (six layers of width 384, 151 intents), made by `quantize`:
our backend against the shortest program that a careful person would write for the same file
(tokenizers, then one call of ONNX Runtime or OpenVINO), one text at a time, one thread,
interleaved. Differences are of logits; ratios are CPU time of the direct call over ours, so
1 is equal and 0.95 or more is wanted. OpenVINO is also called without our rounding up of
token counts, to show what that brings.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from jettison.backends.open import open_model
from jettison.backends.openvino import PAD_TO_MULTIPLE, import_openvino
from jettison.candidate import Candidate, write_candidate
from jettison.compress.quantize import Quantize
from jettison.compress.step import StepContext, apply_step
from jettison.files import link_or_copy_folder
from jettison.task import Development, Example

SHARED = Path(os.environ.get("JETTISON_SHARED", Path(__file__).resolve().parents[2] / "shared"))
MAX_TOKENS = 64
Direct = Callable[[str], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--workspace", type=Path, default=Path(".jettison/benchmarks/int8_parity"))
    given = parser.parse_args()
    incumbent, data = read_incumbent(given.workspace)
    given.workspace.mkdir(parents=True, exist_ok=True)
    context = StepContext(data=data, incumbent=incumbent, folder=given.workspace, workspace=given.workspace)
    texts = [example.input for example in data.dev_fit][: given.texts]
    for method, backend, peer in (
        ("dynamic", "onnx", direct_onnx),
        ("nncf", "openvino", direct_openvino),
        ("nncf", "openvino_unpadded", direct_openvino_unpadded),
    ):
        made = apply_step(Quantize(method=method), incumbent, context, cache=given.workspace / "made")
        compare(backend, made, peer(made.path), texts)


def read_incumbent(workspace: Path) -> tuple[Candidate, Development]:
    """The shared classifier, and the examples it may be calibrated on (no test example)."""
    rows = map(json.loads, (SHARED / "data/clinc150/clinc150.jsonl").read_text().splitlines())
    config = json.loads((SHARED / "models/clinc-minilm/config.json").read_text())
    labels = tuple(config["id2label"][str(index)] for index in range(len(config["id2label"])))
    dev = tuple(
        Example(id=str(number), input=row["text"], expected=row["label"])
        for number, row in enumerate(row for row in rows if row["split"] == "val")
    )
    data = Development(
        name="clinc150",
        kind="classify",
        labels=labels,
        out_of_scope="oos",
        train=(),
        dev=dev,
        unlabelled=(),
    )
    folder = workspace / "incumbent"
    if (folder / "candidate.json").is_file():
        return Candidate.at(folder), data
    link_or_copy_folder(SHARED / "models/clinc-minilm", folder)
    settings = {"max_tokens": MAX_TOKENS, "threads": 1}
    made = write_candidate(folder, name="clinc-minilm", backend="hf", labels=labels, settings=settings)
    return made, data


def direct_onnx(folder: Path) -> Direct:
    import onnxruntime as ort
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def answer(text: str) -> np.ndarray:
        encoding = tokenizer.encode(text)
        ids = np.array([encoding.ids], np.int64)
        mask = np.array([encoding.attention_mask], np.int64)
        return session.run(None, {"input_ids": ids, "attention_mask": mask})[0]

    return answer


def direct_openvino(folder: Path, multiple: int = PAD_TO_MULTIPLE) -> Direct:
    from tokenizers import Tokenizer

    openvino = import_openvino()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(pad_to_multiple_of=multiple)
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = (
        openvino.Core().compile_model(str(folder / "model.xml"), "CPU", settings).create_infer_request()
    )

    def answer(text: str) -> np.ndarray:
        encoding = tokenizer.encode(text)
        ids = np.array([encoding.ids], np.int64)
        mask = np.array([encoding.attention_mask], np.int64)
        return np.array(request.infer({"input_ids": ids, "attention_mask": mask}, share_inputs=True)[0])

    return answer


def direct_openvino_unpadded(folder: Path) -> Direct:
    return direct_openvino(folder, 1)


def compare(name: str, made: Candidate, direct: Direct, texts: list[str]) -> None:
    """Print the largest difference of a logit, and the ratio of CPU times, with its interval."""
    model = open_model(made)
    ours = model.logits
    for text in texts[:20]:
        ours([text]), direct(text)
    differences, times = [], np.empty((len(texts), 2))
    for number, text in enumerate(texts):
        answers = {}
        for side in (0, 1) if number % 2 else (1, 0):
            began = time.process_time_ns()
            answers[side] = ours([text]) if side == 0 else direct(text)
            times[number, side] = time.process_time_ns() - began
        differences.append(float(np.abs(answers[0] - answers[1]).max()))
    model.close()
    n, worst = len(texts), max(differences)
    say(f"{name}_int8_logits_difference", worst, worst, worst, "max abs logit", f"direct call, {n} texts")
    rng = np.random.default_rng(0)
    drawn = times[rng.integers(0, n, (2000, n))].sum(1)
    low, high = np.quantile(drawn[:, 1] / drawn[:, 0], [0.025, 0.975])
    value = times[:, 1].sum() / times[:, 0].sum()
    say(f"{name}_int8_cpu_ratio", value, low, high, "direct CPU time / ours", f"direct call, {n} texts")
    mean = times[:, 0].mean() / 1e9
    spread = np.quantile(drawn[:, 0] / n / 1e9, [0.025, 0.975])
    say(f"{name}_int8_cpu_s", mean, *spread, "CPU s per text, tokenizing included", f"{n} texts")


def say(name: str, value: float, low: float, high: float, unit: str, against: str) -> None:
    figures = {"value": float(value), "low": float(low), "high": float(high)}
    print(json.dumps({"name": name, **figures, "unit": unit, "against": against}), flush=True)


if __name__ == "__main__":
    main()
