"""What benchmarks and examples import of jettison is there: most of them no test runs."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "examples").rglob("*.py")))


@cache
def names_in(module: str) -> frozenset[str] | None:
    """What a module binds, at its top or below, and the modules beside it; None where there is none."""
    place = ROOT.joinpath("src", *module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return None
    found = {beside.stem for beside in place.glob("*")}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(one.asname or one.name for one in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # names that are imported when they are asked for
    return frozenset(found)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_name_that_is_imported_exists(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jettison":
            names = names_in(node.module or "")
            assert names is not None, f"line {node.lineno}: there is no {node.module}"
            missing = {one.name for one in node.names} - names
            assert not missing, f"line {node.lineno}: {node.module} has no {sorted(missing)}"
