"""Runs one program under limits; `sandbox` starts it as a process of its own. Standard library alone.

It closes every door that the machine lets it close, says which, runs the program, and writes a
secret at the end: a program that leaves early, or prints "passed", has not passed.
"""

import ctypes
import json
import os
import resource
import struct
import sys
import traceback

_HARMLESS_FILES = ("/dev/null", "/dev/urandom", "/dev/zero", "/etc/localtime", "/etc/ld.so.cache")
_LIBRARIES = ("/usr/lib", "/usr/local/lib", "/usr/share", "/lib", "/lib64", "/nix/store")
_NEW_USER, _NEW_NETWORK, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000
_DIE_WITH_PARENT, _NO_NEW_PRIVILEGES, _SET_SECCOMP = 1, 38, 22

# Numbers of system calls: processes, signals to others, the network, and ways out of a limit.
_DENIED = {
    "x86_64": (
        0xC000003E,
        (
            *range(41, 60), 62, 101, 105, 106, 109, 112, 160, 165, 166, 200, 234, 248, 249, 250, 272, 288,
            298, 302, 307, 308, 310, 311, 321, 322, 323, 424, 425, 426, 427, 434, 435, 438,
        ),
    ),
    "aarch64": (
        0xC00000B7,
        (
            39, 40, 97, 117, 129, 130, 131, 144, 146, 154, 157, 164, *range(198, 213), 217, 218, 219, 220,
            221, 241, 242, 243, 261, 268, 269, 270, 271, 280, 281, 282, 424, 425, 426, 427, 434, 435, 438,
        ),
    ),
}  # fmt: skip
_REFUSED_EVENTS = (
    "socket.", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.kill",
    "os.startfile", "os.chroot", "os.setxattr", "os.removexattr", "pty.spawn", "resource.set",
    "resource.prlimit", "signal.pthread_kill", "gc.get_", "sys.settrace", "sys.setprofile", "ftplib.",
    "http.client", "imaplib.", "nntplib.", "poplib.", "smtplib.", "telnetlib.", "urllib.", "webbrowser.",
    "syslog.", "fcntl.", "pathlib.Path.rglob",
)  # fmt: skip
_WRITE_EVENTS = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.chown",
    "os.chflags", "os.lchmod", "os.truncate", "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile",
)  # fmt: skip
_TWO_PATHS = ("os.rename", "os.link", "os.symlink", "shutil.move", "shutil.copyfile")
_READ_EVENTS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.chdir", "os.listxattr")
_FOREIGN_CODE = ("_posixsubprocess", "_ctypes", "ctypes", "cffi", "_cffi_backend")


def main() -> None:
    """Read the order from standard input, limit the process, run, and say how it went on the pipe."""
    order = json.loads(sys.stdin.buffer.read())
    pipe = int(order["pipe"])
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)
    _keep_down(order["limits"])
    folder = os.path.realpath(os.getcwd())
    doors = _close_doors(folder)
    os.write(pipe, (json.dumps({"doors": doors}) + "\n").encode())
    # Where the kernel holds the doors, foreign code in the process (NumPy's) opens none of them.
    alone = not {"landlock", "seccomp"} <= set(doors)
    if alone:
        for name in [name for name in sys.modules if name.partition(".")[0] in _FOREIGN_CODE]:
            del sys.modules[name]
    for name in ("ctypes", "resource"):
        globals().pop(name)
    _watch(folder, alone=alone)
    scope = {"__name__": "solution", "__builtins__": __builtins__}
    try:
        exec(compile(order["program"], "<answer>", "exec"), scope)
    except BaseException as error:  # noqa: BLE001  whatever it raises, it has not passed
        told = "".join(traceback.format_exception_only(error)).strip()[-400:]
        os.write(pipe, (json.dumps({"error": told or type(error).__name__}) + "\n").encode())
        os._exit(1)
    os.write(pipe, (json.dumps({"secret": order["secret"]}) + "\n").encode())
    os._exit(0)


