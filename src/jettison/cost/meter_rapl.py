"""The processor's own energy counters (RAPL) as Linux shows them under powercap."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jettison.cost.meters import EnergyMeter
from jettison.errors import Unsupported

POWERCAP = Path("/sys/class/powercap")


class Zone(NamedTuple):
    """One counter; it starts over at `wrap_uj`."""

    name: str
    path: Path
    wrap_uj: int


class RaplMeter(EnergyMeter):
    """Packages and memory of the whole machine, whoever uses them.

    Core and uncore are part of their package and are not added; `psys` (the whole platform) holds the
    packages and is read only where there are none. A counter starts over about every quarter of an hour
    at full power: windows are to be shorter.

    Raises:
        Unsupported: There are no counters, or they may not be read.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        super().__init__()
        self._zones = find_zones(powercap)
        if not self._zones:
            raise Unsupported(f"RAPL must be readable under {powercap} to be a meter: {why_not(powercap)}.")
        names = sorted({zone.name.split("-")[0] for zone in self._zones})
        self.boundary = "platform" if names == ["psys"] else f"chip ({' + '.join(reversed(names))})"
        self.source = f"RAPL counters of {', '.join(zone.name for zone in self._zones)}, whole machine"

    def _read(self) -> None:
        self._from_uj = [_number(zone.path) for zone in self._zones]

    def _joules(self) -> float | None:
        total_uj = 0
        for zone, from_uj in zip(self._zones, self._from_uj, strict=True):
            now_uj = _number(zone.path)
            if now_uj is None or from_uj is None:
                return None
            step_uj = now_uj - from_uj
            total_uj += step_uj if step_uj >= 0 else step_uj + zone.wrap_uj
        return total_uj / 1e6


def find_zones(powercap: Path = POWERCAP) -> list[Zone]:
    """Counters that add up to the machine without counting anything twice; none where one is missing.

    `intel-rapl-mmio` shows the same packages a second time and is left out.
    """
    seen = [(_text(path / "name"), path) for path in sorted(powercap.glob("intel-rapl:*"))]
    packages = [(name, path) for name, path in seen if name.startswith("package")]
    wanted = [*packages, *((name, path) for name, path in seen if name == "dram")]
    if not packages:
        wanted = [(name, path) for name, path in seen if name == "psys"]
    found = [
        Zone(name, path / "energy_uj", wrap_uj)
        for name, path in wanted
        if _number(path / "energy_uj") is not None
        and (wrap_uj := _number(path / "max_energy_range_uj")) is not None
    ]
    return found if len(found) == len(wanted) else []


def why_not(powercap: Path = POWERCAP) -> str:
    """Why there is no meter here, in a few words."""
    zones: Sequence[Path] = list(powercap.glob("intel-rapl:*"))
    if not powercap.is_dir():
        return "this system has no powercap (a virtual machine has none)"
    if not zones:
        return "no counter there"
    return "its counters may not be read by this user (root, or read permission on energy_uj)"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
