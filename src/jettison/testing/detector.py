"""What every detector must hold, whatever it computes: `check_detector(name)`."""

from collections.abc import Sequence

import msgspec
import numpy as np
from scipy.stats import binom

from jettison import registry
from jettison.errors import InvalidInput
from jettison.monitor.detectors import Detector, Reading, open_detector

SHARES = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
DRIFTED = (0.1, 0.1, 0.15, 0.15, 0.2, 0.3)


def check_detector(
    use: str,
    *,
    n_reference: int = 1000,
    n_window: int = 500,
    n_runs: int = 60,
    alpha: float = 0.05,
    seed: int = 0,
) -> None:
    """Check that a detector keeps the promises of `jettison.monitor.detectors.Detector`.

    Args:
        use: Name of the plugin, registered or declared.
        n_reference: Scores in the reference.
        n_window: Scores in each clean or drifted run.
        n_runs: Clean runs; unless it is a heuristic, no more may alarm than alpha explains.
        alpha: Share of false alarms that it is asked to keep to.
        seed: Of the scores.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    rng = np.random.default_rng(seed)
    reference = rng.multinomial(n_reference, SHARES)
    _check_refusals(use, reference)
    empty = open_detector(use, reference, alpha=alpha)
    _hold(not empty.alarm, "there must be no alarm before the first score")
    _hold(empty.reading().n == 0, f"n must be 0 before the first score, got {empty.reading().n}")
    _check_cuts(use, reference, _scores(rng, n_window, DRIFTED), alpha)
    n_false = 0
    for run in range(n_runs):
        made = open_detector(use, rng.multinomial(n_reference, SHARES), alpha=alpha, seed=run)
        n_false += _alarms(made, _scores(rng, n_window, SHARES))
    if not empty.is_heuristic:
        most = int(binom.isf(1e-4, n_runs, alpha))
        _hold(n_false <= most, f"at most {most} of {n_runs} clean runs may alarm, got {n_false}")
    found = open_detector(use, reference, alpha=alpha)
    _hold(_alarms(found, _scores(rng, 4 * n_window, DRIFTED)), "a plain drift must be found, got no alarm")


def _scores(rng: np.random.Generator, n: int, shares: Sequence[float]) -> np.ndarray:
    return rng.choice(len(shares), n, p=shares)


def _alarms(detector: Detector, scores: np.ndarray) -> bool:
    """Whether it alarms, looked at often where it says that it may be, else once."""
    looks = 10 if detector.any_time else 1
    seen = False
    for part in np.array_split(scores, looks):
        detector.update(part)
        seen = seen or detector.alarm
    return seen


def _check_refusals(use: str, reference: np.ndarray) -> None:
    for bad, said in (([], "no counts"), ([-1, 2], "a negative count"), ([0, 0], "no reference at all")):
        _raises(lambda bad=bad: open_detector(use, bad, alpha=0.05), said)
    for alpha in (0.0, 1.0, float("nan")):
        _raises(lambda alpha=alpha: open_detector(use, reference, alpha=alpha), f"alpha {alpha}")
    made = open_detector(use, reference, alpha=0.05)
    for score in (-1, len(reference)):
        _raises(lambda score=score: made.update([score]), f"score {score}")


def _raises(action: object, what: str) -> None:
    assert callable(action)
    try:
        action()
    except InvalidInput:
        return
    raise AssertionError(f"{what} must raise InvalidInput, got nothing")


def _check_cuts(use: str, reference: np.ndarray, scores: np.ndarray, alpha: float) -> None:
    """The same whole, in pieces, and stopped and begun again; reading changes nothing."""
    whole = open_detector(use, reference, alpha=alpha)
    whole.update(scores)
    pieces = open_detector(use, reference, alpha=alpha)
    kind = registry.load("detectors", use)
    for start in range(0, len(scores), 37):
        pieces.update(scores[start : start + 37])
        pieces.update([])
        pieces.reading()
        pieces = kind.from_state(msgspec.json.decode(msgspec.json.encode(pieces.state())))
    reading = whole.reading()
    _hold(isinstance(reading, Reading), f"reading must give a Reading, got {type(reading).__name__}")
    _hold(
        reading == pieces.reading(), "pieces and restarts must give what the whole gives, to the last digit"
    )
    _hold(reading.n == len(scores), f"n must be {len(scores)}, got {reading.n}")
    _hold(reading.alarm == whole.alarm, "alarm and reading must say the same")
    _hold(bool(reading.reason), "a reading must say why")


def _hold(rule: bool, message: str) -> None:
    if not rule:
        raise AssertionError(message)
