import re
from pathlib import Path

import pytest

from releasing import make_release

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["evaluate", "cascade", "release"])
def test_every_python_block_of_the_page_runs(page, tmp_path, monkeypatch):
    make_release(tmp_path / "releases")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, f"{page}.md", "exec"), {})


def test_every_option_of_predict_is_on_its_page():
    from jettison.cli.predict import command

    text = (DOCS / "release.md").read_text(encoding="utf-8")
    for parameter in command.params:
        for flag in parameter.opts if parameter.param_type_name == "option" else ():
            assert f"`{flag}" in text
