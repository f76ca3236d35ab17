"""The energy counters of NVIDIA boards, by NVML (extra `gpu`)."""

from typing import Any

from jettison.cost.meters import EnergyMeter
from jettison.errors import MissingExtra, Unsupported
from jettison.registry import need


class NvmlMeter(EnergyMeter):
    """The total-energy counters of all boards, or of those in use; idle power included.

    Power readings are not used: boards of the A100's and H100's kind sample them a quarter of the time
    (arXiv 2312.02741), which the total-energy counter does not suffer from.

    Args:
        only_used: Leave boards out on which no process computes.

    Raises:
        MissingExtra: nvidia-ml-py is not installed.
        Unsupported: There is no driver, no board, no counter (before Volta), or none in use.
    """

    boundary = "board (accelerators alone)"

    def __init__(self, *, only_used: bool = False) -> None:
        super().__init__()
        self._nvml = need("pynvml", "gpu")
        try:
            self._boards = self._find(only_used)
        except self._nvml.NVMLError as error:
            raise Unsupported(f"NVML must answer to be a meter, but it says: {error}.") from error
        if not self._boards:
            what = "board in use" if only_used else "NVIDIA board"
            raise Unsupported(f"there must be an {what} for NVML to be a meter, got none.")
        self.source = f"NVML total-energy counter of {len(self._boards)} board(s), idle power included"

    def _find(self, only_used: bool) -> list[Any]:
        nvml = self._nvml
        nvml.nvmlInit()
        boards = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        if only_used:
            boards = [board for board in boards if nvml.nvmlDeviceGetComputeRunningProcesses(board)]
        for board in boards:
            nvml.nvmlDeviceGetTotalEnergyConsumption(board)
        return boards

    def _read(self) -> None:
        self._from_mj = self._now_mj()

    def _joules(self) -> float | None:
        now_mj = self._now_mj()
        if now_mj is None or self._from_mj is None or now_mj < self._from_mj:
            return None  # a board was lost, or the driver was loaded again: the counter began anew
        return (now_mj - self._from_mj) / 1000

    def _now_mj(self) -> int | None:
        try:
            told = [int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(board)) for board in self._boards]
        except self._nvml.NVMLError:
            return None
        return sum(told)


def nvml_state() -> tuple[bool, str]:
    """Whether NVML is a meter here, and its boards or what stands in the way."""
    try:
        meter = NvmlMeter()
    except (MissingExtra, Unsupported) as error:
        return False, str(error)
    return True, meter.source
