"""Makes int8 ONNX files of a transformers checkpoint with ONNX Runtime's own tools, as its users do.

Nothing of jettison is imported here: this is the peer.
"""

import shutil
from pathlib import Path

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def make_peers(checkpoint: Path, folder: Path) -> list[Path]:
    """Plain and fused export, each quantized dynamically per channel; folders with model and tokenizer."""
    if not (folder / "done").exists():
        folder.mkdir(parents=True, exist_ok=True)
        exported = _export(checkpoint, folder / "float32.onnx")
        fused = _fuse(exported, checkpoint, folder / "fused.onnx")
        for name, source in (("plain", exported), ("fused", fused)):
            _quantize(source, checkpoint, folder / name)
        (folder / "done").touch()
    return [folder / "plain", folder / "fused"]


def _export(checkpoint: Path, target: Path) -> Path:
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(
        checkpoint, attn_implementation="eager"
    ).eval()

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
            return self.model(input_ids=input_ids, **given).logits

    sample = tuple(torch.ones((2, 12), dtype=torch.long) for _ in INPUTS)
    axes = {name: {0: "batch", 1: "tokens"} for name in INPUTS} | {"logits": {0: "batch"}}
    torch.onnx.export(
        Logits().eval(),
        sample,
        str(target),
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    return target


def _fuse(exported: Path, checkpoint: Path, target: Path) -> Path:
    from onnxruntime.transformers import optimizer
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(checkpoint)
    optimized = optimizer.optimize_model(
        str(exported),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=0,
    )
    optimized.save_model_to_file(str(target))
    return target


def _quantize(source: Path, checkpoint: Path, folder: Path) -> None:
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir(exist_ok=True)
    quantize_dynamic(
        str(source),
        str(folder / "model.onnx"),
        per_channel=True,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )
    shutil.copyfile(checkpoint / "tokenizer.json", folder / "tokenizer.json")