def _keep_down(limits: dict[str, int]) -> None:
    """Limit processor time, memory, file size, processes and open files, for good."""
    for name, value in limits.items():
        kind = getattr(resource, name, None)
        if kind is None:
            continue
        hard = value + 1 if name == "RLIMIT_CPU" else value
        try:
            resource.setrlimit(kind, (value, hard))
        except (ValueError, OSError):
            continue
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _close_doors(folder: str) -> list[str]:
    """What the kernel lets an ordinary user close; each by name."""
    if not sys.platform.startswith("linux"):
        return ["audit hook"]
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_DIE_WITH_PARENT, 9, 0, 0, 0)
    doors = []
    if libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_IPC) == 0:
        doors.append("network namespace")
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if _landlock(libc, folder):
        doors.append("landlock")
    if _seccomp(libc):
        doors.append("seccomp")
    return [*doors, "audit hook"]


def _readable() -> list[str]:
    roots = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix, *_LIBRARIES}
    roots |= {os.path.dirname(os.path.realpath(sys.executable))}
    return sorted({os.path.realpath(root) for root in roots if os.path.realpath(root) not in ("/", "/usr")})


def _landlock(libc: ctypes.CDLL, folder: str) -> bool:
    """Files: libraries may be read, the folder of the run may be written, nothing else is there."""
    version = libc.syscall(444, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    every = (1 << 13) - 1 if version == 1 else (1 << 14) - 1 if version == 2 else (1 << 15) - 1
    read = 1 << 0 | 1 << 2 | 1 << 3
    handled = ctypes.create_string_buffer(struct.pack("Q", every))
    rules = libc.syscall(444, handled, ctypes.c_size_t(8), 0)
    if rules < 0:
        return False
    allowed = [(root, read) for root in _readable()] + [(folder, every)]
    allowed += [(path, 1 << 2 | (1 << 1 if path == "/dev/null" else 0)) for path in _HARMLESS_FILES]
    for path, access in allowed:
        try:
            found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, found))
        libc.syscall(445, rules, 1, rule, 0)
        os.close(found)
    closed: bool = libc.syscall(446, rules, 0) == 0
    os.close(rules)
    return closed


def _seccomp(libc: ctypes.CDLL) -> bool:
    """System calls: no process, no signal to another, no socket; they fail with EPERM."""
    if os.uname().machine not in _DENIED:
        return False
    architecture, denied = _DENIED[os.uname().machine]
    fail, allow = 0x00050001, 0x7FFF0000
    lines = [(0x20, 0, 0, 4), (0x15, 1, 0, architecture), (0x06, 0, 0, fail), (0x20, 0, 0, 0)]
    if os.uname().machine == "x86_64":  # the x32 numbers of the same calls
        lines += [(0x35, 0, 1, 0x40000000), (0x06, 0, 0, fail)]
    for number in denied:
        lines += [(0x15, 0, 1, number), (0x06, 0, 0, fail)]
    lines.append((0x06, 0, 0, allow))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(lines), ctypes.addressof(code)))
    closed: bool = libc.prctl(_SET_SECCOMP, 2, program, 0, 0) == 0
    return closed


def _watch(folder: str, *, alone: bool) -> None:
    """An audit hook: the only guard where the kernel gives none, and a clear message where it does."""
    readable = (*_readable(), *_HARMLESS_FILES, folder)
    refused = (*_REFUSED_EVENTS, "ctypes.") if alone else _REFUSED_EVENTS
    busy = False

    def inside(path: object, roots: tuple[str, ...]) -> bool:
        if isinstance(path, int):
            return True
        if path is None:
            return folder in roots
        # What is no path raises, which refuses it as well.
        real = os.path.realpath(os.fsdecode(path))  # type: ignore[arg-type]
        return any(real == root or real.startswith(root + "/") for root in roots)

    def hook(event: str, args: tuple[object, ...]) -> None:
        nonlocal busy
        if busy:
            return
        if event.startswith(refused):
            raise PermissionError(f"not in the sandbox: {event}")
        if alone and event == "import" and args[0] in _FOREIGN_CODE:
            raise PermissionError(f"not in the sandbox: import {args[0]}")
        busy = True  # resolving a path must not ask the hook again
        try:
            if event == "open":
                flags = args[2] if isinstance(args[2], int) else 0
                writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
                may = inside(args[0], (folder, "/dev/null") if writes else readable)
            elif event in _WRITE_EVENTS:
                n_paths = 2 if event in _TWO_PATHS else 1
                may = all(inside(path, (folder,)) for path in args[:n_paths])
            elif event in _READ_EVENTS:
                may = inside(args[0] if args else None, readable)
            else:
                return
        finally:
            busy = False
        if not may:
            raise PermissionError(f"not in the sandbox: {event} {args[0]!r}")

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
