"""A GGUF file that does not keep to what it says is refused before native code opens it."""

import struct
from pathlib import Path
from typing import Any

import pytest

from jettison.backends.gguf_file import BLOCKS, read_gguf_facts
from jettison.errors import BrokenArtifact
from jettison.loop.look_model import look_at_model

GIVEN = {
    "general.architecture": "llama",
    "llama.context_length": 512,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "bc"],
    "tokenizer.ggml.token_type": [1, 3],
    "tokenizer.chat_template": "{{ messages }}",
    "general.quantized": True,
}
# (name, shape, number of the format, offset in the data): 64 float32 take 256 bytes, 64 of Q8_0 take 68.
TENSORS = [("a.weight", (32, 2), 0, 0), ("b.weight", (32, 2), 8, 256)]


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _value(value: Any) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case str():
            return struct.pack("<I", 8) + _text(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
        case [int(), *_]:
            return struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)
    raise TypeError(value)


def write(path: Path, *, keys: dict[str, Any] = GIVEN, tensors: Any = TENSORS, data: int = 324) -> Path:
    """A file written by hand, by the layout in ggml's `docs/gguf.md`."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    head += b"".join(_text(key) + _value(value) for key, value in keys.items())
    for name, shape, kind, offset in tensors:
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(data))
    return path


def test_a_sound_file_says_what_it_is(tmp_path: Path) -> None:
    facts = read_gguf_facts(write(tmp_path / "m.gguf"))
    assert (facts.architecture, facts.n_context_tokens, facts.chat_template) == (
        "llama",
        512,
        "{{ messages }}",
    )
    assert (facts.n_tensors, facts.n_parameters) == (2, 128)
    assert facts.metadata["general.quantized"] is True
    assert "tokenizer.ggml.tokens" not in facts.metadata
    plain = {key: value for key, value in GIVEN.items() if "template" not in key}
    assert read_gguf_facts(write(tmp_path / "plain.gguf", keys=plain)).chat_template is None


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"data": 323}, r"whole, got tensor 'b.weight' up to byte \d+ in a file of \d+ bytes"),
        ({"tensors": [TENSORS[0], ("a.weight", (32, 2), 0, 256)], "data": 600}, "every tensor once"),
        ({"tensors": [TENSORS[0], ("b", (32, 2), 0, 128)]}, "side by side, got 'b' over 'a.weight'"),
        ({"tensors": [("b", (32, 2), 0, 7)]}, "at multiples of 32, got 7 of 'b'"),
        ({"tensors": [("b", (33, 2), 8, 0)]}, "whole blocks of 32 weights"),
        ({"tensors": [("b", (0, 2), 0, 0)]}, "whole blocks of 1 weights"),
        ({"tensors": [("b", (1, 1, 1, 1, 1), 0, 0)]}, "1 to 4 dimensions, got 5 of 'b'"),
        ({"tensors": [("b", (2**40, 2**40), 0, 0)]}, "whole, got tensor 'b'"),
        ({"keys": {**GIVEN, "general.alignment": 48}}, "a power of 2, got 48"),
        ({"keys": {**GIVEN, "split.count": 4}}, "a part of 4. Join them"),
        ({"keys": {**GIVEN, "general.architecture": "bert"}}, "'bert', which writes no text"),
        ({"keys": {}}, "names its architecture, got none"),
        ({"keys": {"general.architecture": "llama"}}, "its tokenizer inside, got none"),
    ],
)
def test_a_file_that_does_not_keep_to_it_is_refused(
    change: dict[str, Any], rule: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.gguf", **change)
    with pytest.raises(BrokenArtifact, match=rule):
        read_gguf_facts(path)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "a GGUF file, got 0 bytes"),
        (b"PK\x03\x04" + bytes(60), r"begins with b'PK\\x03\\x04'"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 2 or 3, got version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian byte order"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "whole, got 1152921504606846976 tensors"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + bytes(9), "whole, got 9223372036854775808 bytes"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _text("k") + struct.pack("<I", 77), "type 77 of 'k'"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + _text("k") + struct.pack("<IIQ", 9, 8, 2**61),
            "texts in 'k'",
        ),
    ],
)
def test_a_header_that_lies_is_refused(content: bytes, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(BrokenArtifact, match=rule):
        read_gguf_facts(path)


def test_a_file_cut_anywhere_is_refused_and_never_crashes(tmp_path: Path) -> None:
    whole = write(tmp_path / "m.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    for n in range(len(whole)):
        cut.write_bytes(whole[:n])
        with pytest.raises(BrokenArtifact, match="must be"):
            read_gguf_facts(cut)


def test_sizes_of_blocks_are_those_of_the_reference() -> None:
    gguf = pytest.importorskip("gguf")
    known = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert {kind: size for kind, size in known.items() if kind in BLOCKS} == BLOCKS


def test_an_incumbent_is_checked_before_anything_opens_it(tmp_path: Path) -> None:
    from jettison.compress.incumbent_language import take_in_gguf
    from tiny import make_tiny_development

    path = write(tmp_path / "m.gguf", data=100)
    with pytest.raises(BrokenArtifact, match=r"whole, got tensor 'a\.weight'"):
        take_in_gguf(path, make_tiny_development(), cache=tmp_path / "cache", seed=0)
    assert not (tmp_path / "cache").exists()


def test_init_knows_a_file_by_its_header(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf")
    for place in (path, tmp_path):
        found = look_at_model(str(place))
        assert (found.kind, found.is_language, found.labels) == ("gguf", True, None)
        assert found.architecture == read_gguf_facts(path).architecture
        assert found.bytes == path.stat().st_size
