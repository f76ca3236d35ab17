"""Export: the same weights in a faster runtime, refused unless the saved file answers the same."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from jettison.backends.hf import load_torch, quiet_transformers
from jettison.backends.onnx import MODEL
from jettison.backends.open import open_model
from jettison.backends.openvino import import_openvino
from jettison.backends.text import load_tokenizer
from jettison.candidate import Candidate
from jettison.compress.checkpoint_facts import MAX_TOKENS, position_limit
from jettison.compress.dead_parts import kept_without_weights
from jettison.compress.parity import TOLERANCE, check_parity, probes
from jettison.compress.quiet import quiet_converters
from jettison.compress.slim import slim
from jettison.compress.step import Made, StepContext
from jettison.compress.versions import check_versions
from jettison.errors import InvalidInput, MissingExtra, ParityFailed, StepFailed
from jettison.files import decode_json, is_disk_full, link_or_copy
from jettison.registry import need

FUSED_TYPES = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"})
"""`model_type`s whose attention ONNX Runtime's optimizer recognizes."""
TORCH_SETTINGS = frozenset({"dtype", "pooling", "normalize", "trust_remote_code"})
"""Settings of backend `hf` that are built into an exported graph."""
OPSET = 17

Method = Literal["auto", "fused", "plain", "transformers"]


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """Write an `hf` candidate as ONNX or OpenVINO (or an `onnx` one as OpenVINO)."""

    target: Literal["onnx", "openvino"] = "onnx"
    method: Method = "auto"
    """`fused`: traced, then ONNX Runtime's own attention and layer-norm nodes put in. `plain`:
    traced, standard operators alone. `transformers`: its exporter, by way of `torch.export`.
    `auto` takes the first that works, in that order. Fused leads because it costs the least: one
    text at a time, one thread, six layers of width 384, the others took 1.09 times its CPU time in
    float32 and 1.15 times in int8 (`benchmarks/export_routes.py`), and that before `slim` took out
    of it what cannot change an answer."""
    opset: int = OPSET
    """Version of the ONNX operators in a traced graph."""
    tolerance: float = TOLERANCE
    """Largest difference of a logit, relative to the largest logit or 1."""

    name: ClassVar[str] = "export"
    code_version: ClassVar[int] = 2
    reads_data: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "onnx", "onnxruntime", "openvino")

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Export by the first method that works and answers as the original does.

        Raises:
            MissingExtra: A library is not installed, or of a version that was not tried.
            InvalidInput: The candidate is in no format that can be exported to the target.
            ParityFailed: The exported file answers differently.
            StepFailed: No method could export it.
        """
        if candidate.backend not in ("hf", "onnx") or candidate.backend == self.target:
            raise InvalidInput(
                f"export to {self.target!r} must start from backend 'hf' (or 'onnx' for openvino), "
                f"got {candidate.backend!r}."
            )
        check_versions("torch", self.target)
        link_or_copy(candidate.path / "tokenizer.json", context.folder / "tokenizer.json")
        kept = {key: value for key, value in candidate.settings.items() if key not in TORCH_SETTINGS}
        settings = {**_limits(candidate), **kept}
        failures: dict[str, Exception] = {}
        for method in self._methods(candidate):
            context.progress(f"exporting to {self.target} ({method})", None)
            try:
                notes = _write(candidate, context.folder, self.target, method, self.opset)
                notes |= self._compare(candidate, context.folder, settings)
            except MissingExtra:
                raise
            except Exception as error:  # exporters raise anything; the next method may work
                if is_disk_full(error):
                    raise
                failures[method] = error
                for path in context.folder.glob("model*"):
                    path.unlink()
                continue
            refused = {failed: _first_line(error) for failed, error in failures.items()}
            return Made(
                backend=self.target,
                settings=settings,
                notes={**notes, **({"failed_methods": refused} if refused else {})},
                resolved={"method": method},
            )
        raise _all_failed(self.target, failures)

    def _methods(self, candidate: Candidate) -> tuple[str, ...]:
        if candidate.backend == "onnx":
            return ("plain",)
        if self.method != "auto":
            return (self.method,)
        return ("fused", "plain", "transformers") if self.target == "onnx" else ("plain", "transformers")

    def _compare(self, candidate: Candidate, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
        """Parity of the saved file, opened as it will be served, with the original in float32."""
        limits = {"max_tokens": settings.get("max_tokens", 512), "pad_id": settings.get("pad_id", 0)}
        float32 = {**candidate.settings, **limits, "dtype": "float32"}
        reference = open_model(msgspec.structs.replace(candidate, settings=float32))
        made = open_model(
            msgspec.structs.replace(candidate, path=folder, backend=self.target, settings=settings)
        )
        try:
            batches = probes(folder / "tokenizer.json")
            return {"parity": check_parity(reference, made, batches, tolerance=self.tolerance)}  # type: ignore[arg-type]  # both give logits
        finally:
            reference.close()
            made.close()


def _write(candidate: Candidate, folder: Path, target: str, method: str, opset: int) -> dict[str, Any]:
    """Write `model.onnx` or `model.xml` by one method; say what is worth noting."""
    if target == "openvino":
        return _write_openvino(candidate, folder, method)
    module = load_torch(candidate).float()
    sample = _sample(candidate)
    notes: dict[str, Any] = {}
    with quiet_converters(), quiet_transformers():
        if method == "transformers":
            _write_by_transformers(module, sample, folder)
        elif method == "plain":
            _trace(module, sample, folder / MODEL, opset)
        else:
            notes = _write_fused(module, sample, folder, opset)
    return notes | _still_there(module, notes)


def _still_there(module: Any, notes: dict[str, Any]) -> dict[str, Any]:
    """As a note: heads and neurons without weights that are computed all the same."""
    try:
        kept = kept_without_weights(module, notes)
    except AttributeError:  # code of the checkpoint's own, whose parts have other names
        return {}
    return {"kept_without_weights": kept} if kept else {}


def write_encoder_graph(module: Any, candidate: Candidate, folder: Path) -> dict[str, Any]:
    """Write `model.onnx` of a module that pools an encoder: fused where that works, else as traced.

    Args:
        module: `forward(input_ids, attention_mask)` gives one row a text; has `config`.
        candidate: Its tokenizer makes the sample to trace with.
        folder: Where the graph goes.

    Returns:
        What is worth noting.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
    """
    sample = _sample(candidate)
    with quiet_converters(), quiet_transformers():
        try:
            return _write_fused(module, sample, folder, OPSET)
        except MissingExtra:
            raise
        except Exception as error:  # the optimizer raises anything; a plain trace may work
            if is_disk_full(error):
                raise
            _trace(module, sample, folder / MODEL, OPSET)
            return {"failed_methods": {"fused": _first_line(error)}}


def _write_fused(module: Any, sample: dict[str, Any], folder: Path, opset: int) -> dict[str, Any]:
    config = module.config
    if config.model_type not in FUSED_TYPES:
        raise StepFailed(
            f"fused export must be of a model type among {sorted(FUSED_TYPES)}, got {config.model_type!r}."
        )
    need("onnxruntime", "onnx")
    optimizer = need("onnxruntime.transformers.optimizer", "onnx")
    # The patterns the optimizer knows are those of attention written out.
    for part in module.modules():
        if hasattr(part, "set_attn_implementation"):
            part.set_attn_implementation("eager")
    options = need("onnxruntime.transformers.fusion_options", "onnx").FusionOptions("bert")
    # Fused, the three tables of an embedding can only be quantized together, which costs answers.
    options.enable_embed_layer_norm = False
    with tempfile.TemporaryDirectory(dir=folder, prefix=".raw-") as temporary:
        raw = Path(temporary) / MODEL
        _trace(module, sample, raw, opset)
        fused = optimizer.optimize_model(
            str(raw),
            model_type="bert",
            num_heads=int(config.num_attention_heads),
            hidden_size=int(config.hidden_size),
            opt_level=0,
            optimization_options=options,
        )
        counts = fused.get_fused_operator_statistics()
        slimmed = slim(fused.model, config.model_type)
        fused.save_model_to_file(str(folder / MODEL))
    return {"fused_nodes": {kind: int(count) for kind, count in counts.items() if count}, **slimmed}


def _trace(module: Any, sample: dict[str, Any], path: Path, opset: int) -> None:
    torch = need("torch", "torch")
    need("onnx", "onnx")
    # A module left in train mode is put back into it by the exporter, and its logits carry dropout.
    module.eval()
    axes = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        module,
        (sample["input_ids"], sample["attention_mask"]),
        str(path),
        dynamo=False,
        opset_version=opset,
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "batch"}},
    )


def _write_by_transformers(module: Any, sample: dict[str, Any], folder: Path) -> None:
    exporters = need("transformers.exporters", "torch")
    onnx_ir = need("onnx_ir", "onnx")
    exported = exporters.OnnxExporter().export(
        _stock_model(module), sample, exporters.OnnxConfig(dynamic=True)
    )
    onnx_ir.save(exported.program, str(folder / MODEL))


def _write_openvino(candidate: Candidate, folder: Path, method: str) -> dict[str, Any]:
    openvino = import_openvino()
    notes: dict[str, Any] = {}
    if candidate.backend == "onnx":
        graph = openvino.convert_model(str(candidate.path / MODEL))
    else:
        module = load_torch(candidate).float()
        sample = _sample(candidate)
        with quiet_converters(), quiet_transformers():
            graph = (
                _openvino_by_transformers(module, sample)
                if method == "transformers"
                else openvino.convert_model(module, example_input=sample)
            )
        graph.outputs[0].get_tensor().set_names({"logits"})
        notes = _still_there(module, {})
    openvino.save_model(graph, str(folder / "model.xml"), compress_to_fp16=False)
    return notes


def _openvino_by_transformers(module: Any, sample: dict[str, Any]) -> Any:
    exporters = need("transformers.exporters", "torch")
    model = _stock_model(module)
    return (
        exporters.OpenVINOExporter().export(model, sample, exporters.OpenVINOConfig(dynamic=True)).program
    )


def _stock_model(module: Any) -> Any:
    """The checkpoint's own class, which is all that the exporters of `transformers` take."""
    model = getattr(module, "model", None)
    if model is None:
        raise StepFailed("method 'transformers' must have a stock checkpoint, got an encoder with a head.")
    return model


