"""What was measured up to then is kept: a target that dies, in every kind of run, and an interruption."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from http_load_server import LoadServer
from jettison.candidate import Candidate, write_candidate
from jettison.cost.cpu_time import living_children
from jettison.cost.http_target import http_target
from jettison.cost.load_measure import Scenario, measure_load
from jettison.cost.load_types import RatePoint, Slo, Tail
from jettison.cost.measure import measure_costs
from jettison.cost.slo import find_rate
from jettison.errors import JettisonError

TEXTS = [f"text {i}" for i in range(20)]


def fakes(folder: Path) -> list[Candidate]:
    made = []
    for name in ("one", "two"):
        (folder / name).mkdir()
        settings = {"latency_s": 0.001}
        made.append(
            write_candidate(folder / name, name=name, backend="fake", labels=("a", "b"), settings=settings)
        )
    return made


def killing(number: int, *, during: str, after: float) -> Callable[[str, float | None], None]:
    """Kills the process that was started as the given one, once a phase has come so far."""
    others = set(living_children(os.getpid()))
    killed: list[int] = []

    def say(message: str, share: float | None) -> None:
        if during in message and (share is None or share >= after) and not killed:
            workers = sorted(set(living_children(os.getpid())) - others)
            killed.append(workers[number])
            os.kill(workers[number], signal.SIGKILL)

    return say


@pytest.mark.slow
def test_a_candidate_that_dies_one_at_a_time_keeps_its_rounds_and_the_other_goes_on(tmp_path: Path) -> None:
    say = killing(1, during="one at a time", after=0.5)
    one, two = measure_costs(
        fakes(tmp_path),
        TEXTS,
        openings=1,
        rounds=20,
        budget_s=30,
        keep_partial=True,
        progress=say,
        throughput=False,
    )
    assert one.cpu_s is not None
    assert not any("died" in mark for mark in one.marks)
    assert two.cpu_s is not None
    assert 0 < two.n_tasks < one.n_tasks
    assert two.cpu_ratio is not None
    (mark,) = [mark for mark in two.marks if "died" in mark]
    assert mark.startswith(f"its process died after {two.n_tasks:,} answers, whose figures are kept")
    assert "SIGKILL" in mark


@pytest.mark.slow
def test_candidates_that_do_not_open_again_keep_their_first_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(message: str, share: float | None) -> None:
        if message.startswith("opening all again"):
            monkeypatch.setattr("sys.executable", "/bin/false")

    one, two = measure_costs(
        fakes(tmp_path), TEXTS, openings=2, rounds=12, budget_s=30, keep_partial=True, progress=say,
        throughput=False,
    )  # fmt: skip
    assert (one.n_openings, two.n_openings) == (1, 1)
    assert two.cpu_ratio is not None
    assert "one process each" in two.cpu_ratio.method
    assert any("died after" in mark and "exit code 1" in mark for mark in two.marks)


def test_where_it_is_not_to_be_kept_a_death_is_one_clear_error(tmp_path: Path) -> None:
    say = killing(1, during="one at a time", after=0.3)
    with pytest.raises(JettisonError, match=r"process that measures 'two' must answer .* SIGKILL"):
        measure_costs(
            fakes(tmp_path), TEXTS, openings=1, rounds=10, budget_s=30, progress=say, throughput=False
        )


@pytest.mark.slow
def test_an_interruption_keeps_the_rounds_up_to_then(tmp_path: Path) -> None:
    def say(message: str, share: float | None) -> None:
        if "one at a time" in message and (share or 0) >= 0.5:
            raise KeyboardInterrupt

    one, _ = measure_costs(
        fakes(tmp_path), TEXTS, openings=1, rounds=20, budget_s=30, keep_partial=True, progress=say
    )
    assert one.cpu_s is not None
    assert one.throughput_per_s is None
    assert any("interrupted: the figures are of the rounds up to then" in mark for mark in one.marks)


@pytest.mark.slow
def test_a_candidate_that_dies_under_load_keeps_its_blocks_and_the_other_goes_on(tmp_path: Path) -> None:
    found = measure_load(
        fakes(tmp_path),
        TEXTS,
        Scenario(kind="server", rate_per_s=50, duration_s=1.8),
        openings=1,
        progress=killing(1, during="measuring", after=0.5),
    )
    one, two = found.targets
    assert 0 < two.n_tasks < one.n_tasks
    assert any("stopped answering after" in mark and "SIGKILL" in mark for mark in two.marks)
    assert not any("stopped" in mark for mark in one.marks)


def test_a_candidate_that_dies_while_it_warms_up_has_no_figures_and_the_other_has(tmp_path: Path) -> None:
    found = measure_load(
        fakes(tmp_path),
        TEXTS,
        Scenario(kind="offline", duration_s=0.3),
        openings=1,
        progress=killing(1, during="warming up two", after=0.0),
    )
    one, two = found.targets
    assert one.n_tasks > 0
    assert two.n_tasks == 0
    assert not two.is_claim
    assert "no claim: nothing was measured." in two.marks


@pytest.mark.slow
def test_an_address_that_dies_during_the_search_keeps_the_rates_tried() -> None:
    server = LoadServer(delay=lambda _: 0.005, serial=True, die_after=300)
    found = measure_load(
        [http_target(f"{server.url}/x")],
        TEXTS,
        Scenario(kind="server", slo=Slo(share=0.5, limit_s=0.5), duration_s=1),
    )
    server.close()
    (only,) = found.targets
    assert only.curve
    assert "The search ended early: the target stopped answering" in only.slo_reason
    assert any("stopped answering" in mark for mark in only.marks)


def test_a_search_whose_target_goes_says_what_held_until_then() -> None:
    def probe(rate: float) -> RatePoint | None:
        if rate > 25:
            return None
        tail = Tail(value_s=0.1, low_s=0.1, high_s=0.1)
        return RatePoint(
            rate_per_s=rate, n_tasks=100, latency_p50_s=0.1, tail=tail, missed_share=0.0, is_met=True,
            is_valid=True,
        )  # fmt: skip

    found = find_rate(probe, first_per_s=10, slo=Slo(share=0.5, limit_s=1))
    assert found.rate_per_s == 20
    assert found.reason.endswith("The search ended early: the target stopped answering at 40 per second.")
    assert np.isclose([point.rate_per_s for point in found.curve], [10, 20]).all()
    nothing = find_rate(lambda rate: None, first_per_s=10, slo=Slo(share=0.5, limit_s=1))
    assert nothing.rate_per_s is None
    assert nothing.curve == ()
