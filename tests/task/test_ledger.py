"""The count of test reads survives crashes and cannot be dodged by a read-only disk."""

from pathlib import Path

import pytest

from jettison.errors import CannotWrite
from jettison.task.ledger import count_test_read, read_ledger


def test_each_purpose_counts_once_for_each_test_split(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "reads.jsonl"
    counts = [count_test_read(path, test_digest="a", purpose=purpose) for purpose in ("p", "p", "q")]
    assert counts == [1, 1, 2]
    assert count_test_read(path, test_digest="b", purpose="p") == 1
    assert [(line.test_digest, line.purpose) for line in read_ledger(path)] == [
        ("a", "p"),
        ("a", "q"),
        ("b", "p"),
    ]


def test_a_line_torn_by_a_crash_is_passed_over_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "reads.jsonl"
    count_test_read(path, test_digest="a", purpose="p")
    with path.open("ab") as file:
        file.write(b'{"test_digest": "a", "purp')
    assert count_test_read(path, test_digest="a", purpose="q") == 2
    assert count_test_read(path, test_digest="a", purpose="r") == 3


def test_a_reading_that_cannot_be_written_down_does_not_happen(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match=r"cannot be written: a file stands where a folder is needed"):
        count_test_read(tmp_path / "file" / "reads.jsonl", test_digest="a", purpose="p")
