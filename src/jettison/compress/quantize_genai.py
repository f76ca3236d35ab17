"""Step `quantize_genai`: weights of a causal checkpoint in int4 or int8, run by onnxruntime-genai."""

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from jettison.backends.onnx_genai import CONFIG, GenaiEngine
from jettison.candidate import Candidate
from jettison.compress.causal import CHAT_FILES, check_causal
from jettison.compress.checkpoint import LICENCE_FILES, TOKENIZER_FILES, take_over, torch_run
from jettison.compress.language_parity import check_next_tokens
from jettison.compress.quiet import quiet_converters
from jettison.compress.step import Made, StepContext
from jettison.errors import StepFailed
from jettison.registry import need


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
        notes = check_next_tokens(
            candidate, GenaiEngine, settings, context, n_texts=self.n_texts, precision=self.precision
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
