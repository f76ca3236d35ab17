"""Output that nobody reads, that has no room, or that would steer the terminal; what cannot be read."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from jettison import release as releases
from jettison.cli.main import main
from jettison.cli.predict import Answer, _in_words
from jettison.cli.terminal import printable
from releasing import make_release


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return make_release(tmp_path_factory.mktemp("made")).path


@pytest.fixture
def sides(tmp_path):
    """Two files of the same predictions."""
    rows = [{"id": str(i), "output": "x", "expected": "x", "score": 1.0} for i in range(600)]
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]


def unread(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose output goes into a pipe that nobody reads."""
    end, start = os.pipe()
    os.close(end)
    command = [sys.executable, "-m", "jettison", *arguments]
    try:
        return subprocess.run(command, stdout=start, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(start)


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_closed_pipe_does_not_change_the_verdict(sides, more):
    done = unread("compare", *sides, *more)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["verify", "doctor"])
def test_a_closed_pipe_does_not_change_what_was_found(release, command):
    done = unread(command, *([str(release)] if command == "verify" else []))
    assert (done.returncode, done.stderr) == (0, "")


class Full(io.RawIOBase):
    """A disk without room."""

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("command", ["doctor", "verify", "--help", "compare"])
def test_output_without_room_is_one_line(release, sides, monkeypatch, capsys, command):
    arguments = {"verify": [str(release)], "compare": sides}.get(command, [])
    full = io.TextIOWrapper(io.BufferedWriter(Full()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(SystemExit) as stopped:
        main([command, *arguments])
    said = capsys.readouterr().err
    monkeypatch.setattr(full, "close", lambda: None, raising=False)
    assert stopped.value.code == 2
    assert said.startswith("error: the output must have room, got No space left on device.")
    assert len(said.splitlines()) == 1


def test_control_characters_are_spelled_out():
    assert printable("a\x1b[31mb\x9b\x07\nc\td\x7fé") == "a\\x1b[31mb\\x9b\\x07\nc\td\\x7fé"


def test_a_file_that_may_not_be_read_is_one_line(tmp_path, capsys, monkeypatch, sides):
    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *sides])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {sides[0]} must be a readable file, got Permission denied.\n"


def test_any_file_that_the_system_refuses_is_one_line(capsys, monkeypatch, release):
    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(release)])
    assert stopped.value.code == 2
    assert "release.json must be a file that can be read or written, got Perm" in capsys.readouterr().err


def test_arguments_that_are_no_text_are_refused(capsys, release):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(release), "caf\udce9"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(r"error: arguments must be UTF-8 text, got 'caf\udce9'.")


def test_a_terminal_that_cannot_say_a_character_spells_it_out(tmp_path, sides):
    named = tmp_path / "naïve.jsonl"
    named.write_bytes(Path(sides[1]).read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "jettison", "compare", sides[0], str(named)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "na\\xefve.jsonl" in done.stdout


def test_verify_prints_no_escapes_of_a_foreign_release(release, monkeypatch, capsys):
    found = msgspec.structs.replace(releases.open_release(release), headline="fine\x1b]0;mine\x07")
    monkeypatch.setattr(releases, "verify_release", lambda _: found)
    with pytest.raises(SystemExit):
        main(["verify", str(release)])
    assert "fine\\x1b]0;mine\\x07" in capsys.readouterr().out


def test_a_text_with_escapes_does_not_steer_the_terminal():
    answer = Answer(
        label="fine\x1b[2J", confidence=0.9, in_scope=None, flagged=None, abstained=False, arm=None,
        escalated=False, error=None,
    )  # fmt: skip
    said = _in_words({"text": "a\x1b]0;mine\x07 b\x9b"}, answer)
    assert "a\\x1b]0;mine\\x07 b\\x9b" in said
    assert "fine\\x1b[2J" in said
    assert "a\\x1b" in _in_words({"text": "a\x1b"}, msgspec.structs.replace(answer, error="x\x1b"))
    assert "x\\x1b" in _in_words({"text": "a"}, msgspec.structs.replace(answer, error="x\x1b"))
