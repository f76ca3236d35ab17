"""Step `quantize_embedder`: an encoder that embeds, as an ONNX graph in float32 or int8."""

import tempfile
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.embedder import open_embedder
from jettison.backends.hf import load_pretrained
from jettison.backends.onnx import MODEL
from jettison.candidate import Candidate
from jettison.compress import quantize_onnx
from jettison.compress.checkpoint import LICENCE_FILES, take_over, torch_run
from jettison.compress.embedder_index import index_corpus, is_embedder
from jettison.compress.export import write_encoder_graph
from jettison.compress.parity import probes
from jettison.compress.quiet import quiet_converters
from jettison.compress.step import Made, StepContext
from jettison.compress.versions import check_versions
from jettison.errors import ParityFailed, StepFailed
from jettison.files import link_or_copy

FAULTS = {"float32": 1e-4, "int8": 0.3}
"""1 - cosine of a vector and the checkpoint's, on any probe, that the precision does not explain."""
N_TEXTS = 100
KEPT = ("kind", "query_prefix", "passage_prefix", "max_tokens", "truncation_side", "pad_id", "depth")


class QuantizeEmbedder(msgspec.Struct, frozen=True, kw_only=True):
    """Write the encoder with its pooling as one graph for ONNX Runtime, and give it int8 weights.

    The corpus of a task of kind `embed` is embedded anew: vectors of two models do not compare.
    """

    name: ClassVar[str] = "quantize_embedder"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "onnx", "onnxruntime")

    precision: Literal["int8", "float32"] = "int8"
    """`int8`: dynamic, the range of activations is found anew for each input."""
    reduce_range: Literal["auto"] | bool = "auto"
    """Keep int8 weights to 7 bits. `auto`: where the processor lacks VNNI."""

    def resolved_here(self) -> dict[str, Any]:
        """Whether this processor needs 7-bit weights."""
        if self.precision != "int8":
            return {}
        return {"reduce_range": quantize_onnx.reduces_range(self.reduce_range)}

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Export, quantize, compare, embed the corpus.

        Raises:
            StepFailed: The candidate is no encoder's checkpoint that embeds.
            ParityFailed: Vectors lie further from the checkpoint's than the precision explains.
            MissingExtra: torch, onnx or onnxruntime is not installed.
        """
        check_encoder(candidate, self.name)
        check_versions("torch", "onnx")
        link_or_copy(candidate.path / "tokenizer.json", context.folder / "tokenizer.json")
        with torch_run(seed=context.seed, threads=context.threads):
            notes = self._write(candidate, context)
        take_over(candidate.path, context.folder, LICENCE_FILES)
        settings = {key: candidate.settings[key] for key in KEPT if key in candidate.settings}
        notes |= self._compare(candidate, settings, context)
        notes["n_passages"] = index_corpus(context.folder, settings, context.data, context.progress)
        return Made(settings=settings, notes=notes, resolved=self.resolved_here())

    def _write(self, candidate: Candidate, context: StepContext) -> dict[str, Any]:
        import torch

        from jettison.backends.torch_modules import PooledLogits

        context.progress("exporting the encoder", None)
        encoder = load_pretrained(candidate.path, "AutoModel")
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # its output is not read
        pooling = str(candidate.settings.get("pooling", "mean"))
        module = PooledLogits(encoder, torch.nn.Identity(), pooling, False).eval()
        if self.precision == "float32":
            return write_encoder_graph(module, candidate, context.folder)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=context.folder) as temporary:
            notes = write_encoder_graph(module, candidate, Path(temporary))
            context.progress("quantizing", None)
            plan = quantize_onnx.Int8(reduce_range=quantize_onnx.reduces_range(self.reduce_range))
            with quiet_converters():
                notes |= quantize_onnx.quantize_dynamic(
                    Path(temporary) / MODEL, context.folder / MODEL, plan
                )
        return notes

    def _compare(
        self, candidate: Candidate, settings: dict[str, Any], context: StepContext
    ) -> dict[str, Any]:
        """Distances from the checkpoint's vectors: on probes, and on inputs of the task."""
        before = open_embedder(candidate.path, {**candidate.settings, "threads": context.threads})
        after = open_embedder(context.folder, settings)
        worst = max(
            float(distances(before.embed(texts), after.embed(texts)).max())
            for texts in probes(context.folder / "tokenizer.json").values()
        )
        if not worst <= FAULTS[self.precision]:
            raise ParityFailed(
                f"{self.precision} vectors must lie within {FAULTS[self.precision]} of those of "
                f"{candidate.name} (1 - cosine), got {worst:.3g}. Leave this encoder to another runtime."
            )
        data = context.data
        asked = [e.input for e in (*data.train, *data.unlabelled, *data.dev_fit)][:N_TEXTS]
        mean = None if not asked else float(distances(before.embed(asked), after.embed(asked)).mean())
        return {"max_distance": worst, "mean_distance": mean, "n_texts": len(asked)}


def check_encoder(candidate: Candidate, step: str) -> None:
    """Refuse what is no encoder's checkpoint that embeds.

    Raises:
        StepFailed: It is of another backend, or already a graph or a table.
    """
    if not is_embedder(candidate) or not (candidate.path / "config.json").is_file():
        raise StepFailed(
            f"step {step!r} must start from an embedder's checkpoint (config.json and safetensors), got "
            f"{candidate.name} of backend {candidate.backend!r}."
        )


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 - cosine of rows of length 1, shape (n,); not a number where one is not finite."""
    return np.asarray(1.0 - (one * other).sum(axis=1))
