"""Step `quantize_genai`: weights of a causal checkpoint in int4 or int8, run by onnxruntime-genai."""

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.causal import CausalEngine
from jettison.backends.onnx_genai import CONFIG, GenaiEngine
from jettison.candidate import Candidate
from jettison.compress.answer_rows import PromptTokens
from jettison.compress.causal import CHAT_FILES, check_causal
from jettison.compress.checkpoint import LICENCE_FILES, TOKENIZER_FILES, take_over, torch_run
from jettison.compress.quiet import quiet_converters
from jettison.compress.step import Made, StepContext
from jettison.errors import ParityFailed, StepFailed
from jettison.registry import need

FAULTS = {"float32": 0.01, "int8": 1.0, "int4": 3.0}
"""Mean divergence of the next token from the checkpoint's, in nats, that no rounding explains."""


class QuantizeGenai(msgspec.Struct, frozen=True, kw_only=True):
    """Round the weights alone, in blocks with a scale each; activations stay float32.

    No data is read to choose the rounding. The result is one ONNX graph with its weights beside it.
    """

    name: ClassVar[str] = "quantize_genai"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime-genai", "onnxruntime", "torch", "transformers")

    precision: Literal["int4", "int8", "float32"] = "int4"
    block_size: Literal[16, 32, 64, 128, 256] = 32
    """Weights that share a scale, in int4."""
    n_texts: Annotated[int, msgspec.Meta(ge=1)] = 8
    """Dev prompts on which the result is compared with the checkpoint."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Build, compare, save.

        Raises:
            StepFailed: The candidate is no causal checkpoint, or the builder does not know its family.
            ParityFailed: The result answers so unlike the checkpoint that rounding does not explain it.
            MissingExtra: onnxruntime-genai is not installed.
        """
        check_causal(candidate, self.name)
        context.progress("building the graph", None)
        with torch_run(seed=context.seed, threads=context.threads):
            self._build(candidate, context.folder)
        # The builder writes the tokenizer anew; a generic one under a family's name gains a token.
        for name in TOKENIZER_FILES:
            (context.folder / name).unlink(missing_ok=True)
        take_over(
            candidate.path, context.folder, (*TOKENIZER_FILES, *CHAT_FILES, *LICENCE_FILES, "config.json")
        )
        settings = {
            k: v for k, v in candidate.settings.items() if k not in ("dtype", "batch_size", "device")
        }
        notes = self._compare(candidate, settings, context)
        found = notes["next_token_divergence"]
        if found is not None and found > FAULTS[self.precision]:
            raise ParityFailed(
                f"{self.precision} weights must answer about as {candidate.name} does, got a mean "
                f"divergence of {found:.2f} nats a token on {notes['n_texts']} prompts. "
                "Leave this model to another runtime."
            )
        return Made(backend="onnx_genai", settings=settings, notes=notes)

    def _build(self, candidate: Candidate, folder: Path) -> None:
        need("onnxruntime_genai", "genai").disable_telemetry_events()
        builder = need("onnxruntime_genai.models.builder", "genai")
        precision = {"float32": "fp32"}.get(self.precision, self.precision)
        options = ["hf_token=false"]
        if self.precision == "int4":
            options.append(f"int4_block_size={self.block_size}")
        source, target = str(candidate.path.absolute()), str(folder.absolute())
        said = contextlib.redirect_stderr(io.StringIO())
        # In int8 the token table stays float32, which the builder logs as an error for each use.
        logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer").setLevel(logging.CRITICAL)
        with quiet_converters(), said, tempfile.TemporaryDirectory() as scratch:
            try:
                extra = builder.parse_extra_options(
                    None, source, target, precision, "cpu", scratch, options
                )
                builder.create_model(None, source, target, precision, "cpu", scratch, **extra)
            except (Exception, SystemExit) as error:
                reason = " ".join(str(error).split())[:200]
                raise StepFailed(
                    f"{candidate.name} must be of a family that onnxruntime-genai builds, got "
                    f"{type(error).__name__}: {reason}"
                ) from error
        if not (folder / CONFIG).is_file():
            raise StepFailed(f"onnxruntime-genai must write {CONFIG}, got none for {candidate.name}.")

    def _compare(
        self, candidate: Candidate, settings: dict[str, Any], context: StepContext
    ) -> dict[str, Any]:
        """How far the next token's probabilities moved on some of dev's prompts."""
        examples = (context.data.dev or context.data.train)[: self.n_texts]
        if not examples:
            return {"next_token_divergence": None, "n_texts": 0}
        tokens = PromptTokens(candidate, 512)
        texts = [tokens.context(example.asked) for example in examples]
        threads = {"threads": context.threads}
        ready = msgspec.structs.replace(candidate, settings={**candidate.settings, **threads})
        made = msgspec.structs.replace(candidate, path=context.folder, settings={**settings, **threads})
        with torch_run(seed=context.seed, threads=context.threads):
            reference = _last_rows(CausalEngine(ready), texts)
        try:
            found = _last_rows(GenaiEngine(made), texts)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise StepFailed(f"the graph built of {candidate.name} must run, got: {reason}") from error
        divergence = (np.exp(reference) * (reference - found)).sum(1).mean()
        same = (reference.argmax(1) == found.argmax(1)).mean()
        return {
            "next_token_divergence": float(divergence),
            "same_token_share": float(same),
            "n_texts": len(texts),
        }


def _last_rows(engine: Any, texts: list[str]) -> np.ndarray:
    """Log-probabilities of the last token of each text, shape (n_texts, n_vocabulary), float64."""
    try:
        return np.stack([engine.logits([text])[0][-1] for text in texts]).astype(np.float64)
    finally:
        engine.close()
