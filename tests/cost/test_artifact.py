"""Size of an artifact as it is shipped."""

import os
from pathlib import Path

from jettison.candidate import write_candidate
from jettison.cost.artifact import compressed_bytes


def test_what_repeats_gets_small_and_what_is_random_does_not(tmp_path: Path) -> None:
    sizes = []
    for name, content in (("even", bytes(3_000_000)), ("random", os.urandom(3_000_000))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(content)
        made = write_candidate(tmp_path / name, name=name, backend="fake", labels=("a", "b"))
        sizes.append(compressed_bytes(made))
    even, random = sizes
    assert 0 < even < 3_000
    assert 3_000_000 < random < 3_010_000
