"""What a kilowatt-hour emits where the machines stand, and what the building adds; the user's figures."""

import tomllib
from pathlib import Path

import msgspec

from jettison.cost.energy import Energy, Watts
from jettison.errors import InvalidInput
from jettison.files import decode_toml

J_PER_KWH = 3.6e6


class Grid(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Location-based emissions of the electricity, with where they come from."""

    g_per_kwh: float
    """Grams of CO2-equivalent a kilowatt-hour."""
    year: int
    source: str
    pue: float | None = None
    """Power of the whole building over that of its machines, 1 or more; None: not included."""
    pue_source: str | None = None

    @property
    def words(self) -> str:
        """How emissions were made from joules, and what is not in them."""
        pue = f"PUE {self.pue:g}" if self.pue is not None else "no PUE"
        of_pue = f" ({self.pue_source})" if self.pue_source else ""
        return (
            f"{self.g_per_kwh:g} g/kWh ({self.source}, {self.year}), {pue}{of_pue}; "
            "what making the machine emitted is not included"
        )


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Watts of one virtual CPU, measured with a meter on a host of the same type."""

    idle_w: float
    busy_w: float
    source: str
    date: str

    @property
    def watts(self) -> Watts:
        """As the estimate takes them."""
        return Watts(
            generation="calibrated",
            min_w=self.idle_w,
            max_w=self.busy_w,
            source=self.source,
            date=self.date,
        )


class GridFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--grid` reads: the table `[grid]`, and perhaps `[watts]`."""

    grid: Grid | None = None
    watts: Calibration | None = None


def read_grid(path: Path) -> GridFile:
    """Read a grid file.

    Raises:
        InvalidInput: It is not readable, or a field is missing, unknown or out of range.
    """
    try:
        found = msgspec.convert(decode_toml(path.read_bytes()), GridFile)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"--grid must be a readable TOML file, got {path}: {error}.") from error
    except msgspec.ValidationError as error:
        raise InvalidInput(
            f"{path} must hold [grid] with g_per_kwh, year and source (and pue), perhaps [watts] with "
            f"idle_w, busy_w, source and date: {error}."
        ) from error
    _check(found, path)
    return found


def co2e_g(energy: Energy | None, grid: Grid | None) -> float | None:
    """Grams of CO2-equivalent of one task; None where the joules or the grid are not known."""
    if energy is None or grid is None:
        return None
    return energy.energy_j * (grid.pue or 1.0) * grid.g_per_kwh / J_PER_KWH


def _check(found: GridFile, path: Path) -> None:
    if found.grid is None and found.watts is None:
        raise InvalidInput(f"{path} must hold [grid] or [watts], got neither.")
    grid, watts = found.grid, found.watts
    if grid is not None and (not 0 <= grid.g_per_kwh <= 3000 or not 1990 <= grid.year <= 2100):
        raise InvalidInput(
            f"a grid must emit 0-3000 g/kWh in a year of 1990-2100, got {grid.g_per_kwh:g} in {grid.year} "
            f"at {path}."
        )
    if grid is not None and grid.pue is not None and not 1 <= grid.pue <= 5:
        raise InvalidInput(
            f"PUE must be in 1-5, got {grid.pue:g} at {path}. It is total power over IT power."
        )
    if grid is not None and not grid.source.strip():
        raise InvalidInput(f"the source of a grid factor must be named, got none at {path}.")
    if watts is not None and not 0 <= watts.idle_w < watts.busy_w <= 1000:
        raise InvalidInput(
            f"watts of a virtual CPU must be 0 <= idle_w < busy_w <= 1000, got {watts.idle_w:g} and "
            f"{watts.busy_w:g} at {path}."
        )
