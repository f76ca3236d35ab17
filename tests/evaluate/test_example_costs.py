"""What each example's answer took, on its record: measured, labelled, and None where it cannot be."""

from pathlib import Path

import pytest

from endpoint_server import Server
from jettison.backends.cascade import CascadeClassifier
from jettison.backends.endpoint import endpoint_candidate
from jettison.backends.open import open_model
from jettison.backends.shares import CallClock, one_after_the_other, shared
from jettison.candidate import Candidate, write_candidate
from jettison.cost.joules import Board
from jettison.cost.meters import EnergyMeter
from jettison.evaluate import evaluate, example_costs
from jettison.model import Output
from jettison.record import Cost, read_records, write_records
from jettison.task import Example

LABELS = ("a", "b")
EXAMPLES = [Example(id=str(i), input=f"{LABELS[i % 2]} {i}", expected=LABELS[i % 2]) for i in range(10)]


def fake(folder: Path, **settings: object) -> Candidate:
    folder.mkdir()
    return write_candidate(folder, name=folder.name, backend="fake", labels=LABELS, settings=settings)


class Steady(EnergyMeter):
    """A made-up counter of six joules a window."""

    boundary, source = "chip (package)", "made up"

    def _read(self) -> None:
        """Nothing to remember."""

    def _joules(self) -> float:
        return 6.0


def test_every_record_of_a_classifier_says_what_its_answer_took(tmp_path: Path) -> None:
    records = evaluate(fake(tmp_path / "c", latency_s=0.002), EXAMPLES, split="dev", batch_size=4)
    costs = [record.cost for record in records]
    assert [cost.n_together for cost in costs] == [4, 4, 4, 4, 4, 4, 4, 4, 2, 2]
    for cost in costs:
        # The fake burns 2 ms of CPU a text.
        assert cost.cpu_s is not None
        assert 0.002 <= cost.cpu_s < 0.02
        assert cost.latency_s is not None
        assert cost.latency_s >= 0.0019
        assert cost.energy_j is not None
        assert cost.energy_j > 0
        assert (cost.energy_tier or "").startswith("E")
        # Nobody measured these, and no zero stands for them.
        unmeasured = (
            cost.peak_bytes,
            cost.wire_bytes,
            cost.price_usd,
            cost.prompt_tokens,
            cost.first_token_s,
        )
        assert unmeasured == (None,) * 5
    write_records(tmp_path / "kept.parquet", records)
    assert read_records(tmp_path / "kept.parquet") == records


def test_a_metered_evaluation_has_measured_joules_that_add_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_costs, "open_board", lambda _: Board([Steady()], stat=tmp_path / "none"))
    records = evaluate(fake(tmp_path / "c"), EXAMPLES, split="dev", batch_size=5)
    assert {record.cost.energy_tier for record in records} == {"M2"}
    assert sum(record.cost.energy_j or 0.0 for record in records) == pytest.approx(12.0)


def test_where_an_accelerator_works_and_no_meter_sees_it_there_are_no_joules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(example_costs, "is_on_gpu", lambda: True)
    (record, *_) = evaluate(fake(tmp_path / "c"), EXAMPLES, split="dev")
    assert record.cost.latency_s is not None
    assert (record.cost.energy_j, record.cost.energy_tier) == (None, None)


def test_what_a_cascade_passes_on_costs_more_than_what_its_lean_arm_keeps(tmp_path: Path) -> None:
    lean, large = fake(tmp_path / "l"), fake(tmp_path / "f", latency_s=0.003)
    sure = [output.confidence for output in open_model(lean).predict([e.input for e in EXAMPLES])]
    cascade = CascadeClassifier(
        LABELS,
        lean=open_model(lean),
        fallback=open_model(large),
        threshold=sorted(sure)[5],
        splits_costs=True,
    )
    outputs = cascade.predict([example.input for example in EXAMPLES])
    passed = [output.cost for output in outputs if output.escalated]
    kept = [output.cost for output in outputs if not output.escalated]
    assert [cost.n_together for cost in passed if cost] == [5] * 5
    assert [cost.n_together for cost in kept if cost] == [10] * 5
    assert min(cost.cpu_s or 0.0 for cost in passed if cost) > 0.003
    assert max(cost.cpu_s or 0.0 for cost in kept if cost) < 0.003


def test_of_an_address_time_bytes_tokens_and_price_are_known_and_cpu_and_joules_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JETTISON_ANSWERS", str(tmp_path / "answers"))
    server = Server()
    try:
        (tmp_path / "c").mkdir()
        candidate = endpoint_candidate(
            tmp_path / "c",
            url=server.url,
            model="small",
            labels=("music", "alarm"),
            settings={"kind": "classify", "prompt": {"template": "One of {labels}.\nText: {input}"}},
            usd_per_million_input=1.0,
            usd_per_million_output=2.0,
        )
        (record,) = evaluate(candidate, EXAMPLES[:1], split="dev")
    finally:
        server.close()
    cost = record.cost
    assert cost.latency_s is not None
    assert cost.wire_bytes
    assert cost.prompt_tokens
    assert cost.price_usd == pytest.approx((cost.prompt_tokens + 2 * (cost.completion_tokens or 0)) / 1e6)
    assert (cost.cpu_s, cost.energy_j, cost.n_together) == (None, None, None)


def test_an_answer_that_brings_its_own_time_keeps_it() -> None:
    own = Output(label="a", confidence=1.0, cost=Cost(latency_s=9.0, prompt_tokens=3))
    tokens = Output(label="a", confidence=1.0, cost=Cost(prompt_tokens=3))
    first, second = shared([own, tokens], Cost(latency_s=4.0, cpu_s=2.0))
    assert first == own
    assert second.cost == Cost(latency_s=2.0, cpu_s=1.0, n_together=2, prompt_tokens=3)
    assert shared([], CallClock().spent()) == []
    both = one_after_the_other(second.cost, Cost(latency_s=1.0))
    assert both == Cost(latency_s=3.0, cpu_s=None)
    assert one_after_the_other(None, second.cost) == second.cost


def test_answers_given_side_by_side_have_their_part_of_the_cpu_time(tmp_path: Path) -> None:
    """The fake burns 5 ms of CPU a text: two at a time take as much in all as one after the other."""
    candidate = fake(tmp_path / "c", latency_s=0.005)
    records = evaluate(candidate, EXAMPLES, split="dev", batch_size=3, workers=2)
    spent = [record.cost.cpu_s for record in records]
    assert None not in spent
    assert sum(one or 0.0 for one in spent) == pytest.approx(10 * 0.005, rel=0.5)
    for record in records:
        assert record.cost.energy_j is not None
        assert (record.cost.energy_tier or "").startswith("E")
