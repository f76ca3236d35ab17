"""Runs a program that nobody has read, in a process of its own, and says whether it came to its end.

Limits on processor time, memory, files, processes and output always hold. Where the kernel allows
(Linux), the process also gets no network (a namespace of its own), sees no files but the libraries and
its own folder (Landlock), and may neither start nor signal a process (seccomp); elsewhere an audit hook
stands alone, which guards against accidents and not against an attacker. `SandboxRun.doors` says which.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import InvalidInput, Unsupported

CHILD = Path(__file__).with_name("sandbox_child.py")
MOST_PROGRAM_BYTES = 1_000_000
_POLL_S = 0.02


class SandboxLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one program may use."""

    cpu_s: int = 10
    wall_s: float = 20.0
    memory_bytes: int = 1 << 30
    """Of address space."""
    disk_bytes: int = 16 << 20
    """Of all files in its folder together."""
    output_bytes: int = 64 << 10
    """Of standard output and error together; more ends the program."""
    open_files: int = 64


class SandboxRun(msgspec.Struct, frozen=True, kw_only=True):
    """How one program went."""

    passed: bool
    """It ran to its last line."""
    reason: str
    """Why it did not pass; empty when it did."""
    doors: tuple[str, ...]
    """What kept it in, beside the limits: `network namespace`, `landlock`, `seccomp`, `audit hook`."""
    wall_s: float


def run_program(program: str, limits: SandboxLimits | None = None) -> SandboxRun:
    """Run Python source in a folder of its own that is removed afterwards, under limits.

    The process gets an empty environment, no input, and no third-party path but the interpreter's own.
    It and all it may have started are killed at the end.

    Args:
        program: Source; it passes when its last line is reached without an exception.
        limits: None takes the defaults.

    Raises:
        Unsupported: The system cannot limit a process (Windows).
        InvalidInput: A limit is out of range.
    """
    if os.name != "posix":
        raise Unsupported("code is run on Linux and macOS only: this system cannot limit a process.")
    given = limits or SandboxLimits()
    for name in given.__struct_fields__:
        if getattr(given, name) <= 0:
            raise InvalidInput(f"{name} of a sandbox must be above zero, got {getattr(given, name)}.")
    encoded = program.encode("utf-8", "surrogatepass")
    if len(encoded) > MOST_PROGRAM_BYTES or b"\0" in encoded:
        return SandboxRun(passed=False, reason="no source that Python reads", doors=(), wall_s=0.0)
    folder = Path(tempfile.mkdtemp(prefix="jettison-code-"))
    try:
        return _run(program, folder, given)
    finally:
        _remove(folder)


def _run(program: str, folder: Path, limits: SandboxLimits) -> SandboxRun:
    secret = secrets.token_hex(16)
    started = time.monotonic()
    work, output = folder / "work", folder / "output"
    work.mkdir()
    reader, writer = os.pipe()
    with output.open("wb") as sink:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                cwd=work,
                env={"HOME": str(work), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"},
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(writer)
    try:
        order = {"program": program, "secret": secret, "pipe": writer, "limits": _rlimits(limits)}
        _hand_over(process, json.dumps(order).encode())
        stopped = _wait(process, started, work, output, limits)
    finally:
        _kill(process)
    told = _read_told(reader)
    return _judged(told, secret, stopped, process.returncode, time.monotonic() - started)


def _rlimits(limits: SandboxLimits) -> dict[str, int]:
    return {
        "RLIMIT_CPU": limits.cpu_s,
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_FSIZE": max(limits.disk_bytes, limits.output_bytes),
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": 0,
    }


def _hand_over(process: subprocess.Popen[bytes], order: bytes) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(order)
        process.stdin.close()
    except BrokenPipeError:
        return


def _wait(
    process: subprocess.Popen[bytes], started: float, work: Path, output: Path, limits: SandboxLimits
) -> str:
    """Wait for the end; why the program was stopped, or nothing."""
    while True:
        try:
            process.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            pass
        else:
            return ""
        if time.monotonic() - started > limits.wall_s:
            return f"ran longer than {limits.wall_s:g} s"
        if output.stat().st_size > limits.output_bytes:
            return f"wrote more than {limits.output_bytes:,} bytes of output"
        if _folder_bytes(work) > limits.disk_bytes:
            return f"wrote more than {limits.disk_bytes:,} bytes of files"


def _folder_bytes(folder: Path) -> int:
    """Space taken, blocks of empty files and folders counted too."""
    total = 0
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                total += max(4096, os.lstat(os.path.join(root, name)).st_size)
            except OSError:
                continue
    return total


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever shares its session's group."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()


def _read_told(reader: int) -> list[dict[str, Any]]:
    """What the child wrote on the pipe; a program that writes there too says nothing that counts."""
    os.set_blocking(reader, False)
    try:
        raw = os.read(reader, 65536)
    except BlockingIOError:
        raw = b""
    finally:
        os.close(reader)
    found = []
    for line in raw.splitlines():
        try:
            told = json.loads(line)
        except ValueError:
            continue
        found += [told] if isinstance(told, dict) else []
    return found


def _judged(
    told: list[dict[str, Any]], secret: str, stopped: str, status: int, wall_s: float
) -> SandboxRun:
    doors = next((tuple(t["doors"]) for t in told if isinstance(t.get("doors"), list)), ())
    passed = not stopped and any(t.get("secret") == secret for t in told)
    error = next((str(t["error"])[:400] for t in told if "error" in t), "")
    reason = stopped or error or (_ending(status) if not passed else "")
    return SandboxRun(passed=passed, reason="" if passed else reason, doors=doors, wall_s=wall_s)


def _ending(status: int) -> str:
    if status == -signal.SIGXCPU:
        return "used more processor time than it may"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"left before its end, with exit status {status}"


def _remove(folder: Path) -> None:
    """Remove the folder, whatever rights the program took from its files."""

    def open_up(_: Any, path: str, __: Any) -> None:
        try:
            os.chmod(Path(path).parent, 0o700)
            if Path(path).is_dir() and not Path(path).is_symlink():
                os.chmod(path, 0o700)
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
        except OSError:
            return

    shutil.rmtree(folder, onerror=open_up)
