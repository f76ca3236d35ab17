"""Step `to_gguf`: a causal checkpoint as a GGUF file for llama.cpp, with the importance of its weights."""

import math
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.causal import CausalEngine
from jettison.backends.llamacpp import MODEL, LlamaCppEngine
from jettison.candidate import Candidate
from jettison.compress.answer_rows import PromptTokens
from jettison.compress.causal import check_causal, load_causal
from jettison.compress.checkpoint import LICENCE_FILES, take_over, torch_run
from jettison.compress.gguf_write import gguf_architecture, write_gguf, write_importance
from jettison.compress.step import Made, StepContext
from jettison.errors import ParityFailed

IMPORTANCE = "imatrix.dat"
FAULT = 0.01
"""Mean divergence of the next token from the checkpoint's, in nats, that 16 bits do not explain."""


class ToGguf(msgspec.Struct, frozen=True, kw_only=True):
    """Write weights, tokenizer and chat template into one GGUF file, and compare it with the checkpoint.

    Beside it lies how much each input of each weight matters on the task's own texts (`imatrix.dat`),
    which `quantize_gguf` rounds by.
    """

    name: ClassVar[str] = "to_gguf"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("gguf", "xllamacpp", "torch", "transformers")

    precision: Literal["float16", "float32"] = "float16"
    n_importance: Annotated[int, msgspec.Meta(ge=0)] = 64
    """Texts of train, unlabelled and the first half of dev that importance is measured on; 0 for none."""
    n_texts: Annotated[int, msgspec.Meta(ge=1)] = 4
    """Dev prompts on which the file is compared with the checkpoint."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Convert, compare, measure the importance.

        Raises:
            StepFailed: The candidate is no causal checkpoint of a family that can be converted.
            ParityFailed: The file cuts text into other tokens, or answers otherwise.
            MissingExtra: gguf or xllamacpp is not installed.
        """
        check_causal(candidate, self.name)
        gguf_architecture(candidate)  # before weights are loaded
        context.progress("writing the file", None)
        notes: dict[str, Any] = {}
        with torch_run(seed=context.seed, threads=context.threads):
            model = load_causal(candidate)
            weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
            names = write_gguf(candidate, weights, context.folder / MODEL, precision=self.precision)
            notes["n_importance"] = self._write_importance(model, names, candidate, context)
        take_over(candidate.path, context.folder, LICENCE_FILES)
        settings = {
            k: v
            for k, v in candidate.settings.items()
            if k not in ("dtype", "batch_size", "device", "add_bos", "trust_remote_code")
        }
        notes |= self._compare(candidate, settings, context)
        return Made(backend="llamacpp", settings=settings, notes=notes)

    def _write_importance(
        self, model: Any, names: dict[str, str], candidate: Candidate, context: StepContext
    ) -> int:
        data = context.data
        examples = (*data.train, *data.unlabelled, *data.dev_fit)[: self.n_importance]
        if not examples:
            return 0
        context.progress("measuring the importance of weights", None)
        tokens = PromptTokens(candidate, 512)
        rows = [tokens.row(example.asked, "", ends=False)[0] for example in examples]
        found = mean_squared_inputs(model, rows)
        write_importance(
            context.folder / IMPORTANCE,
            {names[f"{layer}.weight"]: v for layer, v in found.items() if f"{layer}.weight" in names},
        )
        return len(rows)

    def _compare(
        self, candidate: Candidate, settings: dict[str, Any], context: StepContext
    ) -> dict[str, Any]:
        examples = (context.data.dev or context.data.train)[: self.n_texts]
        made = msgspec.structs.replace(
            candidate, path=context.folder, settings={**settings, "threads": context.threads}
        )
        engine = LlamaCppEngine(made)
        try:
            if not examples:
                return {"next_token_divergence": None, "n_texts": 0}
            texts = [PromptTokens(candidate, 512).context(example.asked) for example in examples]
            divergence = compare_next(candidate, engine, texts, context)
        finally:
            engine.close()
        if divergence["next_token_divergence"] > FAULT:
            raise ParityFailed(
                f"the GGUF file must answer as {candidate.name} does, got a mean divergence of "
                f"{divergence['next_token_divergence']:.3g} nats a token on {len(texts)} prompts. "
                "Leave this model to another runtime."
            )
        return divergence


def compare_next(
    checkpoint: Candidate, engine: LlamaCppEngine, texts: list[str], context: StepContext
) -> dict[str, Any]:
    """How far the next token's probabilities lie from a checkpoint's, on prompts.

    Raises:
        ParityFailed: A prompt is cut into other tokens.
    """
    ready = msgspec.structs.replace(
        checkpoint, settings={**checkpoint.settings, "threads": context.threads}
    )
    with torch_run(seed=context.seed, threads=context.threads):
        reference = CausalEngine(ready)
        try:
            ids = [reference.token_ids(text) for text in texts]
            rows = [reference.logits([text])[0][-1] for text in texts]
        finally:
            reference.close()
    for text, wanted in zip(texts, ids, strict=True):
        if engine.token_ids(text) != wanted:
            raise ParityFailed(
                f"the GGUF file must cut text into the tokens of {checkpoint.name}, got others on "
                f"{text[-60:]!r}. Leave this model to another runtime."
            )
    found = np.stack([engine.next_logprobs(one[:-1]) for one in ids]).astype(np.float64)
    wanted_rows = np.stack(rows).astype(np.float64)
    shares = np.exp(wanted_rows)
    divergence = float((shares * (wanted_rows - found)).sum(1).mean())
    return {
        "next_token_divergence": divergence if math.isfinite(divergence) else math.inf,
        "same_token_share": float((wanted_rows.argmax(1) == found.argmax(1)).mean()),
        "n_texts": len(texts),
    }


def mean_squared_inputs(model: Any, rows: list[list[int]]) -> dict[str, np.ndarray]:
    """Mean square of each input of each linear layer over the tokens of some texts.

    Args:
        model: In eval mode.
        rows: Token ids of each text.

    Returns:
        Name of the layer → shape (n_inputs,), float32.
    """
    import torch

    sums: dict[str, Any] = {}
    n = sum(map(len, rows))

    def watch(name: str) -> Any:
        def hook(_: Any, given: tuple[Any, ...]) -> None:
            squares = given[0].detach().float().reshape(-1, given[0].shape[-1]).square().sum(0)
            sums[name] = squares if name not in sums else sums[name] + squares

        return hook

    hooks = [
        layer.register_forward_pre_hook(watch(name))
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear)
    ]
    try:
        with torch.inference_mode():
            for row in rows:
                model(input_ids=torch.tensor([row]))
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (total / n).numpy() for name, total in sums.items()}
