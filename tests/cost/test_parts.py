"""The parts of a measurement, each a function of what it is given."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from jettison import registry
from jettison.cost.energy import cpu_generation, estimate_energy, read_watts
from jettison.cost.inputs import deal_blocks, sample_inputs
from jettison.cost.money import at_own_rate, usd_per_1000
from jettison.cost.noise import MachineState, noise_marks, read_machine_state
from jettison.cost.per_correct import costs_per_correct
from jettison.cost.plan import MIN_BLOCK_S, affordable_openings, plan_batches, plan_blocks, round_orders
from jettison.cost.protocol import receive_message, send_message
from jettison.cost.ratio import aa_noise, median_interval, openings_interval
from jettison.decision import CostSummary, Interval
from jettison.errors import InvalidInput
from jettison.record import Cost

TURIN = "vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nstepping\t: 1\n"
GENOA = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nstepping\t: 1\n\nvendor_id : x\n"
CASCADE_LAKE = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nstepping\t: 7\n"


def test_the_sample_follows_the_lengths_of_the_whole() -> None:
    texts = [f"{i:04}" + "a" * (i % 100) for i in range(5000)]
    drawn = sample_inputs(texts, n=100, seed=1)
    assert len(drawn) == 100
    assert np.mean([len(t) for t in drawn]) == pytest.approx(53.5, abs=1)
    assert drawn == sample_inputs(texts, n=100, seed=1)
    assert drawn != sample_inputs(texts, n=100, seed=2)


def test_few_texts_are_all_taken() -> None:
    assert sorted(sample_inputs(["b", "a"], n=100)) == ["a", "b"]


def test_no_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one text, got none"):
        sample_inputs([])


@given(n=st.integers(1, 90), block=st.integers(1, 40))
def test_blocks_deal_every_input_once(n: int, block: int) -> None:
    blocks = deal_blocks(["x" * i for i in range(n)], block, rng=np.random.default_rng(0))
    assert sorted(row for rows in blocks for row in rows) == list(range(n))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


def test_a_fast_candidate_repeats_its_block_until_the_timer_resolves_it() -> None:
    plan = plan_blocks([0.02, 1e-5], rounds=30, block=16, n_inputs=64, budget_s=None)
    assert plan.repeats[0] == 1
    assert plan.repeats[1] * 16 * 1e-5 >= MIN_BLOCK_S


def test_a_slow_candidate_gets_smaller_blocks_then_fewer_rounds_but_never_under_six() -> None:
    plan = plan_blocks([1.0], rounds=30, block=16, n_inputs=64, budget_s=60)
    assert (plan.block, plan.rounds) == (4, 15)
    assert plan_blocks([100.0], rounds=30, block=16, n_inputs=64, budget_s=60).rounds == 6


def test_two_of_one_speed_go_over_their_blocks_equally_often() -> None:
    """50 ms / (16 x 1.57 ms) rounds up to 2, of 1.55 ms to 3; the others' own would be 1 and 1."""
    plan = plan_blocks([0.00157, 0.02, 0.00155, 0.03], rounds=30, block=16, n_inputs=64, budget_s=None)
    assert plan.repeats == (3, 1, 3, 1)


def test_rounds_are_spread_over_openings_one_each_at_least() -> None:
    wanted = {"rounds": 30, "block": 16, "n_inputs": 64}
    assert plan_blocks([0.01], budget_s=None, openings=6, **wanted).rounds == 5
    assert plan_blocks([100.0], budget_s=60, openings=6, **wanted).rounds == 1
    assert plan_blocks([100.0], budget_s=60, openings=20, **wanted).rounds == 1


def test_batches_of_a_slow_candidate_take_few_inputs_and_of_a_fast_one_all() -> None:
    """A quarter of 120 s among 3 is 10 s; 9 passes of 0.1 s each leave 11 inputs."""
    shared = {"passes": 9, "n_inputs": 128, "n_candidates": 3}
    assert plan_batches(0.1, budget_s=120, **shared) == 11
    assert plan_batches(10.0, budget_s=120, **shared) == 8
    assert plan_batches(0.001, budget_s=120, **shared) == 128
    assert plan_batches(10.0, budget_s=None, **shared) == 128


def test_every_second_round_runs_backwards() -> None:
    orders = round_orders(3, 5, rng=np.random.default_rng(0))
    assert len(orders) == 5
    assert orders[1] == orders[0][::-1]
    assert sorted(orders[2]) == [0, 1, 2]


def test_fewer_than_six_rounds_give_no_interval() -> None:
    assert median_interval([1.0] * 5) is None


