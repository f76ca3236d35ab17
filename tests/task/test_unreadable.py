"""Files that are there and cannot be read."""

import errno
from pathlib import Path

import pytest

from jettison.errors import InvalidInput
from jettison.task.tables import read_table


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_a_data_file_that_may_not_be_read_is_named(tmp_path, monkeypatch, suffix):
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    (tmp_path / f"a.{suffix}").write_text("x")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InvalidInput, match=rf"a\.{suffix} must be a readable file, got Permission denied"):
        read_table(tmp_path / f"a.{suffix}")
