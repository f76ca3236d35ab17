"""What a service level's alarms find of NAB's stream of EC2 latencies: labelled incidents, and what else.

    python benchmarks/nab_slo.py

Limits are learned on the first five days, before any incident; the rest of the stream is watched point by
point. Prints one JSON object for each service level.
"""

import csv
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy import stats

from beside import SHARED
from jettison.monitor.burn_rate import BurnRates, slo_from
from jettison.monitor.log import News, Place
from jettison.record import Cost, Record

NAME = "ec2_request_latency_system_failure.csv"
CLEAN_S = 5 * 86400
"""The first five days, before any incident, say what is usual."""
STANDS_FOR = 20
"""A point of the stream is a five-minute mean: it stands for so many requests."""


@dataclass(frozen=True)
class Stream:
    """Points and the windows of the labelled incidents."""

    points: list[tuple[float, float]]
    """Seconds since the epoch, latency in seconds."""
    incidents: list[list[float]]

    @property
    def learned(self) -> float:
        """When the clean days end."""
        return self.points[0][0] + CLEAN_S

    @property
    def clean_s(self) -> np.ndarray:
        """Latencies of the clean days."""
        return np.array([value for time, value in self.points if time < self.learned])

    @property
    def fastest_s(self) -> float:
        """Of the clean days."""
        return float(self.clean_s.min())

    @property
    def slowest_s(self) -> float:
        """Of the clean days."""
        return float(self.clean_s.max())

    def normal_range_s(self, *, alpha: float) -> tuple[float, float]:
        """Range that no later point leaves with probability 1 - alpha, were all as in the clean days."""
        n_later = len(self.points) - len(self.clean_s)
        wide = float(stats.norm.isf(alpha / n_later / 2)) * float(self.clean_s.std(ddof=1))
        return float(self.clean_s.mean()) - wide, float(self.clean_s.mean()) + wide


@dataclass(frozen=True)
class Found:
    """What alarmed after the clean days."""

    incidents: set[int]
    """Those during which there was an alarm."""
    n_outside: int
    """Points outside of all incidents at which there was one."""


def read_stream(folder: Path) -> Stream:
    """Read it from `nab_streams`."""
    with (folder / NAME).open() as file:
        points = [(_seconds(row["timestamp"]), float(row["value"]) / 1000) for row in csv.DictReader(file)]
    windows = json.loads((folder / "windows.json").read_text())
    spans = next(spans for key, spans in windows.items() if key.endswith(NAME))
    return Stream(points, [[_seconds(time) for time in span] for span in spans])


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def found_by(slo: str, stream: Stream) -> Found:
    """Go through the stream as the watcher does, looking at each point."""
    rates = BurnRates([slo_from(slo)])
    found, outside = set(), 0
    for time, value in stream.points:
        same = tuple(
            Record(
                candidate="a", example_id=f"r{time}-{i}", split="live", output="x", time=time + i,
                role="answer", cost=Cost(latency_s=value),
            )
            for i in range(STANDS_FOR)
        )  # fmt: skip
        rates.take(News(records=same, feedback=(), place=Place(), is_all=True))
        if time >= stream.learned and rates.alerts(time + STANDS_FOR):
            hit = [i for i, (low, high) in enumerate(stream.incidents) if low <= time <= high]
            found.update(hit)
            outside += not hit
    return Found(found, outside)


def main() -> None:
    """One line a service level."""
    stream = read_stream(SHARED / "data" / "nab_streams")
    ranges = {"extremes": (stream.fastest_s, stream.slowest_s)}
    ranges |= {f"normal, {alpha:g}": stream.normal_range_s(alpha=alpha) for alpha in (0.001, 0.01, 0.05)}
    levels = [("slowest", f"{stream.slowest_s:.5f}")]
    levels += [(name, f"{least:.5f}..{most:.5f}") for name, (least, most) in ranges.items()]
    for name, limits in levels:
        for share in (0.99, 0.995):
            slo = f"latency_s:{share}:{limits}"
            found = found_by(slo, stream)
            told = {"name": "incidents_found", "value": len(found.incidents), "low": None, "high": None}
            facts = {"which": sorted(found.incidents), "alarmed_points_outside": found.n_outside}
            told |= {"unit": f"of {len(stream.incidents)}", "against": "none", "slo": slo, "limits": name}
            print(json.dumps(told | facts), flush=True)


if __name__ == "__main__":
    main()
