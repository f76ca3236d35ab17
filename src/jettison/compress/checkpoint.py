"""Writes a torch module back as a candidate's files: stock safetensors, tokenizer, head."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jettison.backends.hf import HEAD, quiet_transformers
from jettison.candidate import Candidate
from jettison.errors import StepFailed
from jettison.files import BOM, link_or_copy
from jettison.registry import need

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
LICENCE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "NOTICE", "NOTICE.txt")


def check_hf(candidate: Candidate, step: str) -> None:
    """Refuse a candidate that is no torch checkpoint.

    Raises:
        StepFailed: Its backend is another.
    """
    if candidate.backend != "hf":
        raise StepFailed(
            f"step {step!r} must start from a candidate of backend 'hf', got {candidate.backend!r} "
            f"({candidate.name}). Apply it before the export."
        )


def save_torch(module: Any, folder: Path, *, source: Path) -> None:
    """Write a module of `load_torch` so that `load_torch` and stock `from_pretrained` load it.

    Args:
        module: `TokenLogits` or `PooledLogits`, float32.
        folder: Where the files go.
        source: Folder of the candidate it came from; tokenizer and licence files are taken over.
    """
    from safetensors.torch import save_file

    pooled = hasattr(module, "head")
    with quiet_transformers():
        (module.encoder if pooled else module.model).save_pretrained(folder)
    if pooled:
        state = {name: tensor.contiguous() for name, tensor in module.head.state_dict().items()}
        save_file(state, folder / HEAD)
    take_over(source, folder, (*TOKENIZER_FILES, *LICENCE_FILES))


def take_over(source: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Place those of the named files that `source` has and `folder` lacks."""
    for name in names:
        if (source / name).is_file() and not (folder / name).exists():
            # A hub cache holds links, which would be linked as links.
            _place((source / name).resolve(), folder / name)


def _place(source: Path, target: Path) -> None:
    """Link a file, or write JSON without the mark that its readers in other libraries refuse."""
    if target.suffix == ".json":
        with source.open("rb") as file:
            marked = file.read(len(BOM)) == BOM
        if marked:
            target.write_bytes(source.read_bytes().removeprefix(BOM))
            return
    link_or_copy(source, target)


def bfloat16_is_fast() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware."""
    found = need("torch", "torch").cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


@contextlib.contextmanager
def torch_run(*, seed: int, threads: int) -> Iterator[Any]:
    """Run torch with so many threads and this seed, and leave both as they were found."""
    torch = need("torch", "torch")
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield torch
    finally:
        torch.set_num_threads(before)
