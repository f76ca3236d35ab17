"""Drift as it comes: a conformal martingale on each score, so that one may look every minute.

The probability of any false alarm, ever, over all scores and slices, is at most alpha: each stream gets a
part, and those that a new domain moves first get half. Which scores there are is fixed by the release's
sketch; slices are met as they come, each against its own past, with the parts 6 / (pi k)^2 of another half.
"""

import zlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import numpy as np

from jettison.errors import InvalidInput
from jettison.files import value_sha256
from jettison.monitor.detectors import Reading
from jettison.monitor.drift_changes import NewestTexts
from jettison.monitor.drift_scores import N_CODES, DriftScores
from jettison.monitor.log import News
from jettison.record import Record
from jettison.release.sketch import SCORE_EDGES, Sketch
from jettison.stats.conformal_martingale import ConformalMartingale

MOST_SLICES = 50
WATCHED_MOST = ("rare_text", "off_topic", "in_scope")
"""Scores of how unlike the reference an input is, by its text, by its words and to the model."""
FORMAT = 2
"""1 held the capital of other bets."""


class DriftStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where one stream stands."""

    stream: str
    """A score or category, ` on name=value` for one slice."""
    n: int
    log_e: float
    """Logarithm of the evidence for drift, the largest so far."""
    limit: float
    has_drifted: bool
    side: str
    """`small` or `large` values came more often; `` where nothing has won yet."""


class DriftWatch:
    """Reads the log on and keeps one martingale a score.

    Args:
        sketch: Of the release.
        candidates: Digests of the release's candidates; None takes every lean answer.
        alpha: Probability of any false alarm, ever.
        slices: Names of the records' slices whose values are watched too.
        seed: Of the coins that break ties.

    Raises:
        InvalidInput: Alpha is not in (0, 1).
    """

    def __init__(
        self,
        sketch: Sketch,
        *,
        candidates: Collection[str] | None = None,
        alpha: float = 0.01,
        slices: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        if not 0 < alpha < 1:
            raise InvalidInput(f"alpha must be in (0, 1), got {alpha}.")
        self.sketch, self.alpha, self.slices, self.seed = sketch, alpha, slices, seed
        self._scores = DriftScores(sketch, candidates=candidates)
        self.newest = NewestTexts(sketch)
        """What changed, told of the newest texts since this watch was made; not part of `state`."""
        whole = alpha / 2 if slices else alpha
        references = self._scores.references
        self._streams = {
            name: ConformalMartingale(references[name], alpha=whole * part, seed=_seed(seed, name))
            for name, part in _parts(references).items()
        }

    def take(self, news: News) -> None:
        """Take in the next part of the log; its bounds may fall anywhere."""
        some = self._scores.of(news)
        self.newest.take(some.features, [record.slices for record in some.asked])
        values = some.streams
        if self.slices:
            for record, bins in some.answers:
                self._add_slices(record, bins, values)
        for name, codes in values.items():
            if name in self._streams:
                self._streams[name].update(codes)

    def _add_slices(self, record: Record, bins: Mapping[str, int], values: dict[str, list[int]]) -> None:
        for name, code in bins.items():
            for one in self.slices:
                if one in record.slices and name in self._streams:
                    stream = f"{name} on {one}={record.slices[one]}"
                    if stream in self._streams or self._begin(stream, name):
                        values.setdefault(stream, []).append(code)

    def _begin(self, stream: str, name: str) -> bool:
        """A slice's own stream, whose first scores are its reference; False where there are too many."""
        k = sum(" on " in known for known in self._streams) + 1
        if k > MOST_SLICES:
            return False
        n_bins = len(SCORE_EDGES[name]) + 1 if name in SCORE_EDGES else N_CODES
        part = self.alpha / 2 * 6 / (np.pi * k) ** 2
        self._streams[stream] = ConformalMartingale(
            np.zeros(n_bins, int), alpha=part, seed=_seed(self.seed, stream)
        )
        return True

    @property
    def has_drifted(self) -> bool:
        """Whether any stream has alarmed."""
        return any(stream.alarm for stream in self._streams.values())

    def status(self) -> tuple[DriftStatus, ...]:
        """Where each stream stands, the strongest evidence first."""
        sides = {None: "", True: "small", False: "large"}
        found = [
            DriftStatus(
                stream=name,
                n=one.n,
                log_e=one.most_log_e,
                limit=one.limit,
                has_drifted=one.alarm,
                side=sides[one.is_low],
            )
            for name, one in self._streams.items()
            if one.n
        ]
        return tuple(sorted(found, key=lambda one: (one.limit - one.log_e, one.stream)))

    def reading(self) -> Reading:
        """All streams as one."""
        ranked = self.status()
        drifted = [one.stream for one in ranked if one.has_drifted]
        n = max((one.n for one in ranked), default=0)
        best = ranked[0] if ranked else None
        if drifted:
            reason = f"{', '.join(drifted[:5])} moved, at alpha {self.alpha:g} over all looks"
        else:
            reason = f"nothing moved after {n:,}, at alpha {self.alpha:g} over all looks"
        return Reading(
            alarm=bool(drifted),
            n=n,
            statistic=best.log_e if best else None,
            limit=best.limit if best else None,
            p_value=None,
            reason=reason,
        )

    def state(self) -> dict[str, Any]:
        """Everything it knows beside the sketch."""
        streams = {name: stream.state() for name, stream in self._streams.items()}
        return {
            "format": FORMAT,
            "reference": value_sha256(self.sketch),
            "alpha": self.alpha,
            "slices": list(self.slices),
            "streams": streams,
        }

    def restore(self, state: Mapping[str, Any]) -> bool:
        """Go on where `state` was taken; False, with nothing changed, where it is of another watch."""
        # Streams carry the reference that they began with: those of another release's are of no use here.
        kept = (state["format"], state.get("reference"), state["alpha"], tuple(state["slices"]))
        same = kept == (FORMAT, value_sha256(self.sketch), self.alpha, self.slices)
        own = {name for name in self._streams if " on " not in name}
        if not same or own != {name for name in state["streams"] if " on " not in name}:
            return False
        self._streams = {
            name: ConformalMartingale.from_state(one) for name, one in state["streams"].items()
        }
        return True


def _parts(names: Collection[str]) -> dict[str, float]:
    """Each stream's part of alpha: half goes to `WATCHED_MOST`, where the release has them."""
    most = [name for name in names if name in WATCHED_MOST]
    others = len(names) - len(most)
    if not most or not others:
        return dict.fromkeys(names, 1 / len(names))
    return {name: 0.5 / len(most) if name in most else 0.5 / others for name in names}


def _seed(seed: int, name: str) -> int:
    return seed * 2**32 + zlib.crc32(name.encode())
