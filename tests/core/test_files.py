"""Folders are written whole or not at all, and nothing is left lying about for ever."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from jettison.errors import CannotWrite, InvalidInput
from jettison.files import (
    ABANDONED_S,
    decode_json,
    decode_toml,
    folder_atomic,
    is_disk_full,
    read_json,
    write_atomic,
)

HOURS_AGO = (1e9, 1e9)


def partials(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if ".partial-" in path.name]


def test_what_a_killed_process_left_of_a_folder_goes_when_it_is_made_again(tmp_path: Path) -> None:
    target = tmp_path / "step"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom jettison.files import folder_atomic\n"
        "with folder_atomic(Path(sys.argv[1])) as partial:\n"
        "    (partial / 'weights').write_bytes(bytes(1000))\n"
        "    print('begun', flush=True)\n    time.sleep(60)\n"
    )
    made = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True)
    assert made.stdout is not None
    assert made.stdout.readline() == "begun\n"
    (left,) = partials(tmp_path)
    os.utime(left, HOURS_AGO)
    with folder_atomic(target):
        assert left in partials(tmp_path)  # its maker lives
    made.send_signal(signal.SIGKILL)
    made.wait()
    made.stdout.close()
    os.utime(left, HOURS_AGO)
    with folder_atomic(target) as partial:
        (partial / "weights").write_text("whole")
    assert partials(tmp_path) == []
    assert (target / "weights").read_text() == "whole"


def test_nothing_but_old_partial_folders_of_the_same_target_is_removed(tmp_path: Path) -> None:
    kept = [tmp_path / name for name in (".step.backup", ".other.partial-abc", "step.partial-abc")]
    young = tmp_path / ".step.partial-young"
    for folder in (*kept, young):
        folder.mkdir()
    for folder in kept:
        os.utime(folder, HOURS_AGO)
    with folder_atomic(tmp_path / "step"):
        pass
    assert all(folder.is_dir() for folder in (*kept, young))
    assert ABANDONED_S < 3600


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (RuntimeError(f"cannot save: {os.strerror(errno.ENOSPC)} (os error 28)"), True),
        (OSError(errno.EACCES, "x"), False),
        (OSError("no number"), False),
        (RuntimeError("no such pattern"), False),
    ],
)
def test_a_full_disk_is_known_in_the_systems_errors_and_in_those_of_libraries(
    error: Exception, full: bool
) -> None:
    assert is_disk_full(error) is full


def test_what_a_link_leads_to_is_written_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    link.symlink_to("real/there.txt")
    dangling.symlink_to("real/new.txt")
    (tmp_path / "real" / "there.txt").write_text("old")
    for path, name in ((link, "there.txt"), (dangling, "new.txt")):
        write_atomic(path, "new")
        assert path.is_symlink()
        assert (tmp_path / "real" / name).read_text() == "new"
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "dangling",
        "link",
        "new.txt",
        "real",
        "there.txt",
    ]


def test_a_pipe_is_written_through_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomic(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_an_open_file_that_dev_names_is_written_into(tmp_path: Path) -> None:
    with (tmp_path / "out.txt").open("wb") as file:
        write_atomic(Path(f"/dev/fd/{file.fileno()}"), "into")
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]
    assert (tmp_path / "out.txt").read_text() == "into"


@pytest.mark.parametrize(("path", "why"), [("", "a folder stands"), ("/proc/x", "no file can be there")])
def test_a_place_for_no_file_is_said(path: str, why: str) -> None:
    with pytest.raises(CannotWrite, match=f"cannot be written: {why}"):
        write_atomic(Path(path), "x")


BOM = b"\xef\xbb\xbf"


def test_a_byte_order_mark_is_no_part_of_json_or_toml() -> None:
    assert decode_json(BOM + b'{"a": 1}', dict[str, int]) == {"a": 1}
    assert decode_toml(BOM + b"a = 1") == {"a": 1}


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'"\xff"', b'{"a": "\xff"}'], ids=["deep", "bytes", "field"]
)
def test_json_that_cannot_be_read_is_one_kind_of_error(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(msgspec.DecodeError, match=r"too deep|UTF-8|utf-8"):
        decode_json(content, Any)
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"a\.json must be a valid dict file: "):
        read_json(tmp_path / "a.json", dict)


@pytest.mark.parametrize("content", [b"a = " + b"[" * 5000, b"a = '\xff'", b"a = " + b"1" * 5000])
def test_toml_that_cannot_be_read_is_one_kind_of_error(content: bytes) -> None:
    with pytest.raises(tomllib.TOMLDecodeError, match=r"too deep|UTF-8|digits"):
        decode_toml(content)
