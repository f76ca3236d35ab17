"""The OpenVINO backend says its precision, answers as the checkpoint does, and reports to nobody."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.backends.hf import open_hf
from jettison.backends.machine import has_bfloat16
from jettison.backends.openvino import PAD_TO_MULTIPLE, open_openvino
from jettison.candidate import Candidate
from jettison.compress.export import Export
from jettison.compress.step import StepContext, apply_step
from jettison.errors import BrokenArtifact, InvalidInput
from tiny import make_tiny_bert, make_tiny_development, tiny_candidate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
DATA = make_tiny_development(train=0, dev=40, unlabelled=0)
TEXTS = [example.input for example in DATA.dev]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = tmp_path_factory.mktemp("hf") / "tiny"
    return tiny_candidate(make_tiny_bert(folder, DATA.labels, layers=2, seed=1), DATA)


@pytest.fixture(scope="module")
def exported(checkpoint: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = tmp_path_factory.mktemp("made")
    context = StepContext(data=DATA, incumbent=checkpoint, folder=folder, workspace=folder)
    return apply_step(Export(target="openvino"), checkpoint, context, cache=folder / "cache")


def with_settings(candidate: Candidate, **settings: object) -> Candidate:
    return msgspec.structs.replace(candidate, settings={**candidate.settings, **settings})


def test_logits_are_those_of_the_checkpoint(checkpoint: Candidate, exported: Candidate) -> None:
    wanted, found = open_hf(checkpoint).logits(TEXTS), open_openvino(exported).logits(TEXTS)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.dtype == np.float32


def test_precision_is_pinned_to_float32_unless_asked_otherwise(exported: Candidate) -> None:
    assert open_openvino(exported).precision == "f32"


@pytest.mark.skipif(not has_bfloat16(), reason="the processor has no bfloat16 products")
def test_bfloat16_is_what_it_says_and_answers_differently(exported: Candidate) -> None:
    exact, rounded = open_openvino(exported), open_openvino(with_settings(exported, precision="bfloat16"))
    assert rounded.precision == "bf16"
    apart = np.abs(exact.logits(TEXTS) - rounded.logits(TEXTS)).max()
    assert 1e-6 < apart < 0.1


def test_threads_of_the_settings_are_those_of_the_model(exported: Candidate) -> None:
    # The plugin takes no more than the cores that the process may use.
    threads = min(2, len(os.sched_getaffinity(0)))
    model = open_openvino(with_settings(exported, threads=threads))
    assert model._compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert model._compiled.get_property("ENABLE_CPU_PINNING") is False


def test_token_counts_are_rounded_up_and_logits_stay(exported: Candidate) -> None:
    widths: list[int] = []
    padded, exact = open_openvino(exported), open_openvino(with_settings(exported, pad_to_multiple=1))
    request = padded._request

    class Spy:
        def infer(self, feed, **options):  # type: ignore[no-untyped-def]
            widths.append(feed[0].shape[1])
            return request.infer(feed, **options)

    padded._request = Spy()
    for text in TEXTS[:6]:
        np.testing.assert_allclose(padded.logits([text]), exact.logits([text]), atol=1e-5)
    assert all(width % PAD_TO_MULTIPLE == 0 for width in widths)


def test_padding_never_passes_the_most_tokens_allowed(exported: Candidate) -> None:
    model = open_openvino(with_settings(exported, max_tokens=5))
    assert model.logits(["weather " * 30]).shape == (1, 5)


def test_an_onnx_file_opens_in_openvino(checkpoint: Candidate, tmp_path: Path) -> None:
    context = StepContext(data=DATA, incumbent=checkpoint, folder=tmp_path, workspace=tmp_path)
    graph = apply_step(Export(), checkpoint, context, cache=tmp_path / "cache")
    wanted = open_hf(checkpoint).logits(TEXTS)
    np.testing.assert_allclose(open_openvino(graph).logits(TEXTS), wanted, atol=1e-5)
    converted = apply_step(Export(target="openvino"), graph, context, cache=tmp_path / "cache")
    assert [entry.path for entry in converted.files] == ["model.bin", "model.xml", "tokenizer.json"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"precision": "int8"}, r"one of \['float32', 'bfloat16'\], got 'int8'"),
        ({"threads": -1}, "threads must be a whole number of at least 1, got -1"),
    ],
)
def test_settings_that_cannot_be_honored_are_refused(
    exported: Candidate, settings: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        open_openvino(with_settings(exported, **settings))


def test_a_missing_or_corrupt_file_is_refused(exported: Candidate, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((exported.path / "tokenizer.json").read_bytes())
    moved = msgspec.structs.replace(exported, path=tmp_path)
    with pytest.raises(
        BrokenArtifact, match=r"must hold one of \['model.xml', 'model.onnx'\], got neither"
    ):
        open_openvino(moved)
    (tmp_path / "model.xml").write_text("<net")
    with pytest.raises(BrokenArtifact, match="must be a model that OpenVINO loads"):
        open_openvino(moved)


def test_neither_openvino_nor_nncf_can_report_usage() -> None:
    code = (
        "from jettison.backends.openvino import import_openvino; import_openvino();"
        "import nncf, sys; from nncf.telemetry.wrapper import telemetry;"
        "from openvino.tools.ovc import telemetry_utils;"
        "assert sys.modules['openvino_telemetry'] is None;"
        "assert 'stub' in telemetry_utils.tm.__name__, telemetry_utils.tm;"
        "assert 'Mock' in str(telemetry)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)


def test_usage_reports_are_declined_where_the_reporter_is_loaded_already() -> None:
    code = (
        "import openvino_telemetry, openvino_telemetry.utils.opt_in_checker as checker;"
        "from jettison.backends.openvino import import_openvino; import_openvino();"
        "declined = checker.ConsentCheckResult.DECLINED;"
        "assert checker.OptInChecker().check(enable_opt_in_dialog=False) is declined"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
