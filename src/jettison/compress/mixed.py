"""Mixed precision: int8 but for the layers that lose the most by it, found by trying each.

All are quantized first. If that costs too much, every node with weights is quantized alone,
and what it does to the answers on dev texts is its sensitivity; then the most sensitive are
put back to float until the quality on dev holds. The quality is a point estimate on the texts searched on:
whether the result is good enough is for the decision to say, on other data.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.onnx import MODEL
from jettison.candidate import Candidate
from jettison.compress import quantize_onnx
from jettison.compress.export import Export
from jettison.compress.quantize import fidelity_texts, logits_of, mean_kl, measure_fidelity
from jettison.compress.quiet import quiet_converters
from jettison.compress.step import Made, StepContext
from jettison.errors import InvalidInput, NotEnoughData, OutOfTime, StepFailed
from jettison.files import link_or_copy

N_TEXTS = 200


class MixedPrecision(msgspec.Struct, frozen=True, kw_only=True):
    """Dynamic int8 of an `onnx` (or `hf`) candidate, its most sensitive layers left in float."""

    quality_loss: Annotated[float, msgspec.Meta(ge=0.0)] = 0.005
    """Largest loss, on the first half of dev, of the share of right answers (of agreement with the
    float model, where no labels are given)."""
    measure: Literal["accuracy", "agreement"] = "accuracy"
    per_channel: bool = True
    reduce_range: Literal["auto"] | bool = "auto"
    """As in `quantize`."""
    embeddings: bool = True
    n_texts: Annotated[int, msgspec.Meta(ge=1)] = N_TEXTS
    """Texts that sensitivities are measured on; the quality, on all of the first half of dev."""

    name: ClassVar[str] = "mixed_precision"
    code_version: ClassVar[int] = 3
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx")

    def resolved_here(self) -> dict[str, Any]:
        """Whether this processor needs 7-bit weights."""
        return {"reduce_range": quantize_onnx.reduces_range(self.reduce_range)}

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Search, and write the smallest set of float layers that holds the quality.

        Raises:
            InvalidInput: The candidate is neither `onnx` nor `hf`.
            NotEnoughData: The first half of dev is empty.
            StepFailed: The weights are int8 or float16 already, or not even one quantized layer holds the
                quality: the float model is the answer.
        """
        if candidate.backend not in ("hf", "onnx"):
            raise InvalidInput(
                f"mixed_precision must start from backend 'hf' or 'onnx', got {candidate.backend!r}."
            )
        if not context.data.dev_fit:
            raise NotEnoughData("mixed_precision needs at least 1 example in the first half of dev, got 0.")
        with tempfile.TemporaryDirectory(prefix="jettison-mixed-") as temporary:
            parent, notes = _as_onnx(candidate, context, Path(temporary) / "float")
            quantize_onnx.check_weights(parent.path / MODEL)
            search = _Search(self, parent, context, Path(temporary))
            trace, kept, steps = search.run()
            plan = search.plan(kept)
            with quiet_converters():
                counted = quantize_onnx.quantize_dynamic(parent.path / MODEL, context.folder / MODEL, plan)
            link_or_copy(parent.path / "tokenizer.json", context.folder / "tokenizer.json")
            made = _one_by_one(parent, context.folder)
            fidelity = measure_fidelity(parent, made, fidelity_texts(context, self.n_texts))
        return Made(
            backend="onnx",
            settings=made.settings,
            notes={
                **notes,
                **counted,
                "fidelity": fidelity,
                "float_quality": search.float_quality,
                "quality": steps[-1]["quality"],
                "n_quality_texts": len(search.quality_texts),
                "search": steps,
                "layers": [{**item, "kept_in_float": item["layer"] in kept} for item in trace],
            },
            resolved={"reduce_range": plan.reduce_range, "kept_in_float": list(kept)},
        )


