"""What an installation asks for: floors everywhere, and nothing that drags another library down."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
ALL = [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if re.match(r"[\w.-]+==[\w.+-]+$", line)
)
CLASHING = {
    # Behind transformers 5, or pinned under what is used here.
    *("optimum", "optimum-onnx", "optimum-intel", "optimum-quanto", "sentence-transformers", "model2vec"),
    *("llmcompressor", "nvidia-modelopt", "unsloth", "gptqmodel", "invarlock", "pruna", "trl"),
    # Orphaned, or broken on a clean install.
    *("neural-compressor", "olive-ai", "auto-gptq", "autoawq", "hqq", "setfit", "auto-round"),
    # Its plain wheel beside torch for the CPU breaks every import of transformers.
    "torchvision",
}


@pytest.mark.parametrize("line", [line for line in ALL if not line.startswith("jettison[")])
def test_every_requirement_has_a_floor_that_the_tried_version_keeps(line: str) -> None:
    """Without a floor resolvers fall back to old releases in silence."""
    wanted = Requirement(line)
    assert any(one.operator in (">=", "==", "~=") for one in wanted.specifier), line
    pins = {canonicalize_name(name): pin for name, pin in PINS.items()}
    pin = pins.get(canonicalize_name(wanted.name))
    assert pin is None or wanted.specifier.contains(Version(pin), prereleases=True), (line, pin)


def test_no_extra_brings_a_library_that_pulls_another_down() -> None:
    """Followed through everything that is installed, not only what this project names."""
    seen: dict[str, str] = {}
    waiting = [(Requirement(line), "jettison") for line in ALL if not line.startswith("jettison[")]
    while waiting:
        wanted, source = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in seen:
            continue
        seen[name] = source
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        for line in lines:
            more = Requirement(line)
            if more.marker is None or any(more.marker.evaluate({"extra": e}) for e in (*wanted.extras, "")):
                waiting.append((more, name))
    assert {"torch", "transformers", "huggingface-hub", "onnxruntime", "nncf"} <= set(seen)
    assert not {f"{name} (of {seen[name]})" for name in CLASHING & set(seen)}


def test_makers_that_clash_are_no_requirement() -> None:
    from jettison.compress.maker import MAKERS

    named = {canonicalize_name(Requirement(line).name) for line in ALL}
    for maker in MAKERS.values():
        assert canonicalize_name(maker.package) not in named
        assert "==" in maker.requirement


def test_what_ci_runs_checks_installed_versions_against_each_other() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert ".venv/bin/pip check" in lines
