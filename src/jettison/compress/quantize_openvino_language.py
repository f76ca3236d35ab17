"""Step `quantize_openvino_language`: a causal checkpoint in OpenVINO, its weights in int8 or int4."""

import tempfile
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from jettison.backends.openvino_causal import MODEL, OpenVinoCausalEngine
from jettison.candidate import Candidate
from jettison.compress.causal import CHAT_FILES, check_causal, load_causal
from jettison.compress.checkpoint import LICENCE_FILES, TOKENIZER_FILES, take_over, torch_run
from jettison.compress.language_parity import check_next_tokens
from jettison.compress.openvino_causal import write_graph
from jettison.compress.quantize_openvino import quantize
from jettison.compress.quiet import quiet_converters
from jettison.compress.step import Made, StepContext

METHODS = {"int8": "weights8", "int4": "weights4"}


class QuantizeOpenVinoLanguage(msgspec.Struct, frozen=True, kw_only=True):
    """Convert with keys and values as inputs, and round the weights alone by NNCF, not what they work on.

    No data is read to choose the rounding. Models whose layers see a window or keep a state of another kind
    are refused.
    """

    name: ClassVar[str] = "quantize_openvino_language"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("nncf", "openvino", "torch", "transformers")

    precision: Literal["int4", "int8", "float32"] = "int8"
    block_size: Annotated[int, msgspec.Meta(ge=8)] = 32
    """Weights that share a scale, in int4."""
    n_texts: Annotated[int, msgspec.Meta(ge=1)] = 8
    """Dev prompts on which the result is compared with the checkpoint."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Convert, round, compare.

        Raises:
            StepFailed: The candidate is no causal checkpoint, or of a family that does not convert.
            ParityFailed: The result answers so unlike the checkpoint that rounding does not explain it.
            MissingExtra: openvino, nncf or torch is not installed.
        """
        check_causal(candidate, self.name)
        context.progress("converting to OpenVINO", None)
        target = context.folder / MODEL
        with torch_run(seed=context.seed, threads=context.threads), quiet_converters():
            if self.precision == "float32":
                write_graph(load_causal(candidate), target)
            else:
                with tempfile.TemporaryDirectory(dir=context.folder) as scratch:
                    write_graph(load_causal(candidate), whole := Path(scratch) / MODEL)
                    quantize(
                        whole,
                        target,
                        method=METHODS[self.precision],
                        feeds=(),
                        embeddings=False,
                        block_size=self.block_size,
                    )
        files = (*TOKENIZER_FILES, *CHAT_FILES, *LICENCE_FILES, "config.json")
        take_over(candidate.path, context.folder, files)
        settings = {
            k: v for k, v in candidate.settings.items() if k not in ("dtype", "batch_size", "device")
        }
        notes = check_next_tokens(
            candidate,
            OpenVinoCausalEngine,
            settings,
            context,
            n_texts=self.n_texts,
            precision=self.precision,
        )
        return Made(backend="openvino_causal", settings=settings, notes=notes)
