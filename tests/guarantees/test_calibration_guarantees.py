"""True confidences are rarely refuted, and the intervals of their errors cover; `-s` prints the table."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import calibration_check

pytestmark = pytest.mark.guarantee
N, DOUBT = 250, 1e-4
DISPLAY_LEVEL = 0.92
"""What intervals that no gate reads must cover."""
NOMINAL = 0.95


@pytest.mark.parametrize("setting", calibration_check.SETTINGS, ids=lambda one: one.name)
def test_a_check_of_confidences_holds_what_it_says(setting: calibration_check.Setting) -> None:
    rng = np.random.default_rng(1)
    found = [calibration_check.outcome(setting, rng) for _ in range(N)]
    refuted = sum(one.refuted for one in found)
    shares = {name: sum(hits) for name, hits in calibration_check.coverage(found).items()}
    print(f"refuted {refuted / N:.3f}, cover { ({k: v / N for k, v in shares.items()}) }  {setting.name}")
    if setting.is_true:
        assert binomtest(refuted, N, calibration_check.ALPHA, alternative="greater").pvalue > DOUBT
    for name, hits in shares.items():
        level = NOMINAL if name == "difference" else DISPLAY_LEVEL
        assert binomtest(hits, N, level, alternative="less").pvalue > DOUBT, name
