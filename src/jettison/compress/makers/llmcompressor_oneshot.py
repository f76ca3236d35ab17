"""Rounds or prunes a causal checkpoint by llm-compressor, and saves it as compressed-tensors.

Run in llm-compressor's own environment: `python llmcompressor_oneshot.py REQUEST.json`. The request names
`model`, `out`, `method` (gptq, awq, round, sparse), `scheme`, `group_size` (None is the scheme's own),
`ids` (token ids of calibration prompts), `threads` and `seed`.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

IGNORED = ["lm_head"]


def main() -> None:
    """Do what the request says."""
    request = json.loads(Path(sys.argv[1]).read_text())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    if request["method"] == "awq" and not torch.accelerator.is_available():
        sys.exit("AWQ in llm-compressor computes on a GPU alone, and there is none here. Take gptq.")
    torch.set_num_threads(request["threads"])
    torch.manual_seed(request["seed"])
    model = AutoModelForCausalLM.from_pretrained(
        request["model"], dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    ids = request["ids"]
    given: dict[str, Any] = {"model": model, "recipe": recipe(request)}
    if ids:
        rows = {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]}
        given |= {
            "dataset": Dataset.from_dict(rows),
            "max_seq_length": max(map(len, ids)),
            "num_calibration_samples": len(ids),
            "shuffle_calibration_samples": False,
        }
    oneshot(**given)
    model.save_pretrained(request["out"], save_compressed=True)


def recipe(request: dict[str, Any]) -> list[Any]:
    """Modifiers of llm-compressor for a request."""
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    method = request["method"]
    if method == "sparse":
        from llmcompressor.modifiers.pruning import SparseGPTModifier

        return [SparseGPTModifier(sparsity=0.5, mask_structure="2:4", targets=["Linear"], ignore=IGNORED)]
    shape = quantization(request["scheme"], request["group_size"])
    if method == "awq":
        from llmcompressor.modifiers.awq import AWQModifier

        return [AWQModifier(ignore=IGNORED, **shape)]
    kind = GPTQModifier if method == "gptq" else QuantizationModifier
    return [kind(ignore=IGNORED, **shape)]


def quantization(scheme: str, group_size: int | None) -> dict[str, Any]:
    """A preset scheme, with groups of another size where asked for."""
    if group_size is None:
        return {"targets": ["Linear"], "scheme": scheme}
    from compressed_tensors.quantization import preset_name_to_scheme

    preset = preset_name_to_scheme(scheme, ["Linear"])
    preset.weights.group_size = group_size
    return {"config_groups": {"group_0": preset}}


if __name__ == "__main__":
    main()
