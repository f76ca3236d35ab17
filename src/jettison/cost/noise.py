"""How quiet the machine was: load, steal and pressure, read before and after; marks, never refuses."""

import os
from pathlib import Path

import msgspec


class MachineState(msgspec.Struct, frozen=True, kw_only=True):
    """What the system says about itself at one moment. None is not told."""

    load_1m: float | None = None
    n_cpus: int = 1
    cpu_pressure_avg10: float | None = None
    """Percent of the last ten seconds in which some task waited for a CPU (PSI)."""
    steal_ticks: int | None = None
    total_ticks: int | None = None
    governor: str | None = None


def read_machine_state(root: Path = Path("/")) -> MachineState:
    """Read load, PSI, steal and governor; what is not there stays None."""
    load = _read(root / "proc/loadavg")
    ticks = _cpu_ticks(_read(root / "proc/stat"))
    return MachineState(
        load_1m=float(load.split()[0]) if load else None,
        n_cpus=os.cpu_count() or 1,
        cpu_pressure_avg10=_pressure(_read(root / "proc/pressure/cpu")),
        steal_ticks=ticks[7] if len(ticks) > 7 else None,
        total_ticks=sum(ticks[:8]) if len(ticks) > 7 else None,
        governor=_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
    )


def noise_marks(before: MachineState, after: MachineState) -> tuple[str, ...]:
    """Say what may have disturbed the run, one sentence each; none when it was quiet.

    Limits: pressure 10 %, steal 2 %, other load of half the CPUs before the run.
    """
    marks = []
    if before.load_1m is not None and before.load_1m > 0.5 * before.n_cpus:
        marks.append(
            f"the machine was busy before the run: load {before.load_1m:.1f} on {before.n_cpus} CPUs."
        )
    pressures = [s.cpu_pressure_avg10 for s in (before, after) if s.cpu_pressure_avg10 is not None]
    if pressures and max(pressures) > 10:
        marks.append(
            f"tasks waited for a CPU in {max(pressures):.0f} % of the time (PSI): "
            "wall times are inflated, CPU-second ratios hold better."
        )
    steal = _steal_share(before, after)
    if steal is not None and steal > 0.02:
        marks.append(f"the host took {steal:.1%} of the CPU time away (steal).")
    if before.governor not in (None, "performance"):
        marks.append(f"the CPU's clock may change during the run (governor {before.governor}).")
    return tuple(marks)


def _steal_share(before: MachineState, after: MachineState) -> float | None:
    if None in (before.steal_ticks, before.total_ticks, after.steal_ticks, after.total_ticks):
        return None
    passed = (after.total_ticks or 0) - (before.total_ticks or 0)
    return ((after.steal_ticks or 0) - (before.steal_ticks or 0)) / passed if passed > 0 else None


def _cpu_ticks(stat: str | None) -> list[int]:
    """User, nice, system, idle, iowait, irq, softirq, steal, ... of all CPUs together."""
    first = (stat or "").partition("\n")[0].split()
    return [int(part) for part in first[1:]] if first and first[0] == "cpu" else []


def _pressure(text: str | None) -> float | None:
    for line in (text or "").splitlines():
        if line.startswith("some "):
            return float(line.split("avg10=")[1].split()[0])
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
