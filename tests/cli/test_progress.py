"""What a person at a terminal is told of a run."""

import pytest

from jettison.cli.progress import Screen


def test_a_run_past_its_estimate_claims_nothing_of_the_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Screen() as screen:
        screen.stage("first", 40.0)
        screen.stage("second", 0.0)
    said = capsys.readouterr().err
    assert "about 40 s left" in said
    assert "about 0 s left" not in said
