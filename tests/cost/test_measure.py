"""Costs of fake candidates whose true cost is known, in real child processes."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.candidate import Candidate, write_candidate
from jettison.cost.measure import measure_costs
from jettison.cost.process import MeasuredProcess, pinned_environment
from jettison.cost.protocol import candidate_message
from jettison.decision import CUT_SHORT
from jettison.errors import InvalidInput, JettisonError, MissingExtra, UnknownName

INPUTS = ["yes " * (1 + i % 9) for i in range(48)]


def fake(folder: Path, name: str, latency_s: float, backend: str = "fake") -> Candidate:
    (folder / name).mkdir()
    (folder / name / "weights.txt").write_text("0" * 1000)
    return write_candidate(
        folder / name, name=name, backend=backend, labels=("yes", "no"), settings={"latency_s": latency_s}
    )


@pytest.mark.slow
def test_a_candidate_four_times_as_fast_has_a_cpu_ratio_of_a_quarter(tmp_path: Path) -> None:
    """0.5 ms over 2 ms = 0.25; a call adds about 10 us to each, so 0.51 / 2.01 = 0.254."""
    pair = [fake(tmp_path, "slow", 0.002), fake(tmp_path, "fast", 0.0005)]
    slow, fast = measure_costs(
        pair, INPUTS, openings=3, rounds=12, block=8, seed=3, budget_s=6.0, usd_per_hour=0.36
    )

    assert fast.cpu_ratio is not None
    assert fast.cpu_ratio.value == pytest.approx(0.25, abs=0.025)
    assert fast.cpu_ratio.low <= fast.cpu_ratio.value <= fast.cpu_ratio.high
    assert slow.cpu_ratio is not None
    assert slow.cpu_ratio.value == 1.0
    assert slow.cpu_s is not None
    assert slow.cpu_s.value == pytest.approx(0.002, rel=0.1)
    assert slow.noise_share is not None
    assert slow.noise_share < 0.2
    assert slow.aa_ratio is not None
    assert slow.aa_ratio.low <= slow.aa_ratio.value <= slow.aa_ratio.high
    assert (slow.n_openings, fast.n_openings) == (3, 3)
    assert "3 openings in fresh processes" in fast.cpu_ratio.method
    assert slow.latency_p50_s is not None
    assert slow.latency_p50_s >= 0.0019
    assert fast.bytes == 1000
    assert fast.peak_bytes is not None
    assert fast.peak_bytes > 5_000_000
    assert fast.memory is not None
    assert fast.memory.steady_uss_bytes is not None
    phases = (fast.memory.load_peak_bytes, fast.memory.warm_up_peak_bytes, fast.memory.steady_peak_bytes)
    assert fast.peak_bytes == max(peak for peak in phases if peak is not None)
    assert fast.load_s is not None
    assert fast.load_s > 0
    # 1000 x 0.36 $/h / 3600 s = 0.0001 $ x seconds per task
    assert fast.throughput_per_s is not None
    assert fast.usd_per_1000 == pytest.approx(0.1 / fast.throughput_per_s)
    assert fast.energy_tier in ("M2", "E2", "E3")
    assert {"latency_p50_s", "throughput_per_s", "usd_per_1000"} <= set(fast.intervals)
    for name, found in fast.intervals.items():
        assert found.value == pytest.approx(getattr(fast, name))
        assert found.low <= found.value <= found.high
    rate, money = fast.intervals["throughput_per_s"], fast.intervals["usd_per_1000"]
    assert (money.low, money.high) == pytest.approx((0.1 / rate.high, 0.1 / rate.low))


def test_money_is_unknown_without_a_price_and_a_high_percentile_without_samples(tmp_path: Path) -> None:
    (only,) = measure_costs(
        [fake(tmp_path, "only", 0.02)], INPUTS[:4], openings=1, rounds=6, block=4, budget_s=1.0
    )
    assert only.usd_per_1000 is None
    assert only.n_tasks == 24
    assert only.latency_p50_s is not None
    assert only.latency_p95_s is None  # 59 samples are the fewest that can bound it
    assert only.latency_p99_s is None
    assert only.intervals == {}  # a latency's needs 40 calls


def test_what_there_is_no_time_for_is_not_measured_and_the_figures_say_so(tmp_path: Path) -> None:
    """Six openings for 6 s each, in half a second: one is made, and 6 rounds of 4 inputs in it."""
    asked = {"openings": 6, "rounds": 24, "block": 16, "budget_s": 36.0, "throughput": False}
    (only,) = measure_costs([fake(tmp_path, "only", 0.005)], INPUTS, twin=False, wall_s=0.5, **asked)
    assert (only.n_openings, only.cpu_s is not None) == (1, True)
    assert only.n_tasks <= 6 * 16
    (said,) = [mark for mark in only.marks if mark.startswith(CUT_SHORT)]
    assert "1 of 6 openings" in said
    assert " of 36.0 s of measuring" in said


def test_progress_names_each_stage(tmp_path: Path) -> None:
    said: list[str] = []
    measure_costs(
        [fake(tmp_path, "tiny", 0.0)],
        INPUTS,
        openings=1,
        rounds=6,
        budget_s=1.0,
        progress=lambda message, share: said.append(message),
    )
    assert "opening tiny" in said
    assert "measuring one at a time" in said
    assert "measuring batches" in said


def test_a_worker_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    mortal = fake(tmp_path, "mortal", 0.0)
    with MeasuredProcess(mortal, threads=1) as process:
        process.ask("open", candidate=candidate_message(mortal), threads=1)
        process._process.kill()
        with pytest.raises(
            JettisonError, match=r"'mortal' must answer .* ended with SIGKILL .*out of memory"
        ):
            process.ask("take", inputs=["yes"])


def test_a_worker_that_cannot_start_shows_its_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "no_python"))
    (tmp_path / "no_python").write_text("#!/bin/sh\necho the disk ate my homework >&2\nexit 3\n")
    (tmp_path / "no_python").chmod(0o755)
    with (
        MeasuredProcess(fake(tmp_path, "mute", 0.0), threads=1) as process,
        pytest.raises(JettisonError, match=r"ended with exit code 3[^$]*the disk ate my homework"),
    ):
        process.ask("open", candidate={}, threads=1)


def test_an_unknown_backend_is_the_same_error_as_in_this_process(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"jettison.backends must be one of .* got 'martian'"):
        measure_costs([fake(tmp_path, "odd", 0.0, backend="martian")], INPUTS)


def test_a_missing_library_is_passed_through_with_the_extra_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module of that name that raises as an uninstalled one does shadows the real one in the child."""
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "onnxruntime.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'onnxruntime'\", name='onnxruntime')"
    )
    monkeypatch.setenv("PYTHONPATH", str(shadow))
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"")
    (folder / "tokenizer.json").write_text(
        '{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,'
        '"pre_tokenizer":null,"post_processor":null,"decoder":null,'
        '"model":{"type":"WordLevel","vocab":{"[UNK]":0},"unk_token":"[UNK]"}}'
    )
    candidate = write_candidate(folder, name="m", backend="onnx", labels=("yes", "no"))
    with pytest.raises(MissingExtra, match=r"onnxruntime.*jettison\[onnx\]"):
        measure_costs([candidate], INPUTS)


