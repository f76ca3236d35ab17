"""Makers whose pins clash with ours: each in an environment of its own, run as a process, behind one door.

A maker is asked by a request in a file and leaves its result in a folder. It gets no key of ours: of the
environment only what a Python process needs is handed on.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jettison.errors import MissingExtra, StepFailed
from jettison.files import write_json

VARIABLE = "JETTISON_MAKERS"
"""Environment variable that names the folder of the makers' environments."""
HANDED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
SCRIPTS = Path(__file__).parent / "makers"


class Maker(NamedTuple):
    """A tool that is installed by itself."""

    name: str
    package: str
    version: str
    """The one that was tried."""
    script: str
    serves: str
    """Steps that need it."""

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


MAKERS = {
    "llmcompressor": Maker(
        name="llmcompressor",
        package="llmcompressor",
        version="0.14.0.1",
        script="llmcompressor_oneshot.py",
        serves="quantize_compressed",
    ),
}


def makers_folder() -> Path:
    """Where the environments are: as the variable says, or in the user's data."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "jettison" / "makers"


def maker_python(maker: Maker) -> Path:
    """Python of a maker's environment, whether it is there or not."""
    inside = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    return makers_folder() / maker.name / inside


def maker_version(maker: Maker) -> str | None:
    """Version of the maker that is set up; None where there is none. Starts its Python."""
    python = maker_python(maker)
    if not python.exists():
        return None
    code = f"from importlib.metadata import version; print(version({maker.package!r}))"
    try:
        done = subprocess.run(
            [python, "-c", code],
            capture_output=True,
            text=True,
            timeout=60,
            env=_environment(),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def how_to_set_up(maker: Maker) -> str:
    """Commands that make a maker's environment."""
    folder = makers_folder() / maker.name
    return f"`python -m venv {folder}` and `{maker_python(maker)} -m pip install {maker.requirement}`"


def run_maker(maker: Maker, request: Mapping[str, Any], *, timeout_s: float | None = None) -> None:
    """Let a maker do what a request says.

    Args:
        maker: One of `MAKERS`.
        request: Read by its script.
        timeout_s: Seconds after which it is stopped; None lets it run.

    Raises:
        MissingExtra: It is not set up; says how.
        StepFailed: It failed, with the last line that it said, or took too long.
    """
    python = maker_python(maker)
    if not python.exists():
        raise MissingExtra(
            f"`{maker.package}` has an environment of its own, which is not set up: {how_to_set_up(maker)}."
        )
    with tempfile.TemporaryDirectory() as scratch:
        asked = Path(scratch) / "request.json"
        write_json(asked, dict(request))
        # Isolated: neither the folder it is started in nor ours is on its path.
        command = [str(python), "-I", str(SCRIPTS / maker.script), str(asked)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                cwd=scratch,
                env=_environment(),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StepFailed(f"{maker.name} must end within {timeout_s:.0f} s, and did not.") from error
        except OSError as error:
            raise StepFailed(f"{python} must start, got: {error.strerror}.") from error
    if done.returncode:
        raise StepFailed(f"{maker.name} failed: {_last_line(done.stderr)}")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    return {**kept, "PYTHONNOUSERSITE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return json.dumps(lines[-1][:300], ensure_ascii=False) if lines else "it said nothing."
