"""What doctor says of made-up machines and of this one."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from jettison.cli.doctor import command
from jettison.cost.instruments import Instrument, examine_instruments

GENOA = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nstepping\t: 1\n"


def found(root: Path) -> dict[str, Instrument]:
    return {one.name: one for one in examine_instruments(root, powercap=root / "powercap")}


def test_a_machine_that_tells_nothing_is_said_to_measure_nothing_but_cpu_time(tmp_path: Path) -> None:
    told = found(tmp_path)
    assert told["energy, RAPL"].is_there is False
    assert "no powercap" in told["energy, RAPL"].detail
    assert told["energy would be an estimate"].detail.startswith("tier E3, ×/÷ 3 (unknown CPU)")
    assert told["pressure (PSI)"].is_there is False
    assert told["steal"].is_there is False
    assert "only once they have ended" in told["CPU-seconds"].detail
    assert told["peak memory"] == Instrument("peak memory", False, "not told by this system")


def test_a_machine_with_counters_measures_and_estimates_nothing(tmp_path: Path) -> None:
    (tmp_path / "proc/pressure").mkdir(parents=True)
    (tmp_path / "proc/cpuinfo").write_text(GENOA)
    (tmp_path / "proc/pressure/cpu").write_text("some avg10=38.00 avg60=0.00 avg300=0.00 total=1\n")
    (tmp_path / "powercap/intel-rapl:0").mkdir(parents=True)
    for name, text in (("name", "package-0"), ("energy_uj", "1"), ("max_energy_range_uj", "9")):
        (tmp_path / "powercap/intel-rapl:0" / name).write_text(text)
    told = found(tmp_path)
    assert told["energy, RAPL"] == Instrument("energy, RAPL", True, "measured, tier M2: package-0")
    assert "energy would be an estimate" not in told
    assert "38 % of the time" in told["pressure (PSI)"].detail


def test_the_floor_is_measured_on_the_spot() -> None:
    floor = {one.name: one for one in examine_instruments()}["measurement floor"]
    assert "found just now: a sleeping thread wakes late by" in floor.detail
    assert floor.is_there is None


@pytest.mark.slow
def test_the_command_says_what_can_be_measured_here() -> None:
    ran = CliRunner().invoke(command, ["--json"], catch_exceptions=False, standalone_mode=False)
    told = {finding["what"]: finding for finding in json.loads(ran.stdout)}
    for name in (
        "energy, RAPL",
        "energy, NVML",
        "pressure (PSI)",
        "bytes on the wire (TCP_INFO)",
        "measurement floor",
    ):
        assert told[f"measures: {name}"]["detail"]


def test_the_extras_are_named_by_their_extra_and_not_by_a_python_version() -> None:
    from jettison.loop.doctor import _extras

    assert all(not finding.what[0].isdigit() for finding in _extras())
