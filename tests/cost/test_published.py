"""Where figures fall among published ones: same functional unit, same boundary, measured; else why not."""

import re

import pytest

from jettison.cost.published import FUNCTIONAL_UNITS, Figure, contexts, read_published
from jettison.task.kinds import DEFAULT_SCORERS

BOARD = "board (accelerators alone)"


def figure(**more: object) -> Figure:
    return Figure(**{"name": "lean", "energy_j": 50.0, "tier": "M2", "boundary": BOARD, **more})  # type: ignore[arg-type]


def test_every_row_has_its_unit_boundary_source_and_date() -> None:
    rows = read_published()
    assert len(rows) >= 20
    for row in rows:
        assert 0 < row.low <= row.high
        assert row.quantity in ("energy_j", "co2e_g")
        assert all((row.functional_unit, row.boundary, row.operating_point, row.source))
        assert re.fullmatch(r"20\d\d-\d\d", row.date)
    # 0.24 Wh is 864 J; 0.047 kWh per 1,000 is 169.2 J each; 1.31 Wh per 1,000 is 4.716 J each.
    low = {(row.name, row.quantity, row.boundary): row.low for row in rows}
    assert low["Gemini Apps median text prompt", "energy_j", "facility"] == pytest.approx(0.24 * 3600)
    assert low["text generation, mean of models", "energy_j", "server"] == pytest.approx(
        0.047 * 3.6e6 / 1000
    )
    assert low["distilgpt2", "energy_j", BOARD] == pytest.approx(1.31 * 3600 / 1000)


def test_every_kind_of_task_says_what_one_task_is() -> None:
    assert set(FUNCTIONAL_UNITS) == set(DEFAULT_SCORERS)


def test_a_measured_figure_stands_between_its_neighbors_of_the_same_boundary() -> None:
    (said,) = contexts([figure()], "generate")
    assert "50 J per generated text (boundary: board (accelerators alone))" in said
    assert "above distilgpt2, 4.716 J (H100; AI Energy Score, press, 2025-12)" in said
    assert "below an R1 distill without reasoning, 180 J" in said
    assert "of 5 with this boundary" in said
    assert "Luccioni" not in said  # 169 J of a whole server is another boundary


def test_joules_per_token_are_held_against_joules_per_token() -> None:
    found = contexts(
        [figure(boundary="server", tier="M1", energy_j=40.0, completion_tokens=400.0)], "generate"
    )
    assert len(found) == 2
    assert "40 J per generated text" in found[0]
    assert "0.1 J per output token" in found[1]
    assert "above Llama-3.1-8B, 0.07 J" in found[1]
    assert "below Llama-2-70B, 0.105 J" in found[1]


@pytest.mark.parametrize(
    ("more", "kind", "why"),
    [
        ({"energy_j": None, "tier": None}, "generate", "no joules are known"),
        (
            {"tier": "E2", "boundary": "server"},
            "generate",
            r"an estimate \(tier E2\), which compares on this machine only",
        ),
        ({"tier": "M3"}, "generate", r"a counter shared by CPU time \(tier M3\)"),
        ({}, None, "what one task is was not told"),
        ({}, "classify", "none in the table is of one classified text"),
        (
            {"boundary": "chip (package-0)"},
            "generate",
            r"its boundary is chip \(package-0\).*board.*server",
        ),
    ],
)
def test_what_does_not_compare_says_why(more: dict[str, object], kind: str | None, why: str) -> None:
    (said,) = contexts([figure(**more)], kind)
    assert "lean: not comparable, because" in said
    assert re.search(why, said)


def test_targets_that_share_a_reason_share_a_sentence() -> None:
    (said,) = contexts([figure(tier="E3"), figure(name="large", tier="E3")], "generate")
    assert said.startswith("Among published figures, lean, large: not comparable")
