"""Every interval covers the truth as often as it says; `-s` prints the table."""

import sys
from pathlib import Path

import pytest
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import interval_coverage

pytestmark = pytest.mark.guarantee
DOUBT = 1e-4
DISPLAY_LEVEL = 0.92
"""What intervals that no gate reads must cover: Wilson's and percentile bootstraps waver about 95 %."""


@pytest.mark.parametrize("row", interval_coverage.ROWS, ids=lambda row: row.name)
def test_an_interval_covers_as_often_as_it_says(row: interval_coverage.Row) -> None:
    hits, n = interval_coverage.coverage(row, 1000, seed=1)
    print(f"{hits / n:.3f} of {n}  {row.name}{', for display' if row.is_display else ''}")
    level = DISPLAY_LEVEL if row.is_display else interval_coverage.LEVEL
    assert binomtest(hits, n, level, alternative="less").pvalue > DOUBT
