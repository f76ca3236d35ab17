"""Reading and writing files so that a crash, a full disk or a rename leaves no half of one."""

import contextlib
import errno
import glob
import hashlib
import os
import shutil
import tempfile
import time
import tomllib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from jettison.errors import CannotWrite, InvalidInput, JettisonError

T = TypeVar("T")


def write_atomic(path: Path, content: bytes | memoryview | str) -> None:
    """Write a whole file or leave what was there.

    Raises:
        CannotWrite: The disk is full or the folder is read-only.
    """
    with file_atomic(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def file_atomic(path: Path) -> Iterator[BinaryIO]:
    """Yield an open file that becomes `path` when the block ends well, and vanishes otherwise.

    A link stays, and what it leads to is replaced. A device, a pipe or a socket is written straight to.

    Raises:
        CannotWrite: The disk is full, the folder is read-only, or no file can be there.
    """
    with said_when_unwritable(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder", str(path))
        if _is_stream(path):
            with path.open("wb") as stream:
                yield stream
            return
        place = Path(os.path.realpath(path))
        _make_folder(place.parent)
        with _said_where_no_file_can_be(path):
            handle, partial = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(partial, 0o644)
            os.replace(partial, place)
        except BaseException:  # Ctrl-C too must leave no half file; it is raised again
            Path(partial).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def folder_atomic(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well, and vanishes otherwise.

    What a process that was killed left of the same folder is removed first.

    Raises:
        CannotWrite: The disk is full or the folder is read-only.
    """
    with said_when_unwritable(path):
        _make_folder(path.parent)
        _remove_abandoned(path)
        with _said_where_no_file_can_be(path):
            partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.partial-"))
    held = _locked(partial)
    try:
        with said_when_unwritable(path):
            yield partial
            partial.chmod(0o755)
            if path.exists():
                shutil.rmtree(path)
            partial.rename(path)
    except BaseException:  # Ctrl-C too must leave no half folder; it is raised again
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        if held is not None:
            os.close(held)


ABANDONED_S = 60.0
"""A younger partial folder may be one that its maker has not locked yet."""


def _remove_abandoned(path: Path) -> None:
    """Remove partial folders of `path` whose makers are gone: a killed process holds no lock."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.partial-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime < ABANDONED_S:
                continue
            held = _locked(left)
            if held is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(held)


def _locked(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives; None where another has it, or nothing can."""
    try:
        import fcntl
    except ImportError:  # not on Windows: there nothing is locked, and nothing removed
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:  # some places, as /proc, hold only what the system puts there
        raise CannotWrite(f"{path} cannot be made: no folder can be there. Choose another one.") from error


def _is_stream(path: Path) -> bool:
    """Whether writing to a path means writing into something that is there, and not a file of its own."""
    if not path.exists():
        return False
    # /dev/stdout and its kin lead to whatever a process has open, a file even.
    parent = os.path.realpath(path.parent)
    link = os.readlink(path) if path.is_symlink() else ""
    return not path.is_file() or f"{parent}/".startswith("/proc/") or link.startswith("/proc/")


@contextlib.contextmanager
def _said_where_no_file_can_be(path: Path) -> Iterator[None]:
    """Some places, as /proc, hold only what the system puts there."""
    try:
        yield
    except FileNotFoundError as error:
        raise CannotWrite(
            f"{path} cannot be written: no file can be there. Choose another folder."
        ) from error


@contextlib.contextmanager
def said_when_unwritable(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into one clear error."""
    try:
        yield
    except JettisonError:
        raise
    except Exception as error:  # not OSError alone: see `_errno_of`
        reason = _reason_unwritable(error)
        if reason is None:
            raise
        raise CannotWrite(
            f"{path} cannot be written: {reason}. "
            "Free some space or choose another folder; what was there before is untouched."
        ) from error


def is_disk_full(error: Exception) -> bool:
    """Whether an error says that the disk, or the quota on it, is used up: nothing else can be written."""
    return _errno_of(error) in (errno.ENOSPC, errno.EDQUOT)


def _reason_unwritable(error: Exception) -> str | None:
    """Why the system refuses to write; None when the error is about something else."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission is denied",
        errno.EPERM: "permission is denied",
        errno.ENOTDIR: "a file stands where a folder is needed",
        errno.EEXIST: "a file stands where a folder is needed",
        errno.EISDIR: "a folder stands where the file is to go",
        errno.ENAMETOOLONG: "the name is too long",
    }
    return reasons.get(_errno_of(error))


def _errno_of(error: Exception) -> int:
    """The system's number of an error; 0 when it has none."""
    if isinstance(error, OSError):
        return error.errno or 0
    # Libraries in Rust and C++ put the system's answer into an error type of their own.
    return errno.ENOSPC if os.strerror(errno.ENOSPC) in str(error) else 0


def link_or_copy(source: Path, target: Path) -> None:
    """Place a file at `target` without copying its bytes where the file system allows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def link_or_copy_folder(source: Path, target: Path) -> None:
    """Place every file of a folder at `target`, as `link_or_copy` does."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            link_or_copy(path, target / path.relative_to(source))


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def value_sha256(value: Any) -> str:
    """Hex digest of any JSON-like value; equal values give equal digests whatever their key order."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


BOM = b"\xef\xbb\xbf"
"""What some editors put before UTF-8 text: it is no part of it."""


def decode_json(content: bytes | str, kind: type[T]) -> T:
    """Decode JSON that may come from anywhere.

    Raises:
        msgspec.DecodeError: It is no JSON, no UTF-8, nested too deep, or does not fit the type.
    """
    try:
        plain = content.removeprefix(BOM) if isinstance(content, bytes) else content
        found: T = _decoder(kind).decode(plain)  # type: ignore[arg-type]
        return found
    except UnicodeDecodeError as error:
        raise msgspec.DecodeError(f"it must be UTF-8 text: {error}") from error
    except UnicodeEncodeError as error:
        raise msgspec.DecodeError(f"it must be Unicode text: {error}") from error
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deep to read") from error


@lru_cache(maxsize=64)  # made anew for each line, a decoder takes ten times as long as the line
def _decoder(kind: Any) -> Any:
    return msgspec.json.Decoder(kind)


def decode_toml(content: bytes | str) -> dict[str, Any]:
    """Decode TOML that may come from anywhere.

    Raises:
        tomllib.TOMLDecodeError: It is no TOML, no UTF-8, or nested too deep.
    """
    try:
        text = content.removeprefix(BOM).decode("utf-8") if isinstance(content, bytes) else content
        return tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise tomllib.TOMLDecodeError(f"it must be UTF-8 text: {error}") from error
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("it must have few levels, got it nested too deep to read") from error
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # a number of more digits than Python reads
        raise tomllib.TOMLDecodeError(str(error)) from error


def read_json(path: Path, kind: type[T]) -> T:
    """Read one JSON file as a record type.

    Raises:
        InvalidInput: The file is missing, is not JSON, or does not fit the type.
    """
    try:
        return decode_json(path.read_bytes(), kind)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InvalidInput(f"{path} must be a file, got nothing there.") from error
    except OSError as error:
        raise InvalidInput(f"{path} must be a readable file, got {error.strerror}.") from error
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{path} must be a valid {kind.__name__} file: {error}.") from error


def write_json(path: Path, value: Any) -> None:
    """Write a record as indented JSON, atomically."""
    write_atomic(path, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
