"""Energy: made-up powercap trees, a made-up NVML at its module's border, tiers, emissions, no meter."""

import sys
import types
from pathlib import Path

import pytest

from jettison import registry
from jettison.candidate import Candidate, write_candidate
from jettison.cost.energy import Energy, estimate_energy
from jettison.cost.grid import Grid, GridFile, co2e_g, read_grid
from jettison.cost.joules import Board, Spent, is_shared, open_board, short_words
from jettison.cost.load_measure import Scenario, measure_load
from jettison.cost.load_target import Prices
from jettison.cost.measure import measure_costs
from jettison.cost.meter_nvml import NvmlMeter, nvml_state
from jettison.cost.meter_rapl import RaplMeter, find_zones
from jettison.cost.meters import EnergyMeter
from jettison.decide.report_costs import cost_notes, cost_rows
from jettison.decide.report_load import load_notes, load_rows
from jettison.errors import InvalidInput, MissingExtra, Unsupported

RANGE_UJ = 1_000_000


def powercap(root: Path, zones: dict[str, str]) -> Path:
    """A tree as the kernel shows one: every zone and sub-zone beside the others."""
    for zone, name in zones.items():
        (root / zone).mkdir(parents=True)
        (root / zone / "name").write_text(f"{name}\n")
        (root / zone / "energy_uj").write_text("900000\n")
        (root / zone / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    return root


SERVER = {
    "intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram",
    "intel-rapl:1": "package-1", "intel-rapl:1:0": "dram", "intel-rapl-mmio:0": "package-0",
}  # fmt: skip
LAPTOP = {"intel-rapl:0": "package-0", "intel-rapl:0:1": "uncore", "intel-rapl:1": "psys"}


@pytest.mark.parametrize(
    ("zones", "counted"),
    [
        (SERVER, ["package-0", "package-1", "dram", "dram"]),
        (LAPTOP, ["package-0"]),
        ({"intel-rapl:0": "psys"}, ["psys"]),
        ({"intel-rapl:0": "package-0-die-0", "intel-rapl:1": "package-0-die-1"},
         ["package-0-die-0", "package-0-die-1"]),
        ({"dtpm:0": "cpu"}, []),
    ],
)  # fmt: skip
def test_nothing_is_counted_twice(tmp_path: Path, zones: dict[str, str], counted: list[str]) -> None:
    """Cores and uncore are part of a package, the platform holds packages, mmio shows them once more."""
    assert [zone.name for zone in find_zones(powercap(tmp_path, zones))] == counted


def test_rapl_adds_packages_and_memory_and_a_counter_that_starts_over(tmp_path: Path) -> None:
    root = powercap(tmp_path, SERVER)
    meter = RaplMeter(root)
    with meter:
        (root / "intel-rapl:0/energy_uj").write_text("950000")  # + 0.05 J
        (root / "intel-rapl:1/energy_uj").write_text("900000")  # + 0
        (root / "intel-rapl:0:1/energy_uj").write_text("100000")  # started over: 0.1 + 0.1 J
        (root / "intel-rapl:0:0/energy_uj").write_text("990000")  # cores: in the package already
    assert meter.cost.energy_j == pytest.approx(0.25)
    assert meter.cost.energy_tier == "M2"
    assert meter.boundary == "chip (package + dram)"
    with meter:
        pass
    assert meter.cost.energy_j == 0


def test_a_counter_that_is_lost_is_unknown_not_zero(tmp_path: Path) -> None:
    root = powercap(tmp_path, LAPTOP)
    meter = RaplMeter(root)
    with meter:
        (root / "intel-rapl:0/energy_uj").unlink()
    assert meter.cost.energy_j is None
    assert meter.cost.energy_tier is None


def test_where_there_is_no_rapl_or_one_counter_of_several_is_missing_there_is_no_meter(
    tmp_path: Path,
) -> None:
    with pytest.raises(Unsupported, match=r"RAPL must be readable under .*: this system has no powercap"):
        RaplMeter(tmp_path / "nothing")
    root = powercap(tmp_path, SERVER)
    (root / "intel-rapl:1/energy_uj").unlink()
    with pytest.raises(Unsupported, match="may not be read by this user"):
        RaplMeter(root)


class NvmlProblem(Exception):
    """As `pynvml.NVMLError`."""


def made_up_nvml(boards: list[dict[str, object]], *, has_driver: bool = True) -> types.ModuleType:
    """A module with the calls of `pynvml` that the meter makes; handles are the boards themselves."""
    module = types.ModuleType("pynvml")

    def init() -> None:
        if not has_driver:
            raise NvmlProblem("Driver Not Loaded")

    def energy(board: dict[str, object]) -> object:
        if "mj" not in board:
            raise NvmlProblem("Not Supported")
        return board["mj"]

    module.NVMLError = NvmlProblem  # type: ignore[attr-defined]
    module.nvmlInit = init  # type: ignore[attr-defined]
    module.nvmlDeviceGetCount = lambda: len(boards)  # type: ignore[attr-defined]
    module.nvmlDeviceGetHandleByIndex = lambda index: boards[index]  # type: ignore[attr-defined]
    module.nvmlDeviceGetTotalEnergyConsumption = energy  # type: ignore[attr-defined]
    module.nvmlDeviceGetComputeRunningProcesses = lambda board: board.get("used", [])  # type: ignore[attr-defined]
    return module


def test_nvml_reads_the_total_energy_counters_of_its_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    boards: list[dict[str, object]] = [{"mj": 5000, "used": ["me"]}, {"mj": 70}]
    monkeypatch.setitem(sys.modules, "pynvml", made_up_nvml(boards))
    everyone, used = NvmlMeter(), NvmlMeter(only_used=True)
    with everyone, used:
        boards[0]["mj"], boards[1]["mj"] = 7500, 1070
    assert everyone.cost.energy_j == pytest.approx(3.5)
    assert used.cost.energy_j == pytest.approx(2.5)
    assert used.cost.energy_tier == "M2"
    with used:
        del boards[0]["mj"]
    assert used.cost.energy_j is None


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            made_up_nvml([{"mj": 1}], has_driver=False),
            r"NVML must answer to be a meter, .*Driver Not Loaded",
        ),
        (made_up_nvml([{}]), "Not Supported"),
        (made_up_nvml([]), "must be an NVIDIA board for NVML"),
    ],
)
def test_without_driver_board_or_counter_nvml_says_so(
    monkeypatch: pytest.MonkeyPatch, module: types.ModuleType, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", module)
    with pytest.raises(Unsupported, match=message):
        NvmlMeter()


def test_the_real_nvml_is_a_meter_or_says_why_not() -> None:
    pytest.importorskip("pynvml")
    is_meter, words = nvml_state()
    assert "NVML" in words
    assert is_meter == ("total-energy counter" in words)


def test_zeus_names_its_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus", None)
    with pytest.raises(
        MissingExtra, match=r"`zeus` is not installed; it comes with `pip install 'jettison\[zeus\]'`"
    ):
        registry.load("meters", "zeus")()


def test_zeus_adds_up_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[dict[str, dict[int, float] | None]] = []

    class Monitor:
        """As `zeus.monitor.ZeusMonitor` 0.16: windows by name, joules by kind and index."""

        def begin_window(self, key: str, sync_execution: bool = True, restart: bool = False) -> None:
            assert not sync_execution

        def end_window(self, key: str, sync_execution: bool = True) -> types.SimpleNamespace:
            found = {
                "gpu_energy": {},
                "cpu_energy": None,
                "dram_energy": None,
                **(read[-1] if read else {}),
            }
            return types.SimpleNamespace(**found, soc_energy=None)

    monitor = types.ModuleType("zeus.monitor")
    monitor.ZeusMonitor = Monitor  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zeus", types.ModuleType("zeus"))
    monkeypatch.setitem(sys.modules, "zeus.monitor", monitor)
    with pytest.raises(Unsupported, match="Zeus must find a counter to be a meter"):
        registry.load("meters", "zeus")()
    read.append({"gpu_energy": {0: 1.0, 1: 2.0}, "cpu_energy": {0: 4.0}})
    meter = registry.load("meters", "zeus")()
    assert meter.boundary == "boards (accelerators) + chips (packages)"
    with meter:
        pass
    assert meter.cost.energy_j == 7.0


class Steady(EnergyMeter):
    """A made-up counter of so many joules a window."""

    boundary, source = "chip (package)", "made up"

    def __init__(self, joules: float | None = 6.0) -> None:
        super().__init__()
        self.joules = joules

    def _read(self) -> None:
        """Nothing to remember."""

    def _joules(self) -> float | None:
        return self.joules


def guess() -> Energy:
    return Energy(energy_j=9.0, tier="E3", factor=3.0, boundary="server", source="guessed")


def test_a_board_divides_joules_by_tasks_and_guesses_only_what_no_meter_sees(tmp_path: Path) -> None:
    board = Board([Steady()], stat=tmp_path / "none")
    spent = Spent()
    for _ in range(2):
        with board.over(spent):
            pass
    spent.n_tasks = 4
    (only,) = board.energies(spent, guess, is_shared=False)
    assert (only.energy_j, only.tier, only.factor, only.boundary) == (3.0, "M2", 1.3, "chip (package)")
    assert short_words(spent)[0].startswith("energy was metered over 0.0 s in all")
    assert Board(()).energies(Spent(), guess, is_shared=False) == (guess(),)
    lost = Spent(n_tasks=1)
    with Board([Steady(None)], stat=tmp_path / "none").over(lost):
        pass
    assert board.energies(lost, guess, is_shared=False) == (guess(),)


def test_beside_a_measured_accelerator_the_processor_is_an_estimate_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", made_up_nvml([{"mj": 1000}]))
    board = Board([NvmlMeter()])
    spent = Spent(energy_j={board.meters[0].source: 8.0}, n_tasks=2)
    measured, guessed = board.energies(spent, guess, is_shared=False)
    assert (measured.energy_j, measured.boundary) == (4.0, "board (accelerators alone)")
    assert guessed.tier == "E3"


def test_a_counter_is_shared_by_cpu_time_where_other_work_was_busy(tmp_path: Path) -> None:
    board = Board([RaplMeter(powercap(tmp_path, LAPTOP))])
    alone = Spent(energy_j={board.meters[0].source: 8.0}, n_tasks=2, busy_s=1.0, own_s=0.95)
    crowded = Spent(energy_j={board.meters[0].source: 8.0}, n_tasks=2, busy_s=2.0, own_s=0.5)
    assert not is_shared([alone])
    assert is_shared([alone, crowded])
    (found,) = board.energies(crowded, guess, is_shared=True)
    assert (found.energy_j, found.tier, found.factor) == (1.0, "M3", 1.5)
    assert "other work had 75% of it" in found.source


def test_the_meter_is_chosen_by_name(tmp_path: Path) -> None:
    assert open_board("none").meters == ()
    auto = open_board(powercap=powercap(tmp_path, LAPTOP))
    assert isinstance(auto.meters[0], RaplMeter)
    with pytest.raises(InvalidInput, match="must be one of energy, such as rapl, nvml or zeus, got 'wall'"):
        open_board("wall")
    with pytest.raises(InvalidInput, match=r"jettison\.meters must be one of"):
        open_board("sundial")


def test_emissions_are_joules_times_pue_times_the_grid_with_year_and_source(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(
        '[grid]\ng_per_kwh = 360\nyear = 2024\nsource = "national average"\npue = 1.5\n'
        '[watts]\nidle_w = 1.0\nbusy_w = 3.0\nsource = "plug meter"\ndate = "2026-10"\n'
    )
    found = read_grid(tmp_path / "grid.toml")
    # 2 J x 1.5 / 3.6 MJ/kWh x 360 g/kWh = 0.0003 g.
    assert co2e_g(Energy(energy_j=2.0, tier="M2", factor=1.3), found.grid) == pytest.approx(0.0003)
    assert co2e_g(None, found.grid) is None
    assert co2e_g(guess(), None) is None
    assert found.grid is not None
    assert found.grid.words.startswith("360 g/kWh (national average, 2024), PUE 1.5")
    assert "no PUE" in Grid(g_per_kwh=1, year=2024, source="x").words
    assert found.watts is not None
    # 0.01 s x (3 - 1) W + 0.02 s x 1 W
    energy = estimate_energy(0.01, 0.02, calibrated=found.watts.watts)
    assert (energy.tier, energy.factor, energy.energy_j) == ("E1", 1.5, pytest.approx(0.04))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\ng_per_kwh = 360\n", r"must hold \[grid\] with g_per_kwh, year and source"),
        (
            '[grid]\ng_per_kwh = 9000\nyear = 2024\nsource = "x"',
            r"0-3000 g/kWh in a year of 1990-2100, got 9000",
        ),
        ('[grid]\ng_per_kwh = 360\nyear = 2024\nsource = " "', r"source of a grid factor must be named"),
        ('[grid]\ng_per_kwh = 360\nyear = 2024\nsource = "x"\npue = 0.9', r"PUE must be in 1-5, got 0.9"),
        ('[watts]\nidle_w = 3\nbusy_w = 1\nsource = "x"\ndate = "y"', r"must be 0 <= idle_w < busy_w"),
        ("", r"must hold \[grid\] or \[watts\], got neither"),
        ("[grid", r"--grid must be a readable TOML file"),
    ],
)
def test_a_bad_grid_file_is_refused_with_the_way_out(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "grid.toml").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_grid(tmp_path / "grid.toml")