def test_an_interval_over_openings_is_students_t_on_logarithms() -> None:
    """Medians e^-0.1, e^0.1, e^0.3: mean 0.1, sd 0.2; t(2) x 0.2 / sqrt(3) = 4.3027 x 0.11547 = 0.49683."""
    openings = [[float(np.exp(x + d)) for d in (-1, 0, 1)] for x in (-0.1, 0.1, 0.3)]
    found = openings_interval([*openings, []])
    assert found is not None
    assert found.value == pytest.approx(np.exp(0.1))
    assert (found.low, found.high) == (
        pytest.approx(np.exp(0.1 - 0.49683), rel=1e-4),
        pytest.approx(np.exp(0.1 + 0.49683), rel=1e-4),
    )
    assert "3 openings in fresh processes" in found.method
    # No narrower than what varies among equals; closer ones change nothing.
    wide = openings_interval(openings, twins=[[float(np.exp(x))] for x in (-0.4, 0.0, 0.4)])
    assert wide is not None
    assert np.log(wide.high / wide.low) == pytest.approx(2 * 2 * 0.49683, rel=1e-3)  # their spread is 0.4
    assert openings_interval(openings, twins=[[1.0], [1.01], [1.0]]) == found


@given(values=st.lists(st.lists(st.floats(0.01, 100), min_size=1, max_size=5), min_size=2, max_size=6))
def test_the_interval_of_the_inverse_ratio_mirrors_it(values: list[list[float]]) -> None:
    odd = [rounds[:1] for rounds in values]
    one = openings_interval(odd)
    other = openings_interval([[1 / v for v in rounds] for rounds in odd])
    assert one is not None
    assert other is not None
    assert other.low == pytest.approx(1 / one.high)
    assert other.value == pytest.approx(1 / one.value)


def test_one_opening_has_the_interval_of_its_rounds_and_says_so() -> None:
    found = openings_interval([[1.0] * 6])
    assert found is not None
    assert "of one process each" in found.method
    assert openings_interval([[1.0] * 5]) is None
    assert openings_interval([]) is None
    assert openings_interval([[0.0], [1.0]]) is None


@pytest.mark.guarantee
def test_the_interval_of_a_median_ratio_covers_it_as_often_as_it_says() -> None:
    """Lognormal ratios around 0.8 from 30 rounds; ranks err to the wide side."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(400):
        found = median_interval(rng.lognormal(np.log(0.8), 0.05, 30))
        assert found is not None
        hits += found.low <= 0.8 <= found.high
    assert binomtest(hits, 400, 0.95, alternative="less").pvalue > 1e-4


def test_noise_is_the_same_for_a_ratio_and_its_inverse() -> None:
    assert aa_noise(0.8) == pytest.approx(0.25)
    assert aa_noise(1.25) == pytest.approx(0.25)
    assert aa_noise(1.0) == 0.0


def test_money_is_the_price_of_the_seconds() -> None:
    """At 100 tasks/s an hour does 360,000; 0.36 $ / 360 = 0.001 $ a thousand."""
    assert usd_per_1000(100, 0.36) == pytest.approx(0.001)
    assert usd_per_1000(None, 0.36) is None
    assert usd_per_1000(100, None) is None
    with pytest.raises(InvalidInput, match="price of an hour must be 0 or more"):
        usd_per_1000(100, -1)


def test_an_estimate_of_a_known_cpu_is_tier_e2_with_both_parts(tmp_path: Path) -> None:
    """EPYC 4th Gen: 0.01 s x (2.2822 - 0.7391) + 0.02 s x 0.7391."""
    (tmp_path / "cpuinfo").write_text(GENOA)
    energy = estimate_energy(0.01, 0.02, cpuinfo=tmp_path / "cpuinfo")
    assert (energy.tier, energy.factor) == ("E2", 2.0)
    assert energy.dynamic_j == pytest.approx(0.015431)
    assert energy.idle_j == pytest.approx(0.014782)
    assert energy.energy_j == pytest.approx(0.030213)


@pytest.mark.parametrize("cpuinfo", ["", TURIN, "vendor_id: ARM\n"])
def test_an_estimate_of_an_unlisted_cpu_is_tier_e3(tmp_path: Path, cpuinfo: str) -> None:
    """The table's row for EPYC 5th Gen is an outlier of few machines and was left out."""
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    energy = estimate_energy(0.01, 0.01, cpuinfo=tmp_path / "cpuinfo")
    assert (energy.tier, energy.factor) == ("E3", 3.0)
    assert "median of the table" in energy.source


def test_a_generation_is_told_by_family_model_and_stepping(tmp_path: Path) -> None:
    found = {}
    for text in (TURIN, GENOA, CASCADE_LAKE):
        (tmp_path / "cpuinfo").write_text(text)
        found[text] = cpu_generation(tmp_path / "cpuinfo")
    assert found == {TURIN: "EPYC 5th Gen", GENOA: "EPYC 4th Gen", CASCADE_LAKE: "Cascade Lake"}
    assert cpu_generation(tmp_path / "nothing") is None


def test_every_row_of_watts_is_ascending() -> None:
    assert all(0 < row.min_w < row.max_w < 10 for row in read_watts().values())


