"""Zeus as a meter: whatever it can read of GPUs, processors, memory and Apple's chips (extra `zeus`)."""

from typing import Any

from jettison.cost.meters import EnergyMeter
from jettison.errors import MissingExtra, Unsupported

_WINDOW = "jettison"


class ZeusMeter(EnergyMeter):
    """The sum of what Zeus reads; what it reads is in the boundary once a window has ended.

    Raises:
        MissingExtra: zeus is not installed.
        Unsupported: Zeus finds nothing to read here.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            from zeus.monitor import ZeusMonitor
        except ImportError as error:
            raise MissingExtra(
                "`zeus` is not installed; it comes with `pip install 'jettison[zeus]'`."
            ) from error
        # It would wait for a framework in this process; the model runs in another.
        self._monitor: Any = ZeusMonitor()
        self._read()
        parts = self._parts()
        if not parts:
            raise Unsupported(
                "Zeus must find a counter to be a meter, but it reads nothing on this machine."
            )
        self.boundary = " + ".join(sorted(parts))
        self.source = f"Zeus: {self.boundary}, whole machine"

    def _read(self) -> None:
        self._monitor.begin_window(_WINDOW, sync_execution=False, restart=True)

    def _joules(self) -> float | None:
        parts = self._parts()
        return sum(parts.values()) if parts else None

    def _parts(self) -> dict[str, float]:
        found = self._monitor.end_window(_WINDOW, sync_execution=False)
        kinds = {
            "boards (accelerators)": found.gpu_energy,
            "chips (packages)": found.cpu_energy,
            "memory": found.dram_energy,
        }
        parts = {name: float(sum(each.values())) for name, each in kinds.items() if each}
        soc = getattr(found, "soc_energy", None)
        if soc is not None:
            total_mj = [getattr(soc, f"{part}_mj", None) for part in ("cpu_total", "gpu", "dram", "ane")]
            if any(total_mj):
                parts["chip (Apple)"] = sum(mj or 0 for mj in total_mj) / 1000
        return parts
