"""The page on plugins: its code runs as it stands, and is as short as it says."""

import ast
import re
from pathlib import Path

import pytest

from jettison import registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_code_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    names: dict[str, object] = {}
    try:
        for block in BLOCKS:
            exec(compile(block, str(PAGE), "exec"), names)
    finally:
        registry._added.pop(("backends", "keywords"), None)
        registry._added.pop(("detectors", "moving_average"), None)
    assert capsys.readouterr().out == "['add_word']\n"


@pytest.mark.parametrize(("name", "most"), [("Keywords", 20), ("AddWord", 20), ("MovingAverage", 36)])
def test_a_plugin_takes_about_so_many_lines(name: str, most: int) -> None:
    classes = {
        node.name: node
        for block in BLOCKS
        for node in ast.parse(block).body
        if isinstance(node, ast.ClassDef)
    }
    node = classes[name]
    assert node.end_lineno is not None
    assert node.end_lineno - node.lineno < most
