"""Every number in the JSON of costs carries its unit in its name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from msgspec import inspect

from jettison.candidate import write_candidate
from jettison.cli.cost import command as cost_command
from jettison.cli.doctor import command as doctor_command
from jettison.cost.load_types import LoadReport
from jettison.decision import CostSummary
from jettison.record import Cost

from .load_example import load_report
from .report_example import example_decision

UNITS = (
    "s", "j", "w", "g", "bytes", "usd", "tokens", "threads", "per_s", "per_1000", "ratio", "share",
    "factor", "p", "g_per_kwh",
)  # fmt: skip
NO_QUANTITY = ("seed", "format")
"""Numbers that measure nothing."""
OF_THE_PARENT = ("value", "low", "high")
"""An interval is of what it stands under."""


def has_unit(name: str) -> bool:
    named = any(name == unit or name.endswith(f"_{unit}") for unit in UNITS)
    return named or name.startswith("n_") or name == "confidence" or name in NO_QUANTITY


def unnamed(found: Any, name: str = "", path: str = "$") -> Iterator[str]:
    """Paths of numbers whose name says no unit; elements of a list are of its name."""
    if isinstance(found, dict):
        for key, value in found.items():
            of = name if key in OF_THE_PARENT or name.startswith("n_") else key
            yield from unnamed(value, of, f"{path}.{key}")
    elif isinstance(found, list):
        for value in found:
            yield from unnamed(value, name, f"{path}[]")
    elif isinstance(found, int | float) and not isinstance(found, bool) and not has_unit(name):
        yield path


def unnamed_fields(kind: inspect.Type, name: str = "", path: str = "$") -> Iterator[str]:
    """The same of types: what is None in an example has a unit too."""
    match kind:
        case inspect.StructType(fields=fields):
            for field in fields:
                of = name if field.encode_name in OF_THE_PARENT else field.encode_name
                yield from unnamed_fields(field.type, of, f"{path}.{field.encode_name}")
        case inspect.UnionType(types=kinds):
            for one in kinds:
                yield from unnamed_fields(one, name, path)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            yield from unnamed_fields(item, name, path)
        case inspect.IntType() | inspect.FloatType():
            if not has_unit(name):
                yield path
        case inspect.DictType(value_type=value):
            # Keys of a dict are names of their own, looked at where there is JSON.
            if not isinstance(value, inspect.IntType) or not name.startswith("n_"):
                yield from unnamed_fields(value, "n_any", path)


@pytest.mark.parametrize("kind", [LoadReport, CostSummary, Cost])
def test_every_field_that_holds_a_number_ends_in_its_unit(kind: type) -> None:
    assert list(unnamed_fields(inspect.type_info(kind))) == []


def test_every_number_of_cost_json_and_of_a_decisions_costs_ends_in_its_unit() -> None:
    load = json.loads(msgspec.json.encode(load_report()))
    load["targets"][0]["n_by_failure"] = {"no answer within 30 s": 3}
    decision = json.loads(msgspec.json.encode(example_decision()))
    assert list(unnamed(load)) == []
    assert [list(unnamed(candidate["cost"])) for candidate in decision["candidates"]] == [[]] * len(
        decision["candidates"]
    )


@pytest.mark.slow
def test_every_number_that_the_commands_print_as_json_ends_in_its_unit(tmp_path: Path) -> None:
    write_candidate(tmp_path, name="lean", backend="fake", labels=("a", "b"), settings={"latency_s": 0.001})
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    arguments = [
        str(tmp_path),
        "--input",
        str(tmp_path / "texts.txt"),
        "--rounds",
        "6",
        "--budget",
        "1",
        "--json",
    ]
    for command, options in ((cost_command, arguments), (doctor_command, ["--json"])):
        done = CliRunner().invoke(command, options, catch_exceptions=False, standalone_mode=False)
        told = json.loads(done.stdout)
        assert list(unnamed(told)) == []
        assert any(isinstance(value, float) for value in numbers(told))


def numbers(found: Any) -> Iterator[Any]:
    for value in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from numbers(value)
        yield value


@pytest.mark.parametrize("name", ["latency", "noise", "tokens_per", "rate", "bytes_total"])
def test_a_number_without_a_unit_is_found(name: str) -> None:
    assert list(unnamed({"cost": [{name: 1.5}]})) == [f"$.cost[].{name}"]
    assert list(unnamed({name: {"value": 1.0, "low": 0.5, "high": 2.0}})) == [
        f"$.{name}.{end}" for end in OF_THE_PARENT
    ]
