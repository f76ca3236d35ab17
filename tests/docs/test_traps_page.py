"""The page of traps: every test it names is there and runs."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    line
    for line in (ROOT / "docs" / "traps.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| trap |")
]


@cache
def marks_of(path: str) -> dict[str, list[str]]:
    """Names of a file's tests, with their decorators as they are written; those of the module too."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    marks = [
        ast.unparse(n.value)
        for n in tree.body
        if isinstance(n, ast.Assign) and "pytestmark" in ast.unparse(n)
    ]
    return {
        node.name: [*marks, *(ast.unparse(one) for one in node.decorator_list)]
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_trap_has_a_test_that_is_there_and_not_left_out(row: str) -> None:
    trap, here, named = (cell.strip() for cell in row.strip("|").split(" | "))
    assert trap
    assert here
    found = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", named)
    assert len(found) == named.count("::") >= 1
    for path, name in found:
        marks = marks_of(path)[name]
        assert not any(re.search(r"mark\.(skip|xfail)\b", mark) for mark in marks), name


def test_the_page_has_every_trap() -> None:
    """Rows leave only with what they guard against."""
    assert len(ROWS) >= 37
