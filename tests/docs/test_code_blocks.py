"""Every block of code in the README and the pages: Python runs, TOML is read, commands parse."""

import ast
import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path
from shutil import copytree

import click
import msgspec
import pytest

from decide.report_example import example_decision
from fake_runs import task_at
from jettison.candidate import write_candidate
from jettison.cli.main import jettison
from jettison.compress.recipe import check_recipe_applies, recipes_from
from jettison.cost.grid import read_grid
from jettison.cost.token_prices import read_token_prices
from jettison.decide.render import write_decision
from jettison.loop.config import RunConfig, check_config, read_config
from jettison.loop.run import Outcome
from jettison.serve.config import ServeConfig, check_serve_config
from jettison.task.source import parse_task_source
from releasing import make_release

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"python", "toml", "bash", "console"}
RUN_ELSEWHERE = {"plugins.md": "test_plugins_page.py", "README.md": "a whole run, read below"}
CONFIG_HEAD = 'format = 1\ntask = "task.toml"\nincumbent = "models/large"\n'


def blocks(page: Path, *languages: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [code for language, code in fenced if language in languages]


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, *languages)]


def test_no_block_is_of_a_language_that_nothing_checks():
    for page in PAGES:
        opened = re.findall(r"^```(\w*)$", page.read_text(encoding="utf-8"), re.MULTILINE)[::2]
        assert set(opened) <= LANGUAGES, page.name


@pytest.fixture
def a_users_folder(tmp_path, monkeypatch):
    """What the pages take for granted: a task, two models, a release, a finished run."""
    make_release(tmp_path / "releases")
    copytree(tmp_path / "releases" / "7", tmp_path / "release")
    write_decision(tmp_path / "jettison-run", example_decision())
    task_at(tmp_path)
    for name, latency_s in (("incumbent", 0.0004), ("lean", 0.0001)):
        (tmp_path / "models" / name).mkdir(parents=True)
        settings = {"latency_s": latency_s}
        write_candidate(
            tmp_path / "models" / name, name=name, backend="fake", labels=("a", "b"), settings=settings
        )
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("a_users_folder")
@pytest.mark.parametrize(
    "page", [page for page in pages_with("python") if page.name not in RUN_ELSEWHERE], ids=lambda p: p.name
)
def test_the_python_of_the_page_runs_from_top_to_bottom(page):
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


def test_the_run_in_the_readme_has_settings_that_hold_and_an_outcome_with_those_fields():
    (block,) = blocks(ROOT / "README.md", "python")
    tree = ast.parse(block)
    names: dict[str, object] = {}
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom | ast.Import)]
    exec(compile(ast.Module(imports, []), "README.md", "exec"), names)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (made,) = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "RunConfig"]
    config = eval(compile(ast.Expression(made), "README.md", "eval"), names)
    assert isinstance(config, RunConfig)
    check_config(config, "README.md")
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    read = [a.attr for a in attributes if isinstance(a.value, ast.Name) and a.value.id == "outcome"]
    assert read
    assert set(read) <= {field.name for field in fields(Outcome)}


@pytest.mark.parametrize("page", pages_with("toml"), ids=lambda page: page.name)
def test_the_toml_of_the_page_is_accepted(page, tmp_path):
    for block in blocks(page, "toml"):
        content = tomllib.loads(block)
        if "project" in content:
            continue  # a plugin's own pyproject.toml
        if (
            page.name in ("serve.md", "dashboard.md", "guardrails.md", "injection-guard.md")
            or "route" in content
        ):
            config = msgspec.convert({"release": "releases/7", **content}, ServeConfig)
            check_serve_config(config, page.name)
            continue
        if "grid" in content:
            (tmp_path / "grid.toml").write_text(block, encoding="utf-8")
            read_grid(tmp_path / "grid.toml")
            continue
        if "models" in content:
            (tmp_path / "prices.toml").write_text(block, encoding="utf-8")
            read_token_prices(tmp_path / "prices.toml")
            continue
        if "data" in content:
            parse_task_source(block, where=page.name)
            continue
        path = tmp_path / "jettison.toml"
        path.write_text(block if "format" in content else CONFIG_HEAD + block, encoding="utf-8")
        config = read_config(path)
        for recipe in () if config.recipes == "auto" else recipes_from(list(config.recipes)):
            check_recipe_applies(recipe)


def commands_of(page: Path) -> list[list[str]]:
    lines = "\n".join(blocks(page, "bash", "console")).splitlines()
    parts = [part for line in lines for part in line.removeprefix("$ ").split(" | ")]
    return [shlex.split(part, comments=True) for part in parts if part.startswith(("jettison ", "make "))]


@pytest.mark.parametrize("page", pages_with("bash", "console"), ids=lambda page: page.name)
def test_the_commands_of_the_page_exist_with_those_options(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for program, name, *arguments in commands_of(page):
        if program == "make":
            assert name in targets, name
            continue
        root = click.Context(jettison)
        command = jettison.get_command(root, name)
        assert command is not None, name
        if isinstance(command, click.Group):
            name, *arguments = arguments
            root = click.Context(command, parent=root)
            command = command.get_command(root, name)
            assert command is not None, name
        command.make_parser(click.Context(command, parent=root)).parse_args(list(arguments))


def test_a_flag_that_does_not_exist_would_be_found():
    root = click.Context(jettison)
    command = jettison.get_command(root, "predict")
    assert command is not None
    with pytest.raises(click.NoSuchOption, match="--inptu"):
        command.make_parser(click.Context(command, parent=root)).parse_args(["release", "--inptu", "x"])


def test_targets_that_the_text_names_are_in_the_makefile():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"`make ([\w-]+)", page.read_text(encoding="utf-8"))
        assert set(named) <= targets, page.name