def _sample(candidate: Candidate) -> dict[str, Any]:
    """A padded batch of two, to trace with: an unpadded one lets the mask be traced away."""
    torch = need("torch", "torch")
    tokenizer = load_tokenizer(candidate.path / "tokenizer.json")
    tokenizer.no_truncation()
    tokenizer.enable_padding(pad_id=int(_limits(candidate).get("pad_id", 0)))
    encoded = tokenizer.encode_batch(["what is the balance of my account", "hi"])
    ids = torch.tensor([encoding.ids for encoding in encoded])
    return {"input_ids": ids, "attention_mask": torch.tensor([e.attention_mask for e in encoded])}


def _limits(candidate: Candidate) -> dict[str, Any]:
    """`pad_id` and `max_tokens` as the checkpoint's `config.json` has them, where it is there."""
    path = candidate.path / "config.json"
    config = decode_json(path.read_bytes(), dict[str, Any]) if path.is_file() else {}
    found: dict[str, Any] = {}
    if isinstance(pad := config.get("pad_token_id"), int):
        found["pad_id"] = pad
    if (positions := position_limit(config)) is not None:
        found["max_tokens"] = min(MAX_TOKENS, positions)
    return found


def _all_failed(target: str, failures: dict[str, Exception]) -> Exception:
    """The error to raise when no method worked: of parity, if one came that far."""
    said = "; ".join(f"{method}: {_first_line(error)}" for method, error in failures.items())
    kind: Callable[[str], Exception] = StepFailed
    if any(isinstance(error, ParityFailed) for error in failures.values()):
        kind = ParityFailed
    return kind(f"export to {target} must give a file that answers as the original, got {said}")


def _first_line(error: Exception) -> str:
    text = (
        str(error) if isinstance(error, ParityFailed | StepFailed) else f"{type(error).__name__}: {error}"
    )
    return " ".join(text.split())[:300]
