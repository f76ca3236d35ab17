"""Every example runs, and the README and the pages name only commands and files that exist."""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jettison.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"library_loop.py"}
EXAMPLES = [
    pytest.param(path, marks=[pytest.mark.slow] if path.name in SLOW else [], id=path.name)
    for path in sorted((ROOT / "examples").glob("*.py"))
]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_example_runs(example, tmp_path):
    done = subprocess.run(
        [sys.executable, str(example)],
        capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SHIP" in done.stdout


@pytest.mark.slow
def test_the_loop_runs_with_real_processes(tmp_path):
    done = subprocess.run(
        ["bash", str(ROOT / "examples" / "loop.sh"), str(tmp_path / "loop")],
        capture_output=True, text=True, check=False, timeout=1200,
        env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    steps = ("drift alarm after", "is refused, the old one goes on", "rolled back after", "mined:")
    for step in (*steps, "the next release answers"):
        assert step in done.stdout, step
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # one that ends just now, or somebody else's
            if str(process.joinpath("cwd").readlink()).startswith(str(tmp_path)):
                left.append(process.joinpath("cmdline").read_bytes())
    assert not left  # nothing that it started outlives it


@pytest.mark.slow
def test_the_real_form_of_the_loop_asks_texts_that_no_task_has(tmp_path):
    shared = Path(os.environ.get("JETTISON_SHARED", ROOT.parent / "shared"))
    if not (shared / "data" / "clinc150").is_dir() or not (shared / "models" / "clinc-minilm").is_dir():
        pytest.skip(f"no CLINC150 and MiniLM in {shared}")
    subprocess.run(
        [sys.executable, str(ROOT / "examples" / "loop" / "clinc.py"), str(tmp_path), str(shared)],
        check=True,
    )
    rows = {
        name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("data", "shop", "travel", "shop-later", "travel-later")
    }
    texts = {name: {row["text"] for row in found} for name, found in rows.items()}
    for one, other in itertools.combinations(texts, 2):
        assert not texts[one] & texts[other], (one, other)
    labels = {row["label"] for row in rows["data"] if row["split"] == "train"}
    assert len(labels) == 45
    assert all({row["label"] for row in found} <= labels for found in rows.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_named_are_commands(page):
    for block in re.findall(r"```(?:bash|sh|console)?\n(.*?)```", page.read_text(), re.DOTALL):
        for name in re.findall(r"^(?:\$ )?jettison ([a-z-]+)", block, re.MULTILINE):
            assert name.startswith("-") or name in COMMANDS, name


def test_every_command_is_documented():
    text = "\n".join(page.read_text() for page in PAGES)
    for command in COMMANDS:
        assert f"jettison {command}" in text, command


def test_every_setting_of_a_run_is_documented():
    from jettison.loop.config import RunConfig

    page = (ROOT / "docs" / "run.md").read_text()
    for name in RunConfig.__struct_fields__:
        assert name in page, name