class _Search:
    """The float model's answers, and what quantizing this or that does to them."""

    def __init__(
        self, step: MixedPrecision, parent: Candidate, context: StepContext, scratch: Path
    ) -> None:
        self._step, self._parent, self._context, self._scratch = step, parent, context, scratch
        self._source = parent.path / MODEL
        self._texts = fidelity_texts(context, step.n_texts)
        self._float = logits_of(parent, self._texts)
        table = quantize_onnx.token_table(self._source) if step.embeddings else None
        self._layers = [
            node.name
            for node in quantize_onnx.weight_nodes(self._source)
            if node.op not in quantize_onnx.EMBEDDING_OPS or node.name == table
        ]
        labelled = [e for e in context.data.dev_fit if e.expected is not None]
        self.quality_texts = [example.input for example in labelled or context.data.dev_fit]
        answers = logits_of(parent, self.quality_texts).argmax(1)
        if step.measure == "accuracy" and labelled:
            self._wanted = np.array([parent.labels.index(str(e.expected)) for e in labelled])
        else:
            self._wanted = answers
        self.float_quality = float((answers == self._wanted).mean())

    def run(self) -> tuple[list[dict[str, Any]], tuple[str, ...], list[dict[str, Any]]]:
        """Sensitivity of each layer, the layers kept in float, and what was tried.

        Nothing is measured layer by layer when everything in int8 already holds the quality.
        """
        if not self._layers:
            raise StepFailed("mixed_precision must have layers to quantize, got a graph with none.")
        first = self._tried(())
        if self._holds(first):
            return [], (), [first]
        trace = self.sensitivities()
        kept, steps = self.keep_until_good([item["layer"] for item in trace], first)
        return trace, kept, steps

    def sensitivities(self) -> list[dict[str, Any]]:
        """Each layer with the divergence that quantizing it alone brings, the most sensitive first."""
        found = []
        for number, layer in enumerate(self._layers):
            self._check_time()
            others = tuple(other for other in self._layers if other != layer)
            candidate = self._quantized(others)
            logits = logits_of(candidate, self._texts)
            found.append({"layer": layer, "kl": mean_kl(self._float, logits)})
            share = (number + 1) / len(self._layers)
            self._context.progress(f"trying {layer} in int8", share)
        return sorted(found, key=lambda item: (-float(str(item["kl"])), str(item["layer"])))

    def keep_until_good(
        self, ranked: list[str], first: dict[str, Any]
    ) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
        """The fewest of the most sensitive layers that, kept in float, hold the quality.

        Args:
            ranked: All layers, the most sensitive first.
            first: What came of keeping none.

        Returns:
            Their names, and what was tried: layers kept in float, and the quality then.
        """
        steps = [first]
        for n_kept in _growing(len(ranked)):
            self._check_time()
            steps.append(self._tried(tuple(ranked[:n_kept])))
            if self._holds(steps[-1]):
                return tuple(ranked[:n_kept]), steps
        best = max(step["quality"] for step in steps)
        raise StepFailed(
            f"mixed precision must lose at most {self._step.quality_loss:g} of {self.float_quality:.4f} on "
            f"{len(self.quality_texts)} dev texts, got {best:.4f} at best. The float model stays."
        )

    def _tried(self, kept: tuple[str, ...]) -> dict[str, Any]:
        self._context.progress(f"int8 with {len(kept)} layers in float", None)
        logits = logits_of(self._quantized(kept), self.quality_texts)
        quality = float((logits.argmax(1) == self._wanted).mean())
        return {"n_kept_in_float": len(kept), "quality": quality}

    def _holds(self, tried: dict[str, Any]) -> bool:
        return bool(tried["quality"] >= self.float_quality - self._step.quality_loss - 1e-12)

    def plan(self, kept: tuple[str, ...]) -> quantize_onnx.Int8:
        """Everything in int8 but the layers kept."""
        return quantize_onnx.Int8(
            per_channel=self._step.per_channel,
            reduce_range=quantize_onnx.reduces_range(self._step.reduce_range),
            embeddings=self._step.embeddings,
            exclude=kept,
        )

    def _quantized(self, kept: tuple[str, ...]) -> Candidate:
        with quiet_converters():
            quantize_onnx.quantize_dynamic(self._source, self._scratch / MODEL, self.plan(kept))
        if not (self._scratch / "tokenizer.json").exists():
            link_or_copy(self._parent.path / "tokenizer.json", self._scratch / "tokenizer.json")
        return _one_by_one(self._parent, self._scratch)

    def _check_time(self) -> None:
        deadline = self._context.deadline
        if deadline is not None and deadline.is_over():
            raise OutOfTime("mixed_precision must end before its deadline, got no result in time.")


def _one_by_one(parent: Candidate, folder: Path) -> Candidate:
    """The parent as quantized into a folder."""
    settings = {**parent.settings, **quantize_onnx.ONE_BY_ONE}
    return msgspec.structs.replace(parent, path=folder, settings=settings)


def _growing(n: int) -> list[int]:
    """1, 2, 3, 4, 6, 9, 13, ... below n: how many layers to keep in float, one after the other."""
    steps, k = [], 1.0
    while k < n:
        steps.append(int(k))
        k = k + 1 if k < 4 else k * 1.5
    return steps


def _as_onnx(candidate: Candidate, context: StepContext, folder: Path) -> tuple[Candidate, dict[str, Any]]:
    """The candidate itself, or its export when it is still a checkpoint, with notes about that."""
    if candidate.backend == "onnx":
        return candidate, {}
    folder.mkdir()
    made = Export(target="onnx").make(candidate, replace(context, folder=folder))
    parent = msgspec.structs.replace(candidate, path=folder, backend="onnx", settings=made.settings or {})
    return parent, {"export": {**made.notes, **made.resolved}}
