"""`serve.toml` and the command's options: what they come to, and which fault is said where."""

from pathlib import Path

import pytest

from jettison.errors import InvalidInput
from jettison.serve.config import read_serve_config
from jettison.serve.flags import resolve

GUARDED = """[route]
type = "guarded"
guardrails = ["x"]
inner = {type = "single", candidate = "release"}
"""


ONE = '{type = "single", candidate = "release"}'
SPLIT = f"""[route]
type = "split"
treatment_share = 0.1
salt = "s"
control = {ONE}
treatment = {ONE}
"""
LEAN = f"""[route]
type = "cascade"
threshold = 0.5
lean = {{type = "single", candidat = "release"}}
fallback = {ONE}
"""

PLAIN_KEY = "[[keys]]\nname = 'a'\nsha256 = 'jt-plain'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("release = ", r"must be TOML"),
        ('release = "a\\u0000b"', r"texts without null bytes, got 'a\\x00b' at `\$\.release`"),
        ("[upstreams.x]\nurl = 'http://h'\nprompt = {templat = 'x'}", r"at `.*x\.prompt`, got 'templat'"),
        ("relaese = 'x'", r"got 'relaese'\. Did you mean 'release'\?"),
        (f"release = 'r'\n{SPLIT}saltt = 'x'", r"at `\$\.route`, got 'saltt'\. Did you mean 'salt'\?"),
        (f"release = 'r'\n{LEAN}", r"at `\$\.route\.lean`, got 'candidat'\. Did you mean 'candidate'\?"),
        ("[upstreams.x]\nurl = 'x'\nmodle = 'm'", r"at `\$\.upstreams\.x`, got 'modle'\. Did you mean"),
        ("release = 'r'\n[limits]\nbody_bytes = 'many'", r"got `str` - at `\$\.limits\.body_bytes`"),
        ("release = 'r'\nport = 99999", r"must be in 0-65535, got 99999 - at `\$\.port`"),
        ("release = 'r'\n[upstreams.x]\nurl = 'ftp://x'", r"\$\.upstreams\.x\.url must be an address"),
        ("release = 'r'\n[upstreams.x]\nurl = 'http://k:secret@h/v1'", r"without user, key or query in it"),
        (f"release = 'r'\n{PLAIN_KEY}", r"never the key itself - at `\$\.keys\[0\]\.sha256`"),
        (f"release = 'r'\n{GUARDED}", r"got 'x'. Describe it under \[guardrails\]"),
        ("format = 2\nrelease = 'r'", r"format must be 1, got 2"),
        ("", r"there must be a release, an upstream or an embedder"),
        ("release = 'r'\n[input]\ntemplate = 'x'", r"must hold \{input\}"),
    ],
)  # fmt: skip
def test_a_faulty_file_is_refused_with_the_path_of_the_fault(tmp_path, text, message):
    path = tmp_path / "serve.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message) as caught:
        read_serve_config(path)
    assert "secret" not in str(caught.value)
    assert "jt-plain" not in str(caught.value)


def test_options_stand_above_the_file(tmp_path, release):
    path = tmp_path / "serve.toml"
    path.write_text("release = 'other'\nport = 1\n[log]\ntext = 'drop'\n")
    found = resolve(path, Path(release), {"port": 2, "log_text": "keep", "incumbent": "http://h/v1/"})
    assert (found.release, found.port, found.log.text) == (release, 2, "keep")
    assert found.upstreams["incumbent"].url == "http://h/v1"
    assert found.state == str(tmp_path / "serve-state")


def test_a_file_may_leave_the_release_to_the_command(tmp_path, release):
    path = tmp_path / "serve.toml"
    path.write_text("[engine]\nqueue = 7\n")
    found = resolve(path, Path(release), {})
    assert (found.release, found.engine.queue) == (release, 7)
    with pytest.raises(InvalidInput, match="there must be a release, an upstream or an embedder"):
        resolve(path, None, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"route": "cascade"}, "must have an incumbent, got none"),
        ({"route": "cascade", "incumbent": "http://h/v1"}, "this release certifies none"),
        ({"threshold": 0.5}, "--threshold and --share go with --route"),
        ({"incumbent_model": "m"}, "go with --incumbent"),
    ],
)
def test_options_that_do_not_go_together(release, given, message):
    with pytest.raises(InvalidInput, match=message):
        resolve(None, Path(release), given)


def test_routes_by_option(release):
    far = {"incumbent": "http://h/v1"}
    split = resolve(None, Path(release), {**far, "route": "split", "share": 0.2}).route
    assert (split.treatment_share, split.salt, split.control.candidate) == (0.2, "7", "upstream:incumbent")
    shadow = resolve(None, Path(release), {**far, "route": "shadow"}).route
    assert (shadow.shadow_share, shadow.main.candidate) == (1.0, "upstream:incumbent")
    cascade = resolve(None, Path(release), {**far, "route": "cascade", "threshold": 0.8}).route
    assert (cascade.threshold, cascade.lean.candidate) == (0.8, "release")
