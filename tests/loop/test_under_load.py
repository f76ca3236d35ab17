"""A run with an SLO: what was searched under load goes into the report, and is kept."""

from pathlib import Path

import pytest

from fake_runs import FakeLean, config_at
from jettison import registry
from jettison.decide.report_types import read_report_content
from jettison.loop.run import run


@pytest.mark.slow
def test_a_run_searches_the_rate_of_the_incumbent_and_the_nominee_once(tmp_path: Path) -> None:
    registry.register("steps", "fake_lean", FakeLean)
    # A fake that takes 0.8 ms cannot keep to 1 us: one request at a time shows it, and no rate is tried.
    config = config_at(tmp_path, {"name": "lean"}, slo="p95=1us", epsilons=(0.01,), n_shown=1)
    first = run(config)
    load = read_report_content(first.folder).load
    assert load is not None
    assert [target.name for target in load.targets] == ["incumbent", "lean"]
    assert load.rate_per_s is None
    assert all("no rate was shown to meet p95 <= 0.001 ms" in t.slo_reason for t in load.targets)
    assert "no rate was shown to meet" in first.report.read_text()
    assert run(config).report.read_text() == first.report.read_text()
    assert len(list((first.folder / "cache" / "load").iterdir())) == 1
