"""A release is measured whole: a cascade of its candidates as one target."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from jettison.backends.cascade import open_cascade
from jettison.cli.cost import command
from jettison.cost.protocol import candidate_from, candidate_message
from jettison.errors import InvalidInput
from jettison.files import read_json, write_json
from jettison.release import open_release
from jettison.release.read import list_release_files
from jettison.release.routed import route_candidate
from jettison.release.types import RELEASE_FILE, ReleaseFacts
from jettison.release.write import _seal
from jettison.route import Cascade, Route, Shadow, Single
from releasing import make_candidate, make_release

LEAN, BIG = Single(candidate="candidates/0"), Single(candidate="candidates/1")


def routed(folder: Path, route: Route) -> Path:
    """A release of two candidates, sealed anew: one that takes 0.2 ms, one that takes 4 ms."""
    made = make_release(folder, candidate=make_candidate(folder / "lean", latency_s=0.0002, accuracy=0.5))
    path = folder / "routed"
    shutil.copytree(made.path, path)
    for name in (*list_release_files(path), "MANIFEST"):
        (path / name).chmod(0o644)
    shutil.copytree(make_candidate(folder / "big", name="big", latency_s=0.004).path, path / "candidates/1")
    facts = read_json(path / RELEASE_FILE, ReleaseFacts)
    write_json(path / RELEASE_FILE, msgspec.structs.replace(facts, route=route, name="two arms"))
    (path / "MANIFEST").unlink()
    _seal(path)
    return path


def test_a_route_of_one_candidate_is_that_candidate(tmp_path: Path) -> None:
    release = make_release(tmp_path)
    found = route_candidate(release)
    assert (found.name, found.backend) == (release.name, "fake")


def test_a_cascade_of_a_releases_candidates_is_opened_and_sized_whole(tmp_path: Path) -> None:
    release = open_release(routed(tmp_path, Cascade(lean=LEAN, fallback=BIG, threshold=2.0)))
    found = route_candidate(release)
    assert found.artifact_bytes == 2 * 800
    assert candidate_from(candidate_message(found)) == found
    model = open_cascade(found)
    answers = model.predict(["apple secretword 1"])
    model.close()
    assert (answers[0].arm, answers[0].escalated) == ("fallback", True)


@pytest.mark.slow
def test_the_command_measures_both_arms_of_a_routed_release(tmp_path: Path) -> None:
    """All is escalated, so a task takes 0.2 ms of the lean arm and 4 ms of the other."""
    path = routed(tmp_path, Cascade(lean=LEAN, fallback=BIG, threshold=2.0))
    (tmp_path / "texts.txt").write_text("apple secretword\npear\n")
    texts = str(tmp_path / "texts.txt")
    arguments = [
        str(path),
        str(path / "candidates/0"),
        "--input",
        texts,
        "--openings",
        "1",
        "--budget",
        "2",
    ]
    told = json.loads(CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False).stdout)
    whole, lean = told["candidates"]
    assert whole["name"] == "two arms"
    assert whole["cost"]["cpu_s"]["value"] == pytest.approx(0.0042, rel=0.2)
    assert lean["cost"]["cpu_s"]["value"] < 0.001


def test_a_route_that_needs_the_gateway_says_so(tmp_path: Path) -> None:
    path = routed(tmp_path, Shadow(main=LEAN, shadow=BIG, shadow_share=0.1))
    with pytest.raises(InvalidInput, match=r"got a shadow in .*Serve it .* measure its address"):
        route_candidate(open_release(path))
