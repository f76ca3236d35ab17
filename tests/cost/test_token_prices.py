"""Money of a model at an address: tokens that its server counted, at dated prices."""

from pathlib import Path

import pytest

from http_load_server import LoadServer
from jettison.cost.http_target import http_target
from jettison.cost.load_measure import Scenario, measure_load
from jettison.cost.load_target import Prices
from jettison.cost.token_prices import bundled_token_prices, read_token_prices
from jettison.decide.report_load import load_notes
from jettison.errors import InvalidInput

TABLE = """
date = "2026-11-20"
source = "a price page"
[models.m]
usd_per_million_input = 1.0
usd_per_million_output = 2.0
"""


def test_an_address_is_paid_by_its_tokens_and_the_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(TABLE)
    prices = Prices(tokens=read_token_prices(tmp_path / "prices.toml"))
    with LoadServer(chunks=3) as server:
        target = http_target(f"{server.url}/v1", model="m", stream=True)
        found = measure_load(
            [target], ["one"], Scenario(kind="single-stream", duration_s=0.2), prices=prices,
            judge=lambda row, said: 1.0,
        )  # fmt: skip
    (one,) = found.targets
    # 7 tokens in at 1, 3 out at 2 dollars a million.
    assert one.usd_per_1000 == pytest.approx(13e-6 * 1000)
    assert one.per_correct["usd"].value == pytest.approx(13e-6)
    assert any("a price page, 2026-11-20" in note for note in load_notes(found))


def test_what_is_not_known_has_no_price() -> None:
    table = bundled_token_prices()
    assert table.is_bundled
    assert table.date == "2026-08"
    assert table.usd_per_1000("gpt-4o-mini", 1000, 100) == pytest.approx(0.15 + 0.06)
    assert table.usd_per_1000("gpt-4o-mini", None, 100) is None
    assert table.usd_per_1000("nobody's", 1000, 100) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace("2.0", "-2.0"), r"a price must be 0-1,000,000 .* got -2 for 'm'"),
        (TABLE.replace("1.0", "nan"), r"a price must be 0-1,000,000 .* got nan for 'm'"),
        (TABLE.replace("a price page", " "), r"must have a date and a source, got an empty one"),
        (TABLE.replace("date", "day"), r"must hold date, source and \[models.NAME\]"),
        ("date =", r"--prices must be a readable TOML file"),
    ],
)
def test_a_bad_table_is_refused_with_the_way_out(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read_token_prices(tmp_path / "prices.toml")
