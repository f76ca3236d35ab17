"""Step `quantize_compressed`: GPTQ, AWQ, plain rounding or 2:4 sparsity, as compressed-tensors for vLLM."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.causal import CausalEngine
from jettison.candidate import Candidate
from jettison.compress.answer_rows import PromptTokens
from jettison.compress.causal import CHAT_FILES, check_causal
from jettison.compress.checkpoint import LICENCE_FILES, TOKENIZER_FILES, take_over, torch_run
from jettison.compress.maker import MAKERS, run_maker
from jettison.compress.step import Made, StepContext
from jettison.errors import InvalidInput, NotEnoughData, ParityFailed
from jettison.files import read_json
from jettison.registry import need

FAULT = 3.0
"""Mean divergence of the next token from the checkpoint's, in nats, that no rounding explains."""


class QuantizeCompressed(msgspec.Struct, frozen=True, kw_only=True):
    """Round or prune the weights by llm-compressor, calibrated on the task's own prompts.

    The result is a compressed-tensors checkpoint: vLLM runs it compressed on a GPU. Backend `hf_causal`
    opens it too (extra `compressed`), with the weights unpacked: right for judging answers, no faster.
    """

    name: ClassVar[str] = "quantize_compressed"
    code_version: ClassVar[int] = 2
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("compressed-tensors", "torch", "transformers")

    method: Literal["gptq", "awq", "round", "sparse"] = "gptq"
    """How weights are chosen: by the error on the prompts, by scaling what matters, to the nearest; or half
    of them left out, two of every four, and none rounded."""
    scheme: Literal["W4A16", "W4A16_ASYM", "W8A16", "W8A8"] = "W4A16"
    """Bits of weights and activations, as llm-compressor calls them; `sparse` has none."""
    group_size: Annotated[int, msgspec.Meta(ge=8)] | None = None
    """Weights that share a scale; None is 128 (the scheme's own), 64 or 32, the largest that divides the
    width of every layer. Rows of W8A8 share one scale each."""
    n_texts: Annotated[int, msgspec.Meta(ge=1)] = 128
    """Prompts of train, unlabelled and the first half of dev to calibrate on."""
    max_tokens: Annotated[int, msgspec.Meta(ge=8)] = 512
    """Longest of them; a longer one loses its beginning."""

    def __post_init__(self) -> None:
        if self.group_size is not None and (self.method == "sparse" or self.scheme == "W8A8"):
            other = "method sparse" if self.method == "sparse" else "scheme W8A8"
            raise InvalidInput(
                f"group_size of {self.name} must be left out with {other}, got {self.group_size}."
            )

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Calibrate, round, compare.

        Raises:
            StepFailed: The candidate is no causal checkpoint, or llm-compressor fails on it.
            NotEnoughData: There is no text to calibrate on.
            ParityFailed: The result answers so unlike the checkpoint that rounding does not explain it.
            MissingExtra: llm-compressor's environment is not set up, or compressed-tensors not installed.
        """
        check_causal(candidate, self.name)
        need("compressed_tensors", "compressed")
        maker = MAKERS["llmcompressor"]
        data = context.data
        examples = (*data.train, *data.unlabelled, *data.dev_fit)[: self.n_texts]
        if not examples:
            raise NotEnoughData(f"step {self.name!r} needs texts to calibrate on, got none.")
        tokens = PromptTokens(candidate, self.max_tokens)
        rows = [tokens.row(example.asked, "", ends=False)[0] for example in examples]
        context.progress("rounding by llm-compressor, in its own environment", None)
        run_maker(
            maker,
            {
                "model": str(candidate.path.absolute()),
                "out": str(context.folder.absolute()),
                "method": self.method,
                "scheme": self.scheme,
                "group_size": self.group_size,
                "ids": [list(map(int, row)) for row in rows],
                "threads": context.threads,
                "seed": context.seed,
            },
        )
        take_over(candidate.path, context.folder, (*TOKENIZER_FILES, *CHAT_FILES, *LICENCE_FILES))
        divergence = _divergence(candidate, context, rows[:4])
        if divergence > FAULT:
            raise ParityFailed(
                f"{self.method} must answer about as {candidate.name} does, got a mean divergence of "
                f"{divergence:.2f} nats a token. Take more bits, smaller groups or another method."
            )
        return Made(
            settings=candidate.settings,
            notes={
                "maker": maker.requirement,
                "n_texts": len(rows),
                "group_size": _group_size(context.folder),
                "next_token_divergence": round(divergence, 4),
            },
        )


def _group_size(folder: Path) -> int | None:
    """Weights that share a scale in what was made; None where they are in no groups."""
    config = read_json(folder / "config.json", dict[str, Any]).get("quantization_config") or {}
    groups = [
        group["weights"] for group in config.get("config_groups", {}).values() if group.get("weights")
    ]
    return groups[0].get("group_size") if groups else None


def _divergence(candidate: Candidate, context: StepContext, rows: list[list[int]]) -> float:
    """Mean divergence of the result from the checkpoint, in nats a token."""
    made = msgspec.structs.replace(candidate, path=context.folder)
    with torch_run(seed=context.seed, threads=context.threads):
        before, after = (_logprobs(one, rows) for one in (candidate, made))
    found = [(np.exp(p) * (p - q)).sum(axis=1) for p, q in zip(before, after, strict=True)]
    return float(np.concatenate(found).mean())


def _logprobs(candidate: Candidate, rows: list[list[int]]) -> list[Any]:
    engine = CausalEngine(candidate)
    try:
        return [np.asarray(engine.logprobs_after_each(row), np.float64) for row in rows]
    finally:
        engine.close()
