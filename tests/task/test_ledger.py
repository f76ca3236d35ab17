"""The count of test reads survives crashes and cannot be dodged by a read-only disk."""

from pathlib import Path

import pytest

from jettison.errors import CannotWrite
from jettison.task.ledger import carry_readings, count_test_read, n_test_reads, read_ledger


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


def texts(start: int, n: int) -> list[str]:
    return [f"text {i}" for i in range(start, start + n)]


def test_a_test_split_that_grew_is_still_read(tmp_path):
    path = tmp_path / "reads.jsonl"
    counts = [
        count_test_read(path, test_digest=str(n), purpose=f"{n}", texts=texts(0, n))
        for n in (500, 501, 900)
    ]
    assert counts == [1, 2, 3]
    assert count_test_read(path, test_digest="501", purpose="501", texts=texts(0, 501)) == 2
    assert n_test_reads(path, test_digest="2000", texts=texts(0, 2000)) == 3  # nearly half of it


@pytest.mark.parametrize("n", [200, 5000])
def test_a_test_split_that_is_new_but_for_a_few_texts_is_new(tmp_path, n):
    path = tmp_path / "reads.jsonl"
    count_test_read(path, test_digest="old", purpose="p", texts=texts(0, n))
    assert count_test_read(path, test_digest="new", purpose="p", texts=texts(n - n // 50, n)) == 1
    assert count_test_read(path, test_digest="half", purpose="p", texts=texts(n // 2, n)) == 3  # of both


def test_the_texts_of_a_split_are_kept_with_its_first_reading_alone(tmp_path):
    path = tmp_path / "reads.jsonl"
    for purpose in "pq":
        count_test_read(path, test_digest="a", purpose=purpose, texts=texts(0, 1000))
    first, second = read_ledger(path)
    assert (len(first.sketch), first.n_texts) == (256, 1000)
    assert (second.sketch, second.n_texts) == ((), None)


def test_what_was_read_is_carried_over_with_what_it_grew_out_of(tmp_path):
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    count_test_read(old, test_digest="a", purpose="p", texts=texts(0, 300))
    count_test_read(old, test_digest="b", purpose="q", texts=texts(0, 400))
    carry_readings(old, of="b", new=new, test_digest="c")
    assert [line.purpose for line in read_ledger(new)] == ["p", "q"]
    assert count_test_read(new, test_digest="c", purpose="r", texts=texts(0, 600)) == 3
