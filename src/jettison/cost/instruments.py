"""What this machine can measure, the floor under which it measures nothing, what would be an estimate."""

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from jettison.cost.energy import cpu_generation, estimate_energy
from jettison.cost.meter_nvml import nvml_state
from jettison.cost.meter_rapl import POWERCAP, find_zones, why_not
from jettison.cost.meters import peak_resident_bytes
from jettison.cost.noise import read_machine_state
from jettison.cost.tcp_info import counts_bytes
from jettison.cost.timers import CLAIM_ABOVE, measure_timers


class Instrument(NamedTuple):
    """One thing that costs are measured with."""

    name: str
    is_there: bool | None
    """None: neither good nor bad, a figure or an estimate."""
    detail: str
    figures: dict[str, float] | None = None
    """What was found of it in numbers, each with its unit in its name."""


def examine_instruments(root: Path = Path("/"), *, powercap: Path = POWERCAP) -> list[Instrument]:
    """Look at every instrument; the timers are measured on the spot, a quarter of a second.

    Args:
        root: Where `proc` and `sys` are.
        powercap: Where RAPL's counters are.
    """
    return [
        *_energy(powercap, root / "proc/cpuinfo"),
        _cpu(root),
        *_noise(root),
        *_timers(),
        _wire(),
        _peak(root),
        _cold(),
    ]


def _energy(powercap: Path, cpuinfo: Path) -> list[Instrument]:
    zones = find_zones(powercap)
    rapl = (
        f"measured, tier M2: {', '.join(zone.name for zone in zones)}"
        if zones
        else f"no: {why_not(powercap)}"
    )
    has_nvml, nvml = nvml_state()
    found = [
        Instrument("energy, RAPL", bool(zones), rapl),
        Instrument("energy, NVML", has_nvml, f"measured, tier M2: {nvml}" if has_nvml else nvml),
    ]
    if not zones:
        energy = estimate_energy(1.0, 1.0, cpuinfo=cpuinfo)
        known = cpu_generation(cpuinfo) or "unknown CPU"
        found.append(
            Instrument(
                "energy would be an estimate",
                None,
                f"tier {energy.tier}, ×/÷ {energy.factor:g} ({known}): {energy.source}; ratios on "
                "this machine only. CO₂e of it is one too. Addresses elsewhere: no meter, no joules",
                {"energy_factor": energy.factor},
            )
        )
    return found


def _cpu(root: Path) -> Instrument:
    pid = os.getpid()
    if (root / f"proc/{pid}/task/{pid}/children").is_file():
        return Instrument("CPU-seconds", True, "exact, of all threads and child processes, living ones too")
    return Instrument(
        "CPU-seconds", True, "exact, but child processes are counted only once they have ended"
    )


def _noise(root: Path) -> list[Instrument]:
    state = read_machine_state(root)
    pressure, steal, governor = state.cpu_pressure_avg10, state.steal_ticks, state.governor
    return [
        Instrument(
            "pressure (PSI)",
            pressure is not None,
            "none: neighbors inside this system are not seen"
            if pressure is None
            else f"tasks wait for a CPU {pressure:.0f} % of the time now",
            None if pressure is None else {"cpu_pressure_share": pressure / 100},
        ),
        Instrument(
            "steal",
            steal is not None,
            "not told: neighbors on the host are not seen" if steal is None else "counted in /proc/stat",
        ),
        Instrument(
            "clock governor",
            None,
            governor or "not told: the clock may change during a run, a canary looks for it",
        ),
    ]


def _timers() -> list[Instrument]:
    floor = measure_timers()
    us = 1e6
    return [
        Instrument(
            "measurement floor",
            None,
            f"found just now: a sleeping thread wakes late by {us * floor.late_p50_s:.0f} µs (median), "
            f"{us * floor.late_p99_s:.0f} µs (99th percentile); the clock steps by "
            f"{1e9 * floor.resolution_s:.0f} ns. Latencies under "
            f"{us * CLAIM_ABOVE * floor.late_p50_s:.0f} µs are marked",
            {
                "timer_late_p50_s": floor.late_p50_s,
                "timer_late_p99_s": floor.late_p99_s,
                "clock_step_s": floor.resolution_s,
                "least_latency_s": CLAIM_ABOVE * floor.late_p50_s,
            },
        )
    ]


def _wire() -> Instrument:
    is_there = counts_bytes()
    detail = (
        "payload, protocol and resent bytes of each connection" if is_there else "not told by this system"
    )
    return Instrument("bytes on the wire (TCP_INFO)", is_there, detail)


def _peak(root: Path) -> Instrument:
    """Whether a phase's peak can be told, without touching this process's own."""
    has_peak = peak_resident_bytes(root / "proc/self/status") is not None
    can_reset = os.access(root / "proc/self/clear_refs", os.W_OK)
    told = "of each phase" if can_reset else "of the whole process only: it may not be started over"
    return Instrument("peak memory", has_peak, told if has_peak else "not told by this system")


def _cold() -> Instrument:
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except (AttributeError, OSError):
            return Instrument(
                "cold start", False, "files' cached pages cannot be dropped: loading may be warm"
            )
    return Instrument("cold start", True, "files' cached pages are dropped before loading")
