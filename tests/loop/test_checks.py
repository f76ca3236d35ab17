"""What a run refuses before it asks anything."""

from types import SimpleNamespace

import pytest

from jettison.decision import NotWorse
from jettison.errors import InvalidInput, UnknownName
from jettison.loop.checks import check_slices
from jettison.loop.config import RunConfig, check_config
from jettison.task import Example


def test_a_price_or_a_margin_that_means_nothing_is_refused_before_any_work() -> None:
    with pytest.raises(InvalidInput, match=r"usd_per_hour must be at least 0, got -1.0 in jettison.toml"):
        check_config(RunConfig(task="t", incumbent="i", usd_per_hour=-1.0), "jettison.toml")
    gate = NotWorse(slices=("lang=*",), margins={"lang=de": 2.0})
    with pytest.raises(InvalidInput, match=r"gates.margins must be between 0 and 1, got {'lang=de': 2.0}"):
        check_config(RunConfig(task="t", incumbent="i", gates=(gate,)), "jettison.toml")


@pytest.mark.parametrize(
    ("slices", "margin", "holds"),
    [
        (("all",), "all", True),
        (("lang=*",), "lang=de", True),
        (("lang=de",), "lang=*", True),
        (("lang=*",), "lang=*", True),
        (("lang=de",), "lang=fr", False),
        (("all",), "lang=de", False),
        (("lang=*",), "lnag=*", False),
        (("lang=*",), "all", False),
    ],
)
def test_a_margin_of_a_slice_that_its_gate_does_not_ask_is_refused(
    slices: tuple[str, ...], margin: str, holds: bool
) -> None:
    dev = [Example(id=name, input=name, expected="a", slices={"lang": name}) for name in ("de", "fr")]
    workspace = SimpleNamespace(dev=dev, task=SimpleNamespace(slice_counts={"all": 2, "lang=de": 2}))
    gate = NotWorse(slices=slices, margins={margin: 0.05})
    if holds:
        check_slices((gate,), workspace)  # type: ignore[arg-type]
        return
    with pytest.raises(UnknownName, match=r"gates.margins must be of the gate's slices \["):
        check_slices((gate,), workspace)  # type: ignore[arg-type]
