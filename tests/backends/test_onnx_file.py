"""An ONNX file is looked at to its end, and no weight of it is read."""

from pathlib import Path

import pytest

from jettison.backends.onnx_file import check_onnx_file
from jettison.errors import BrokenArtifact


def field(number: int, content: bytes) -> bytes:
    """A field of a message, as Protocol Buffers write it; contents of up to 127 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


def model(location: str | None = None) -> bytes:
    entry = field(1, b"location") + field(2, (location or "").encode())
    tensor = field(8, b"weight") + (b"" if location is None else field(13, entry))
    return b"\x08\x0a" + field(7, field(5, tensor) + field(2, b"main"))  # ir_version 10, then the graph


def test_a_whole_file_is_let_through(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model())
    check_onnx_file(path)
    (tmp_path / "model.data").write_bytes(b"")
    path.write_bytes(model("model.data"))
    check_onnx_file(path)


def test_what_the_onnx_library_writes_is_let_through(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    weight = helper.make_tensor("w", kinds.FLOAT, [200, 2], [0.5] * 400)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    given, made = (helper.make_tensor_value_info(name, kinds.FLOAT, None) for name in "xy")
    made = onnx.helper.make_model(helper.make_graph([node], "g", [given], [made], [weight]))
    onnx.save(made, str(tmp_path / "model.onnx"))
    check_onnx_file(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a model at all",
        b"version https://git-lfs.github.com/spec/v1\n",
        model()[:-3],
        b"\x08\x0a",
    ],
    ids=["empty", "text", "pointer", "cut", "no graph"],
)
def test_what_is_no_whole_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(
        BrokenArtifact, match=r"model\.onnx must be a whole ONNX model, got .* Fetch it again"
    ):
        check_onnx_file(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname"])
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    path = tmp_path / "in" / "model.onnx"
    path.write_bytes(model(location))
    with pytest.raises(BrokenArtifact, match="must have its weights in its own folder, got "):
        check_onnx_file(path)


def test_weights_may_be_links_as_in_a_cache_of_the_hub(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    for name, content in (("model.onnx", model("model.data")), ("model.data", b"")):
        (tmp_path / "blobs" / name).write_bytes(content)
        (tmp_path / "snapshot" / name).symlink_to(tmp_path / "blobs" / name)
    check_onnx_file(tmp_path / "snapshot" / "model.onnx")


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model("model.data"))
    with pytest.raises(
        BrokenArtifact, match=r"must have its weights beside it, got no 'model\.data' there"
    ):
        check_onnx_file(tmp_path / "model.onnx")
