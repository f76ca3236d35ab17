"""Rounds or prunes a causal checkpoint by llm-compressor, and saves it as compressed-tensors.

Run in llm-compressor's own environment: `python llmcompressor_oneshot.py REQUEST.json`. The request names
`model`, `out`, `method` (gptq, awq, round, sparse), `scheme`, `group_size` (None is the scheme's own, or
the largest under it that fits), `ids` (token ids of calibration prompts), `threads` and `seed`.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

IGNORED = ["lm_head"]
GROUPS = (128, 64, 32)
"""Sizes of a group that vLLM's kernels for weights of 4 and 8 bits take (Marlin)."""


def main() -> None:
    """Do what the request says."""
    request = json.loads(Path(sys.argv[1]).read_text())
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(request["threads"])
    torch.manual_seed(request["seed"])
    model = AutoModelForCausalLM.from_pretrained(
        request["model"], dtype=torch.float32, use_safetensors=True, local_files_only=True
    )
    widths = {
        module.in_features: name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name not in IGNORED
    }
    if not widths:
        sys.exit(
            f"{type(model).__name__} must have linear layers for llm-compressor to change, and has none."
        )
    if request["method"] == "awq" and not torch.accelerator.is_available():
        leave_memory_unpinned()
    ids = request["ids"]
    given: dict[str, Any] = {"model": model, "recipe": recipe(request, widths)}
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


def recipe(request: dict[str, Any], widths: dict[int, str]) -> list[Any]:
    """Modifiers of llm-compressor for a request and the widths of the model's layers."""
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    method = request["method"]
    if method == "sparse":
        from llmcompressor.modifiers.pruning import SparseGPTModifier

        return [SparseGPTModifier(sparsity=0.5, mask_structure="2:4", targets=["Linear"], ignore=IGNORED)]
    shape = quantization(request["scheme"], request["group_size"], widths)
    if method == "awq":
        from llmcompressor.modifiers.transform import AWQModifier

        return [AWQModifier(), QuantizationModifier(ignore=IGNORED, **shape)]
    kind = GPTQModifier if method == "gptq" else QuantizationModifier
    return [kind(ignore=IGNORED, **shape)]


def quantization(scheme: str, group_size: int | None, widths: dict[int, str]) -> dict[str, Any]:
    """A preset scheme, its groups of the size asked for, or of one that the layers' widths allow."""
    from compressed_tensors.quantization import preset_name_to_scheme

    preset = preset_name_to_scheme(scheme, ["Linear"])
    if preset.weights.group_size is not None:
        preset.weights.group_size = group_size or fitting_group(widths, preset.weights.group_size)
    for width, name in widths.items():
        if group_size and width % group_size:
            sys.exit(
                f"group_size must divide the width of every layer, got {group_size} for {width} of {name}."
            )
    return {"config_groups": {"group_0": preset}}


def fitting_group(widths: Iterable[int], usual: int) -> int:
    """The largest group, up to the scheme's own, that divides every width and that kernels take."""
    found = [size for size in GROUPS if size <= usual and not any(width % size for width in widths)]
    if not found:
        sys.exit(
            f"the width of every layer must be a multiple of {GROUPS[-1]} for weights in groups, "
            f"got {sorted(widths)}. Take scheme W8A8, whose rows share one scale, or method sparse."
        )
    return found[0]


def leave_memory_unpinned() -> None:
    """AWQ pins what it kept for a faster way to a GPU, which fails where there is none."""
    from llmcompressor.pipelines.cache import IntermediatesCache

    IntermediatesCache.pin_memory = lambda self, batch_index: None


if __name__ == "__main__":
    main()