def test_threads_are_pinned_for_every_library() -> None:
    environment = pinned_environment(2)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        assert environment[name] == "2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": []}, "candidates to measure must be at least one"),
        ({"inputs": []}, "inputs to measure on must be at least one text"),
        ({"incumbent": 1}, "incumbent must be a position in 0-0, got 1"),
        ({"threads": 0}, "threads must be 1 or more, got 0"),
        ({"openings": 0}, "openings must be in 1-100, got 0"),
    ],
)
def test_bad_arguments_are_refused_before_anything_starts(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    arguments: dict[str, object] = {"candidates": [fake(tmp_path, "c", 0.0)], "inputs": INPUTS, **changes}
    with pytest.raises(InvalidInput, match=message):
        measure_costs(arguments.pop("candidates"), arguments.pop("inputs"), **arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_tiny_onnx_model_is_measured_in_its_own_runtime(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    table = numpy_helper.from_array(np.eye(2, dtype=np.float32), "table")
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("ReduceMean", ["rows"], ["logits"], axes=[1], keepdims=0),
        ],
        "tiny",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["n", "t"]),
            helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["n", "t"]),
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [table],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = tmp_path / "tiny"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    (folder / "tokenizer.json").write_text(
        '{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,'
        '"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,'
        '"model":{"type":"WordLevel","vocab":{"no":0,"yes":1},"unk_token":"no"}}'
    )
    candidate = write_candidate(folder, name="tiny", backend="onnx", labels=("no", "yes"))
    (cost,) = measure_costs([candidate], INPUTS, openings=1, rounds=6, budget_s=2.0)
    assert cost.cpu_s is not None
    assert 1e-6 < cost.cpu_s.value < 0.01
    assert cost.bytes == candidate.artifact_bytes


def test_a_summary_survives_json(tmp_path: Path) -> None:
    (cost,) = measure_costs(
        [fake(tmp_path, "one", 0.0)], INPUTS, openings=1, twin=False, rounds=6, budget_s=1.0
    )
    assert (cost.aa_ratio, cost.noise_share) == (None, None)  # it has no twin
    assert msgspec.json.decode(msgspec.json.encode(cost), type=type(cost)) == cost
