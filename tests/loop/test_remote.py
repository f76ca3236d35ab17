"""What a model elsewhere costs: its own records say, logged ones among them, and none is asked again."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from jettison.backends.endpoint import endpoint_candidate
from jettison.compress.recipe import Recipe
from jettison.decision import CostSummary
from jettison.loop.remote import costs_of
from jettison.loop.remote_words import why_no_money
from jettison.loop.workspace import Contender
from jettison.record import Cost, Record

PRICES = {"usd_per_million_input": 1.0, "usd_per_million_output": 4.0}
COUNTED = {"prompt_tokens": 40, "completion_tokens": 3}


def contender(
    folder: Path, prices: list[float | None], *, seconds: float | None = None, **given
) -> Contender:
    folder.mkdir()
    candidate = endpoint_candidate(folder, url="http://127.0.0.1:9/v1", model="large", **given)
    records = tuple(
        Record(
            candidate="c",
            example_id=str(i),
            split="dev",
            output="a",
            cost=Cost(
                price_usd=price,
                latency_s=seconds,
                prompt_tokens=None if price is None else 40,
                completion_tokens=None if price is None else 3,
            ),
        )
        for i, price in enumerate(prices)
    )
    recipe = Recipe(name="r", steps=(), family="free", why="")
    return Contender(candidate=candidate, recipe=recipe, records=records)


def costs(*contenders: Contender) -> list[CostSummary]:
    return costs_of(contenders, [], seed=0, settings={}, progress=lambda *_: None)


def test_the_incumbents_money_is_of_its_logged_tokens_alone(tmp_path: Path) -> None:
    (found,) = costs(contender(tmp_path / "a", [52e-6] * 40, **PRICES, priced_on="2026-11-01"))
    assert found.usd_per_1000 == pytest.approx(0.052)
    assert (found.latency_p50_s, found.cpu_s, found.energy_j, found.peak_bytes) == (None,) * 4
    assert (found.prompt_tokens, found.completion_tokens) == (40, 3)
    assert any(
        "Tokens of large: $1 a million of prompts and $4 of answers (prices of 2026-11-01)" in m
        for m in found.marks
    )


def test_twenty_priced_answers_stand_for_the_others_and_nineteen_do_not(tmp_path: Path) -> None:
    enough, few = [[1e-6] * n + [None] * (60 - n) for n in (20, 19)]
    (found,) = costs(contender(tmp_path / "a", enough, **PRICES))
    assert found.usd_per_1000 == pytest.approx(1e-3)
    assert any("the mean of 20 of 60 answers, the others have no price" in mark for mark in found.marks)
    lacking = contender(tmp_path / "b", few, **PRICES)
    (found,) = costs(lacking)
    assert found.usd_per_1000 is None
    assert not any("Tokens of large" in mark for mark in found.marks)
    said = why_no_money(lacking, 0.1)
    assert "costs is not known: 19 of 60 answers have a price, and 20 are needed" in said


def test_the_ratio_of_money_allows_for_which_requests_come(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    long = rng.lognormal(0, 1, 200) * 1e-5
    short = [float(price) for price in 0.5 * long * rng.uniform(0.8, 1.2, 200)]
    base, other = costs(
        contender(tmp_path / "a", list(map(float, long)), **PRICES),
        contender(tmp_path / "b", short, **PRICES),
    )
    assert base.usd_ratio is not None
    assert (base.usd_ratio.low, base.usd_ratio.high) == (1, 1)
    ratio = other.usd_ratio
    assert ratio is not None
    assert ratio.low < ratio.value < ratio.high
    assert ratio.value == pytest.approx(sum(short) / long.sum())
    # Of the same requests: a ratio of means that rise and fall together is known better than either.
    assert ratio.high - ratio.low < 0.06


def logged_at(folder: Path, **use: object) -> str:
    path = folder / "logged.jsonl"
    rows = [{"id": str(i), "output": "a", **use} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    ("use", "prices", "usd_per_hour", "said"),
    [
        ({}, PRICES, 0.1, "What large costs is not known: the log counts no tokens"),
        (COUNTED, {}, 0.1, r"not known: give usd_per_million_input and usd_per_million_output of large in"),
        ({**COUNTED, "model": "other"}, PRICES, 0.1, "tokens are those of other, and the prices"),
    ],
)
def test_why_money_is_not_known_is_said_with_the_way_out(
    tmp_path: Path, use: dict, prices: dict, usd_per_hour: float, said: str
) -> None:
    asked = contender(tmp_path / "a", [None] * 30, logged=logged_at(tmp_path, **use), **prices)
    assert re.search(said, why_no_money(asked, usd_per_hour))


def test_the_price_of_this_machine_is_asked_for_where_the_endpoints_is_known(tmp_path: Path) -> None:
    asked = contender(tmp_path / "a", [1e-6] * 30, **PRICES)
    assert "give usd_per_hour" in why_no_money(asked, None)
    assert why_no_money(asked, 0.1) == ""
