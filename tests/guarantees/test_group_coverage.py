"""Intervals of means cover with few, unequal, dependent groups and few labels; `-s` prints the table."""

import sys
from pathlib import Path

import pytest
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import group_coverage
from group_coverage import F1Row, GapRow, Groups, MeanRow, Row

pytestmark = pytest.mark.guarantee
LEVEL = 0.93
DOUBT = 1e-3
TWENTY = Groups(20, 10, unequal=True, dependent=True)
FIFTY = Groups(50, 10, unequal=True, dependent=True)
N_MEANS, N_PREDICTIONS = 2000, 200


@pytest.mark.parametrize(
    "row",
    [
        MeanRow("normal scores", TWENTY),
        MeanRow("gaps, 57 % right", TWENTY),
        MeanRow("gaps, 91 % right", TWENTY),
        MeanRow("gaps, 91 % right", FIFTY),
        F1Row(TWENTY, (0.8, 0.85)),
        F1Row(TWENTY, (0.93, 0.95)),
        F1Row(FIFTY, (0.93, 0.95)),
        GapRow("difference", TWENTY),
        GapRow("difference", FIFTY),
        GapRow("difference", Groups(200, 5, unequal=True, dependent=True)),
        GapRow("difference", TWENTY, "heavy"),
        GapRow("difference", TWENTY, is_rare=True),
        GapRow("score", Groups(150), "heavy", is_rare=True),
    ],
    ids=str,
)
def test_an_interval_covers_where_the_usual_one_does_not(row: Row) -> None:
    n = N_MEANS if not isinstance(row, GapRow) else N_PREDICTIONS
    found = group_coverage.coverage(row, n, seed=1)
    for name, (hits, half) in found.items():
        print(f"{hits / n:.3f} of {n}, half width {half:.3f}  {row}: {name}")
    assert binomtest(found["ours"][0], n, LEVEL, alternative="less").pvalue > DOUBT
    assert binomtest(found["usual"][0], n, LEVEL, alternative="less").pvalue < DOUBT


@pytest.mark.parametrize("groups", [Groups(20, 10), Groups(50, 10, dependent=True)], ids=str)
def test_with_equal_groups_it_is_the_usual_one(groups: Groups) -> None:
    found = group_coverage.coverage(MeanRow("normal scores", groups), 50, seed=2)
    assert found["ours"] == pytest.approx(found["usual"])
