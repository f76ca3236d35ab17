"""Loads a causal language model for a step, and writes it back as stock safetensors."""

from pathlib import Path
from typing import Any

from jettison.backends.hf import load_pretrained, quiet_transformers
from jettison.candidate import Candidate
from jettison.compress.checkpoint import LICENCE_FILES, TOKENIZER_FILES, take_over
from jettison.errors import StepFailed

CHAT_FILES = ("generation_config.json", "chat_template.jinja", "chat_template.json")


def check_causal(candidate: Candidate, step: str) -> None:
    """Refuse a candidate that is no causal checkpoint in torch.

    Raises:
        StepFailed: Its backend is another.
    """
    if candidate.backend != "hf_causal":
        raise StepFailed(
            f"step {step!r} must start from a candidate of backend 'hf_causal', got "
            f"{candidate.backend!r} ({candidate.name}). Apply it before the conversion, or to a checkpoint."
        )


def load_causal(candidate: Candidate) -> Any:
    """The model in float32 and eval mode, as `AutoModelForCausalLM` loads it.

    Raises:
        BrokenArtifact: The checkpoint does not load.
    """
    trust = bool(candidate.settings.get("trust_remote_code", False))
    return load_pretrained(candidate.path, "AutoModelForCausalLM", trust_remote_code=trust).float().eval()


def save_causal(model: Any, folder: Path, *, source: Path) -> None:
    """Write a model so that stock `from_pretrained` loads it; tokenizer and licence come from `source`."""
    with quiet_transformers():
        model.save_pretrained(folder)
    take_over(source, folder, (*TOKENIZER_FILES, *CHAT_FILES, *LICENCE_FILES))


def parameter_count(model: Any) -> int:
    """Weights of a model, tied ones once."""
    return int(sum(p.numel() for p in model.parameters()))


def device_of(candidate: Candidate) -> str:
    """Where a step computes: a GPU where there is one and the candidate does not say otherwise."""
    import torch

    wanted = str(candidate.settings.get("device", "auto"))
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted
