"""Quantize: fewer bits for weights, and for activations where the runtime can use it."""

import fnmatch
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from jettison.backends.onnx import MODEL
from jettison.backends.open import open_model
from jettison.backends.text import load_tokenizer, truncation_side
from jettison.candidate import Candidate
from jettison.compress import quantize_onnx, quantize_openvino
from jettison.compress.export import Export
from jettison.compress.quiet import quiet_converters
from jettison.compress.step import Made, StepContext
from jettison.compress.versions import check_versions
from jettison.errors import InvalidInput, JettisonError, NotEnoughData, StepFailed
from jettison.files import is_disk_full, link_or_copy
from jettison.model import softmax

METHODS = {
    "onnx": ("dynamic", "static", "nncf", "weights8", "weights4"),
    "openvino": ("nncf", "weights8", "weights4"),
}
N_FIDELITY = 200
"""Dev texts on which a quantized model is held against the one it came from."""
_PAD_TO = 8

Method = Literal["dynamic", "static", "nncf", "weights8", "weights4"]


class Quantize(msgspec.Struct, frozen=True, kw_only=True):
    """Give an `onnx` or `openvino` candidate int8 or int4 weights; an `hf` one is exported first."""

    method: Method = "dynamic"
    """`dynamic`: int8, activations quantized on the fly, ONNX alone, no calibration; it answers one text
    at a time (`batch_size` 1), so that an answer does not depend on others. `static`: int8 by
    ONNX Runtime with fixed activation ranges. `nncf`: int8 by NNCF with SmoothQuant and bias
    correction, for either runtime. `weights8`, `weights4`: weights alone."""
    per_channel: bool = True
    """One scale for each output channel of a weight (`dynamic`, `static`)."""
    reduce_range: Literal["auto"] | bool = "auto"
    """Keep int8 weights to 7 bits (`dynamic`, `static`, `nncf`). `auto`: where the processor lacks VNNI and
    sums of int8 products would saturate."""
    embeddings: bool = True
    """Quantize the token table too: it is half the bytes of a small model. Positions and token types
    stay in float: in int8 they cost more agreement than all the rest (measured)."""
    exclude: tuple[str, ...] = ()
    """Names of graph nodes to leave in float; `*` stands for anything."""
    n_calibration: Annotated[int, msgspec.Meta(ge=1)] = 300
    """Texts of `unlabelled` and of the first half of dev that `static` and `nncf` measure ranges on."""
    block_size: Literal[16, 32, 64, 128] = 32
    """Weights that share a scale in `weights8` and `weights4` of ONNX, and `weights4` of OpenVINO."""

    name: ClassVar[str] = "quantize"
    code_version: ClassVar[int] = 4
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "onnx", "openvino", "nncf")

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Quantize, save, open what was saved and hold it against the parent on dev texts.

        Raises:
            MissingExtra: A library is not installed, or of a version that was not tried.
            InvalidInput: The method does not exist for the candidate's format, or `exclude`
                names no node.
            NotEnoughData: There is no text to calibrate on.
            StepFailed: The weights are int8 or float16 already, the quantizer gave up, or the result
                gives no finite logits.
        """
        with tempfile.TemporaryDirectory(prefix=".export-") as temporary:
            parent, exported = self._runnable(candidate, replace(context, folder=Path(temporary)))
            check_versions(parent.backend)
            link_or_copy(parent.path / "tokenizer.json", context.folder / "tokenizer.json")
            context.progress(f"quantizing ({self.method})", None)
            try:
                with quiet_converters():
                    notes, resolved = self._quantize(parent, context)
            except JettisonError:
                raise
            except Exception as error:  # quantizers raise anything
                if is_disk_full(error):
                    raise
                first = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                raise StepFailed(
                    f"quantize by {self.method!r} must take this graph, got {first}"
                ) from error
            alone = quantize_onnx.ONE_BY_ONE if self.method == "dynamic" else {}
            settings = {**parent.settings, **alone}
            made = msgspec.structs.replace(parent, path=context.folder, settings=settings)
            notes["fidelity"] = measure_fidelity(parent, made, fidelity_texts(context, N_FIDELITY))
        return Made(
            backend=parent.backend,
            settings=settings,
            notes={**exported, **notes},
            resolved=resolved,
        )

    def _runnable(self, candidate: Candidate, context: StepContext) -> tuple[Candidate, dict[str, Any]]:
        """The candidate itself, or its export when it is still a checkpoint, with notes about that."""
        if candidate.backend in METHODS:
            if self.method not in METHODS[candidate.backend]:
                raise InvalidInput(
                    f"method of quantize must be one of {list(METHODS[candidate.backend])} for a candidate "
                    f"of backend {candidate.backend!r}, got {self.method!r}."
                )
            return candidate, {}
        if candidate.backend != "hf":
            raise InvalidInput(
                f"quantize must start from backend 'hf', 'onnx' or 'openvino', got {candidate.backend!r}."
            )
        # Contrib nodes of a fused graph are opaque to every method but `dynamic`.
        to: Any = "openvino" if self.method == "nncf" else "onnx"
        export = Export(target=to, method="auto" if self.method == "dynamic" else "plain")
        made = export.make(candidate, context)
        parent = msgspec.structs.replace(
            candidate, path=context.folder, backend=to, settings=made.settings or {}
        )
        return parent, {"export": {**made.notes, **made.resolved}}

    def _quantize(self, parent: Candidate, context: StepContext) -> tuple[dict[str, Any], dict[str, Any]]:
        """Write the quantized model; return notes, and settings as they were resolved."""
        if parent.backend == "openvino":
            feeds = self._feeds(parent, context) if self.method == "nncf" else []
            source = next(
                parent.path / name for name in ("model.xml", MODEL) if (parent.path / name).is_file()
            )
            quantize_openvino.quantize(
                source,
                context.folder / "model.xml",
                method=self.method,
                feeds=feeds,
                exclude=self.exclude,
                embeddings=self.embeddings,
                block_size=self.block_size,
                reduce_range=quantize_onnx.reduces_range(self.reduce_range),
            )
            return ({"n_calibration": len(feeds)} if feeds else {}), self.resolved_here()
        source, target = parent.path / MODEL, context.folder / MODEL
        quantize_onnx.check_weights(source)
        if self.method in ("static", "nncf"):
            quantize_onnx.check_plain(source, self.method)
        excluded = self._excluded(source)
        if self.method in ("weights8", "weights4"):
            bits = 8 if self.method == "weights8" else 4
            quantize_onnx.compress_weights(
                source,
                target,
                bits=bits,
                block_size=self.block_size,
                exclude=excluded,
                embeddings=self.embeddings,
            )
            return {}, {}
        if self.method == "dynamic":
            plan = quantize_onnx.Int8(
                per_channel=self.per_channel,
                reduce_range=quantize_onnx.reduces_range(self.reduce_range),
                embeddings=self.embeddings,
                exclude=excluded,
            )
            return quantize_onnx.quantize_dynamic(source, target, plan), self.resolved_here()
        feeds = self._feeds(parent, context)
        notes: dict[str, Any] = {"n_calibration": len(feeds)}
        if self.method == "nncf":
            reduced = quantize_onnx.reduces_range(self.reduce_range)
            quantize_onnx.quantize_nncf(source, target, feeds, exclude=excluded, reduce_range=reduced)
            return notes, self.resolved_here()
        plan = quantize_onnx.Int8(
            per_channel=self.per_channel,
            reduce_range=quantize_onnx.reduces_range(self.reduce_range),
            embeddings=self.embeddings,
            exclude=excluded,
        )
        quantize_onnx.quantize_static(source, target, plan, feeds)
        return notes, self.resolved_here()

    def resolved_here(self) -> dict[str, Any]:
        """Whether this processor needs 7-bit weights, for the methods that ask."""
        if self.method not in ("dynamic", "static", "nncf"):
            return {}
        return {"reduce_range": quantize_onnx.reduces_range(self.reduce_range)}

    def _excluded(self, source: Path) -> tuple[str, ...]:
        """Names of the graph's nodes that `exclude` matches."""
        if not self.exclude:
            return ()
        names = quantize_onnx.node_names(source)
        found = tuple(n for n in names if any(fnmatch.fnmatchcase(n, rule) for rule in self.exclude))
        for rule in self.exclude:
            if not fnmatch.filter(names, rule):
                weighty = [node.name for node in quantize_onnx.weight_nodes(source)]
                raise InvalidInput(
                    f"exclude must name nodes of the graph, got {rule!r}, which names none. "
                    f"Nodes with weights are {weighty[:8]} …"
                )
        return found

    def _feeds(self, parent: Candidate, context: StepContext) -> list[dict[str, np.ndarray]]:
        texts = calibration_texts(context, self.n_calibration)
        return token_feeds(parent, texts)


def has_float_weights(candidate: Candidate) -> bool:
    """Whether a candidate, where it is an ONNX graph, has weights that can be made int8; a cheap look."""
    if candidate.backend != "onnx" or find_spec("onnx") is None:
        return True
    return not quantize_onnx.why_not_quantized(candidate.path / MODEL)


def calibration_texts(context: StepContext, n: int) -> list[str]:
    """Up to n texts of `unlabelled` and the first half of dev (of train, if there are none), drawn by seed.

    Raises:
        NotEnoughData: There is no text at all.
    """
    data = context.data
    pool = [example.input for example in (*data.unlabelled, *data.dev_fit)]
    pool = pool or [example.input for example in data.train]
    if not pool:
        raise NotEnoughData("calibration needs at least 1 text in dev, unlabelled or train, got 0.")
    rng = np.random.default_rng(context.seed)
    return [pool[index] for index in rng.permutation(len(pool))[:n]]


def fidelity_texts(context: StepContext, n: int) -> list[str]:
    """Up to n texts of the first half of dev, else of train or unlabelled, drawn by seed."""
    data = context.data
    pool = [example.input for example in (data.dev_fit or data.dev or data.train or data.unlabelled)]
    rng = np.random.default_rng(context.seed)
    return [pool[index] for index in rng.permutation(len(pool))[:n]]


def token_feeds(candidate: Candidate, texts: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Inputs of the graph for each text alone, padded to a multiple of 8 so that padding is seen too."""
    tokenizer = load_tokenizer(candidate.path / "tokenizer.json")
    tokenizer.enable_truncation(
        max_length=int(candidate.settings.get("max_tokens", 512)),
        direction=truncation_side(candidate.settings),
    )
    pad_id = int(candidate.settings.get("pad_id", 0))
    tokenizer.enable_padding(pad_id=pad_id, pad_to_multiple_of=_PAD_TO)
    feeds = []
    for text in texts:
        encoding = tokenizer.encode(text)
        if not encoding.ids:
            continue
        ids = np.array([encoding.ids], np.int64)
        mask = np.array([encoding.attention_mask], np.int64)
        feeds.append({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
    return feeds


def measure_fidelity(parent: Candidate, made: Candidate, texts: Sequence[str]) -> dict[str, Any]:
    """How far two candidates' answers are apart, both opened as they are served.

    Returns:
        Share of texts with the same label, mean Kullback-Leibler divergence of the
        probabilities in nats, largest difference of a logit, and the number of texts.

    Raises:
        StepFailed: A logit of the new one is no finite number.
    """
    if not texts:
        return {"n_texts": 0}
    before, after = logits_of(parent, texts), logits_of(made, texts)
    if not np.isfinite(after).all():
        raise StepFailed("the quantized model must give finite logits, got nan or inf.")
    return {
        "agreement_share": float((before.argmax(1) == after.argmax(1)).mean()),
        "mean_kl": mean_kl(before, after),
        "max_abs_difference": float(np.abs(before - after).max()),
        "n_texts": len(texts),
    }


def logits_of(candidate: Candidate, texts: Sequence[str]) -> np.ndarray:
    """Logits of texts, shape (n_texts, n_labels), by a candidate opened for the purpose."""
    model: Any = open_model(candidate)
    try:
        return np.asarray(model.logits(texts))
    finally:
        model.close()


def mean_kl(reference: np.ndarray, other: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence in nats of two sets of logits, both shape (n, n_labels)."""
    p, q = softmax(reference), softmax(other)
    tiny = np.finfo(np.float64).tiny
    return float((p * (np.log(p + tiny) - np.log(q + tiny))).sum(1).mean())