def fake(folder: Path) -> Candidate:
    (folder / "model").mkdir()
    return write_candidate(
        folder / "model", name="m", backend="fake", labels=("a", "b"), settings={"latency_s": 0.001}
    )


GRID = GridFile(grid=Grid(g_per_kwh=400, year=2025, source="somewhere"))


@pytest.mark.slow
def test_a_metered_run_has_measured_joules_in_every_scenario_and_no_estimate_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register("meters", "steady", lambda: Steady(0.5))
    candidate = fake(tmp_path)
    for scenario in (
        Scenario(kind="offline", duration_s=0.3),
        Scenario(kind="server", rate_per_s=60, duration_s=1),
    ):
        report = measure_load(
            [candidate], ["one"], scenario, openings=1, meter="steady", prices=Prices(grid=GRID)
        )
        (found,) = report.targets
        # Half a joule a block, six blocks.
        assert found.energy_j == pytest.approx(3.0 / (found.n_tasks or 1), rel=0.35)
        assert found.energy_tier == "M2"
        assert found.energy_rest_j is None
        assert found.co2e_g == pytest.approx(found.energy_j * 400 / 3.6e6)
        rows = {row.name: row.figures for row in load_rows(report)}
        assert "Energy per task, measured" in rows
        assert "Energy per task, ESTIMATED" not in rows
        assert list(rows).index("CPU time per task") == list(rows).index("Energy per task, measured") + 1
        assert any("boundary: chip (package)" in note for note in load_notes(report))
    (cost,) = measure_costs(
        [candidate], ["one"], openings=1, rounds=6, throughput=False, meter="steady", grid=GRID, budget_s=2
    )
    assert cost.energy_tier == "M2"
    assert cost.energy_boundary == "chip (package)"
    assert cost.energy_j == pytest.approx(0.5 * 6 / cost.n_tasks)
    assert cost.co2e_source is not None
    rows = {row.name: row.figures for row in cost_rows([cost])}
    assert "Energy per task, measured" in rows
    assert "Energy per task, ESTIMATED" not in rows


def test_without_a_meter_the_estimate_stands_alone_with_tier_boundary_and_factor(tmp_path: Path) -> None:
    (cost,) = measure_costs(
        [fake(tmp_path)], ["one"], openings=1, rounds=6, throughput=False, meter="none", budget_s=2
    )
    rows = {row.name: row.figures for row in cost_rows([cost])}
    assert rows["Energy per task, ESTIMATED"][0].startswith("≈ ")
    assert "Energy per task, measured" not in rows
    (note,) = [note for note in cost_notes([cost], ["m"]) if note.startswith("Energy (")]
    assert "tier E" in note
    assert "×/÷" in note
    assert "boundary: server" in note
    assert cost.co2e_g is None
