"""Energy per task: the tiers of how it may be known, and the estimate where no counter tells.

Tiers are never mixed: M1 to M3 are measured, E1 to E3 are CPU-seconds times watts. An estimate compares
candidates on one machine, no more. Counters are in `meter_rapl.py` and its neighbors.
"""

import csv
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import median

import msgspec

CPUINFO = Path("/proc/cpuinfo")

FACTORS = {"M1": 1.1, "M2": 1.3, "M3": 1.5, "E1": 1.5, "E2": 2.0, "E3": 3.0}
"""By how much, up or down, each tier may be wrong: a wall analyzer (its class says better), a counter on
the board, such a counter shared by CPU time; watts calibrated on a host of the same type, published watts
of a known CPU, of an unknown one."""


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of one task."""

    energy_j: float
    tier: str
    factor: float
    """The true figure may lie between energy_j / factor and energy_j x factor."""
    dynamic_j: float | None = None
    """Part that the work adds; None where a counter sees only the sum."""
    idle_j: float | None = None
    """Share of what the machine draws at rest, over the task's wall time."""
    boundary: str = "chip"
    """What is inside the figure: chip, board, server or facility, with what of it."""
    source: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether a meter told it."""
        return self.tier.startswith("M")


class Watts(msgspec.Struct, frozen=True, kw_only=True):
    """Power of one virtual CPU, at rest and fully busy."""

    generation: str
    min_w: float
    max_w: float
    source: str
    date: str


def estimate_energy(
    cpu_s: float,
    held_s: float,
    *,
    threads: int = 1,
    cpuinfo: Path = CPUINFO,
    calibrated: Watts | None = None,
) -> Energy:
    """Estimate the energy of one task from its CPU-seconds.

    `cpu_s x (max - min) + held_s x threads x min` watts of a virtual CPU: what the work adds,
    and the share at rest of the CPUs it holds while it runs, tasks following one another.

    Args:
        cpu_s: CPU-seconds of one task.
        held_s: Wall seconds of one task, less those in which other work had the CPU.
        threads: Virtual CPUs that are held for it.
        cpuinfo: Where the CPU's family and model stand.
        calibrated: Watts that the user measured on a host of the same type: tier E1.

    Source:
        Cloud Carbon Footprint coefficients (SPECpower, Apache-2.0), April 2026.
    """
    generation = cpu_generation(cpuinfo)
    table = read_watts()
    watts = calibrated or table.get(generation or "") or _middle(table)
    tier = "E1" if calibrated else "E2" if generation in table else "E3"
    dynamic_j = cpu_s * (watts.max_w - watts.min_w)
    idle_j = held_s * threads * watts.min_w
    return Energy(
        energy_j=dynamic_j + idle_j,
        tier=tier,
        factor=FACTORS[tier],
        dynamic_j=dynamic_j,
        idle_j=idle_j,
        boundary="server",
        source=f"CPU-seconds x {watts.min_w:.2f}-{watts.max_w:.2f} W per vCPU "
        f"({watts.generation}; {watts.source}, {watts.date})",
    )


@cache
def read_watts() -> dict[str, Watts]:
    """The bundled table, by CPU generation."""
    text = (files("jettison.cost") / "coefficients.csv").read_text()
    rows = csv.DictReader(text.splitlines())
    return {row["generation"]: msgspec.convert(row, Watts, strict=False) for row in rows}


def cpu_generation(cpuinfo: Path = CPUINFO) -> str | None:
    """The CPU's generation by its family and model, not its marketing name; None when unknown."""
    fields = _cpu_fields(cpuinfo)
    try:
        family, model, stepping = (int(fields[k]) for k in ("cpu family", "model", "stepping"))
    except (KeyError, ValueError):
        return None
    if fields.get("vendor_id") == "AuthenticAMD":
        return _amd(family, model)
    if fields.get("vendor_id") == "GenuineIntel" and family == 6:
        return _intel(model, stepping)
    return None


def _amd(family: int, model: int) -> str | None:
    ranges = {
        "EPYC 1st Gen": (23, (0x00, 0x0F)),
        "EPYC 2nd Gen": (23, (0x30, 0x3F)),
        "EPYC 3rd Gen": (25, (0x00, 0x0F)),
        "EPYC 4th Gen": (25, (0x10, 0x1F)),
        "EPYC 5th Gen": (26, (0x00, 0x1F)),
    }
    if family == 25 and 0xA0 <= model <= 0xAF:  # Bergamo and Siena
        return "EPYC 4th Gen"
    for generation, (of_family, (first, last)) in ranges.items():
        if family == of_family and first <= model <= last:
            return generation
    return None


def _intel(model: int, stepping: int) -> str | None:
    if model == 85:  # one number for three generations
        return "Skylake" if stepping <= 4 else "Cascade Lake" if stepping <= 7 else None
    models = {
        "Sandy Bridge": (42, 45),
        "Ivy Bridge": (58, 62),
        "Haswell": (60, 63, 69, 70),
        "Broadwell": (61, 71, 79, 86),
        "Skylake": (78, 94),
        "Coffee Lake": (142, 158),
        "Ice Lake": (106, 108, 125, 126),
        "Sapphire Rapids": (143,),
        "Emerald Rapids": (207,),
        "Granite Rapids": (173, 174),
    }
    return next((name for name, numbers in models.items() if model in numbers), None)


def _middle(table: dict[str, Watts]) -> Watts:
    """The median of the table, for a CPU that is not in it."""
    rows = list(table.values())
    return Watts(
        generation="unknown CPU: median of the table",
        min_w=median(row.min_w for row in rows),
        max_w=median(row.max_w for row in rows),
        source=rows[0].source,
        date=rows[0].date,
    )


def _cpu_fields(cpuinfo: Path) -> dict[str, str]:
    """Fields of the first CPU of /proc/cpuinfo."""
    try:
        first = cpuinfo.read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}
