"""What Olive and Optimum make of a causal checkpoint by their defaults, each in an environment of its own.

`python benchmarks/peer_llm.py FOLDER` is, in Optimum's environment, the process that answers with what it
made: JSON lines in, JSON lines out, no jettison inside. The rest is what `leaner_llm.py` imports.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

OLIVE = ("olive-ai==0.13.0", "onnxruntime-genai==0.13.2", "requests")
"""Olive 0.13 does not declare `requests`, and asks the builder of this generative runtime for options
that later ones took away."""
OPTIMUM = ("optimum-onnx==0.1.0", "transformers==4.57.6")


def make_olive(checkpoint: Path, folder: Path, peers: Path) -> None:
    """Olive's `auto-opt` to int4 for a CPU, through its own model builder."""
    python = _environment(peers / "olive", OLIVE, "olive")
    folder.mkdir(parents=True)
    command = ["-m", "olive", "auto-opt", "-m", str(checkpoint), "--precision", "int4", "--device", "cpu"]
    command += ["--provider", "CPUExecutionProvider", "--use_model_builder", "-o", str(folder)]
    _run([str(python), *command], folder)


def make_optimum(checkpoint: Path, folder: Path, peers: Path) -> None:
    """Optimum's ONNX export with a cache of keys and values, its weights int8 for AVX-512 VNNI."""
    python = _environment(peers / "optimum", OPTIMUM, "optimum")
    cli, plain = str(python.parent / "optimum-cli"), folder.with_name(f"{folder.name}-float32")
    folder.parent.mkdir(parents=True, exist_ok=True)
    task = ["--task", "text-generation-with-past"]
    _run([cli, "export", "onnx", "-m", str(checkpoint), *task, str(plain)], folder.parent)
    _run(
        [cli, "onnxruntime", "quantize", "--onnx_model", str(plain), "--avx512_vnni", "-o", str(folder)],
        folder.parent,
    )
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((checkpoint / name).read_bytes())


def optimum_command(folder: Path, peers: Path) -> list[str]:
    """Starts the process that answers with what Optimum made."""
    return [str(_environment(peers / "optimum", OPTIMUM, "optimum")), __file__, str(folder)]


def _environment(folder: Path, packages: Sequence[str], module: str) -> Path:
    """Python of an environment on top of this one (torch is not installed twice), made if need be."""
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    inside = next((folder / "lib").glob("python3*/site-packages"))
    if not (inside / module).exists():
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (inside / "below.pth").write_text("".join(f"{path}\n" for path in ours))
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    return python


def _run(command: list[str], place: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed: {done.stderr[-800:]}")


class _Served:
    """Optimum's model in ONNX Runtime, one thread, as its documentation uses it."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        import torch
        from optimum.onnxruntime import ORTModelForCausalLM
        from transformers import PreTrainedTokenizerFast

        torch.set_num_threads(1)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.torch = torch
        marks = json.loads((folder / "tokenizer_config.json").read_text())
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer.json"),
            chat_template=(folder / "chat_template.jinja").read_text(),
            **{name: marks.get(name) for name in ("bos_token", "eos_token")},
        )
        self.model = ORTModelForCausalLM.from_pretrained(folder, session_options=options)

    def render(self, messages: list[dict[str, str]]) -> str:
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return str(text)

    def rows(self, ids: list[int]) -> Any:
        """Log-probabilities after each token."""
        with self.torch.inference_mode():
            given = self.torch.tensor([ids])
            logits = self.model(input_ids=given, attention_mask=self.torch.ones_like(given)).logits[0]
        return self.torch.log_softmax(logits.float(), -1)

    def likelihoods(self, asked: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Endings that differ in their last token alone share one pass."""
        last, found = None, []
        for context, ending in asked:
            head, whole = self.ids(context), self.ids(context + ending)
            n = min(len(head), len(whole) - 1)
            if whole[:-1] != last:
                last = whole[:-1]
                rows = self.rows(last) if last else None
            picked = [float(rows[i - 1, whole[i]]) for i in range(max(n, 1), len(whole))] if last else []
            greedy = all(int(rows[i - 1].argmax()) == whole[i] for i in range(max(n, 1), len(whole)))
            found.append({"logprob": sum(picked), "n_tokens": len(picked), "greedy": greedy})
        return found

    def complete(self, text: str, n: int) -> dict[str, Any]:
        given = self.tokenizer(
            text, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False
        )
        with self.torch.inference_mode():
            made = self.model.generate(**given, max_new_tokens=n, do_sample=False)[0]
        new = made[given["input_ids"].shape[1] :]
        return {"text": self.tokenizer.decode(new, skip_special_tokens=True), "n_tokens": len(new)}

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        what = asked["what"]
        if what == "render":
            return {"text": self.render(asked["messages"])}
        if what == "likelihoods":
            return {"found": self.likelihoods(asked["asked"])}
        if what == "complete":
            return self.complete(asked["text"], asked["n"])
        if what == "logits":
            import numpy as np

            np.save(asked["path"], self.rows(self.ids(asked["text"]))[:-1].numpy())
            return {}
        return self.timed(asked)

    def timed(self, asked: dict[str, Any]) -> dict[str, float]:
        """CPU-seconds a task and a token: prompts rendered and weighed one at a time, one completion."""

        def one(messages: list[dict[str, str]]) -> None:
            text = self.render(messages)
            self.likelihoods([(text, option) for option in asked["options"]])

        warm, *rest = asked["prompts"]
        one(warm)
        started = time.process_time()
        for messages in rest:
            one(messages)
        task_s = (time.process_time() - started) / len(rest)
        self.complete(asked["text"], asked["n"])
        started = time.process_time()
        said = self.complete(asked["text"], asked["n"])
        return {"task_s": task_s, "token_s": (time.process_time() - started) / said["n_tokens"]}


def _serve(folder: Path) -> None:
    import logging

    logging.disable(logging.WARNING)
    served = _Served(folder)
    for line in sys.stdin:
        print(json.dumps(served.answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    # Stands in the way of packages of the same names.
    sys.path = [path for path in sys.path if path != str(Path(__file__).parent)]
    _serve(Path(sys.argv[1]))
