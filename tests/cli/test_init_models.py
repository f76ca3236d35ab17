"""Models that `jettison init` refuses by their files, before a run would."""

import json
from pathlib import Path
from typing import Any

import pytest

from init_orders import LABELS
from jettison.errors import BrokenArtifact
from jettison.loop.init import look
from tiny import make_tiny_bert


def test_a_header_of_no_tensors_and_weights_that_are_no_file_are_refused(
    tmp_path: Path, data: Path
) -> None:
    folder = make_tiny_bert(tmp_path / "m", LABELS, layers=1)
    weights = folder / "model.safetensors"
    weights.write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(BrokenArtifact, match=r"must be a whole safetensors file, got no header of tensors"):
        look(str(folder), data, out=tmp_path / "o")
    weights.unlink()
    weights.symlink_to(weights)
    with pytest.raises(BrokenArtifact, match=r"model\.safetensors must be a safetensors file, got "):
        look(str(folder), data, out=tmp_path / "o")
    weights.unlink()
    weights.mkdir()
    with pytest.raises(BrokenArtifact, match=r"model\.safetensors must be a safetensors file, got "):
        look(str(folder), data, out=tmp_path / "o")


def reconfigured(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": "BertForSequenceClassification"}, "must be a list of names, got 'Bert"),
        ({"id2label": list(LABELS)}, r"must be an object as .*, got \['buy'"),
        ({"model_type": "bertx"}, "must be one that transformers .* knows, got 'bertx'"),
    ],
)
def test_settings_of_a_checkpoint_that_would_not_load_are_refused(
    tmp_path: Path, data: Path, changes: dict[str, Any], said: str
) -> None:
    folder = reconfigured(make_tiny_bert(tmp_path / "m", LABELS, layers=1), **changes)
    with pytest.raises(BrokenArtifact, match=said):
        look(str(folder), data, out=tmp_path / "o")


def test_a_kind_of_model_that_brings_its_own_code_is_not_refused(tmp_path: Path, data: Path) -> None:
    own = {"model_type": "bertx", "auto_map": {"AutoConfig": "own.Config"}}
    folder = reconfigured(make_tiny_bert(tmp_path / "m", LABELS, layers=1), **own)
    assert look(str(folder), data, out=tmp_path / "o").model.kind == "checkpoint"


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_refused(tmp_path: Path, data: Path) -> None:
    folder = make_tiny_bert(tmp_path / "m", LABELS, layers=1)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zzz"] = 100_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BrokenArtifact, match=r"tokens of .* got 'zzz' of id 100,000\. Save the tokenizer"):
        look(str(folder), data, out=tmp_path / "o")


def test_an_onnx_file_that_is_cut_short_is_refused(tmp_path: Path, data: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a\x3a\x40")
    with pytest.raises(BrokenArtifact, match="must be a whole ONNX model, got an end after 4 bytes"):
        look(str(tmp_path / "model.onnx"), data, out=tmp_path / "o")
