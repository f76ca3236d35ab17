"""A detector chosen by name watches every score of the log, alarms, and goes on after a restart."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.cli.main import main
from jettison.errors import InvalidInput
from jettison.evaluate.profile import reference_sketch
from jettison.monitor.detector_part import DetectorPart
from jettison.monitor.log import News, Place
from jettison.record import Record
from jettison.release import open_release
from jettison.release.sketch import Sketch
from jettison.testing.traffic import TrafficWriter
from releasing import make_release


def records(seed: int, n: int, *, low: float = 9.0, candidate: str = "c") -> list[Record]:
    rng = np.random.default_rng(seed)
    return [
        Record(
            candidate=candidate, example_id=str(k), split="live", role="answer",
            output=str(rng.choice(["a", "b"])),
            input=" ".join(rng.choice(["card", "loan", "money", "limit"], 4)),
            confidence=float(rng.beta(low, 3)), time=float(k),
        )
        for k in range(n)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def sketch() -> Sketch:
    known = records(0, 600)
    return reference_sketch(known, [str(one.input) for one in known])


def news(some: list[Record]) -> News:
    return News(records=tuple(some), feedback=(), place=Place(), is_all=True)


@pytest.mark.parametrize("use", ["page_hinkley", "conformal_martingale"])
def test_it_alarms_on_the_score_that_moved_and_a_restart_goes_on_to_the_last_digit(
    sketch: Sketch, use: str
) -> None:
    whole, parts = DetectorPart(use, sketch), DetectorPart(use, sketch)
    stream = [*records(1, 200), *records(2, 300, low=4.0)]
    whole.take(news(stream[:200]))
    assert whole.alerts(0.0) == ()
    whole.take(news(stream[200:]))
    (alert,) = whole.alerts(0.0)
    assert [one["stream"] for one in alert.evidence["streams"]] == ["confidence"]
    assert ("heuristic" in alert.message) == (use == "page_hinkley")
    for start in range(0, len(stream), 90):
        parts.take(news(stream[start : start + 90]))
        again = DetectorPart(use, sketch)
        assert again.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(parts.state())))
        parts = again
    assert parts.status() == whole.status()
    assert DetectorPart(use, sketch, alpha=0.5).restore(whole.state()) is False


def test_one_that_holds_at_one_look_is_refused(sketch: Sketch) -> None:
    with pytest.raises(
        InvalidInput, match="may be looked at any time, got 'psi', whose alpha holds at one look"
    ):
        DetectorPart("psi", sketch)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = make_release(tmp_path / "releases")
    digest = next(iter(open_release(release.path).candidates.values()))
    with TrafficWriter(tmp_path / "traffic") as writer:
        writer.write(records(0, 300, candidate=digest))

    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["monitor", str(tmp_path), "--once", *map(str, arguments)])
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out + said.err

    code, said = run("--release", release.path, "--detector", "page_hinkley", "--json")
    assert code == 0
    streams = {one["stream"]: one["reading"] for one in json.loads(said)["detector page_hinkley"]}
    assert streams["length"]["n"] == 300
    code, said = run("--release", release.path, "--detector", "adwin")
    assert (code, "adwin" in said, "page_hinkley" in said) == (2, True, True)
    code, said = run("--detector", "page_hinkley")
    assert (code, "--detector must come with --release" in said) == (2, True)