def test_a_quiet_machine_has_no_marks_and_a_busy_one_says_why() -> None:
    quiet = MachineState(load_1m=0.1, n_cpus=2, cpu_pressure_avg10=1.0, steal_ticks=0, total_ticks=0)
    after = MachineState(load_1m=1.0, n_cpus=2, cpu_pressure_avg10=2.0, steal_ticks=1, total_ticks=1000)
    assert noise_marks(quiet, after) == ()
    busy = MachineState(load_1m=4.0, n_cpus=2, cpu_pressure_avg10=38.0, governor="powersave")
    stolen = MachineState(n_cpus=2, steal_ticks=50, total_ticks=1000)
    assert any("load 4.0 on 2 CPUs" in mark for mark in noise_marks(busy, stolen))
    assert any("38 % of the time" in mark for mark in noise_marks(busy, stolen))
    assert any("powersave" in mark for mark in noise_marks(busy, stolen))
    assert noise_marks(quiet, stolen) == ("the host took 5.0% of the CPU time away (steal).",)


def test_what_the_system_does_not_tell_is_none(tmp_path: Path) -> None:
    state = read_machine_state(tmp_path)
    assert state.load_1m is None
    assert state.steal_ticks is None
    assert noise_marks(state, state) == ()


@given(st.dictionaries(st.text(), st.lists(st.integers(0, 2**53))))
def test_a_message_arrives_as_it_was_sent(message: dict[str, list[int]]) -> None:
    pipe = io.BytesIO()
    send_message(pipe, message)
    pipe.seek(0)
    assert receive_message(pipe) == message
    with pytest.raises(EOFError):
        receive_message(pipe)


def test_meters_are_found_by_name_and_say_only_what_they_saw() -> None:
    with registry.load("meters", "wall")() as wall, registry.load("meters", "cpu")() as cpu:
        sum(range(200_000))
    assert wall.cost.latency_s > 0
    assert wall.cost.cpu_s is None
    assert 0 < cpu.cost.cpu_s < 5
    with registry.load("meters", "none")() as nothing:
        pass
    assert nothing.cost == Cost()


def test_the_memory_meter_sees_what_was_held_in_the_window() -> None:
    with registry.load("meters", "memory")() as outer:
        block = np.ones(8_000_000)  # 64 MB, touched
        del block
    with registry.load("meters", "memory")() as later:
        pass
    if outer.cost.peak_bytes is None:
        pytest.skip("this system does not let a process start its peak memory over")
    assert outer.cost.peak_bytes - later.cost.peak_bytes > 40_000_000


def test_money_at_ones_own_rate_pays_for_idle_machines_and_for_enough_of_them() -> None:
    """0.36 $ an hour at 1 task/s is 0.1 $ a thousand; 250 a second want three machines of 100."""
    slow, fast = at_own_rate(1.0, 100.0, 0.36), at_own_rate(250.0, 100.0, 0.36)
    assert slow is not None
    assert fast is not None
    assert (slow.n_machines, slow.usd_per_1000) == (1, pytest.approx(0.1))
    assert (fast.n_machines, fast.usd_per_1000) == (3, pytest.approx(3 * 0.1 / 250))
    unpriced = at_own_rate(1.0, 100.0, None)
    assert unpriced is not None
    assert unpriced.usd_per_1000 is None
    assert at_own_rate(None, 100.0, 0.36) is None
    assert at_own_rate(1.0, None, 0.36) is None


def test_costs_per_correct_answer_hold_both_doubts() -> None:
    """Nine of ten right: cost / 0.9; a cost known to x/÷ 2 is at least as uncertain per correct answer."""
    cost = CostSummary(cpu_s=Interval(value=0.01, low=0.005, high=0.02), energy_j=0.9, energy_tier="E2")
    found = costs_per_correct(cost, [1.0] * 90 + [0.0] * 10)
    assert found.correct_share is not None
    assert found.correct_share.value == pytest.approx(0.9)
    assert set(found.per_correct) == {"cpu_s", "energy_j"}
    cpu, energy = found.per_correct["cpu_s"], found.per_correct["energy_j"]
    assert cpu.value == pytest.approx(0.01 / 0.9)
    assert cpu.low < 0.005 / 0.9 < 0.02 / 0.9 < cpu.high
    assert energy.value == pytest.approx(1.0)
    assert 0.9 < energy.low < energy.high < 1.1
    assert costs_per_correct(cost, [-1.0, 0.5]) == cost  # no share of right answers
    assert costs_per_correct(cost, [0.0, 0.0]).per_correct == {}


def test_openings_that_there_is_no_time_for_are_left_out_but_never_down_to_two() -> None:
    """Six of 10 s to open and 60 s of blocks take 6 x (10 + 10) = 120 s."""
    wanted = {"open_s": 10.0, "blocks_s": 60.0}
    assert affordable_openings(6, wall_s=None, **wanted) == (6, 60.0)
    assert affordable_openings(6, wall_s=120.0, **wanted) == (6, 60.0)
    assert affordable_openings(6, wall_s=90.0, **wanted) == (4, 40.0)
    # Two would fit: one is made, and measured for what is left.
    assert affordable_openings(6, wall_s=45.0, **wanted) == (1, 35.0)
    assert affordable_openings(6, wall_s=5.0, **wanted) == (1, 0.0)
    assert affordable_openings(1, wall_s=30.0, **wanted) == (1, 20.0)
