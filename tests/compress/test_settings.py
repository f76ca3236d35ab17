"""The step `settings` changes how a candidate runs and not one byte of it."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from jettison.backends.text import load_tokenizer
from jettison.candidate import Candidate, write_candidate
from jettison.compress.settings import Settings, tokens_to_cover
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.errors import InvalidInput, NotEnoughData
from jettison.task import Example
from tiny import make_tiny_development, write_tiny_tokenizer

DATA = make_tiny_development(train=30, dev=30, unlabelled=30)


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    """Files alone: the step opens no model."""
    folder = tmp_path / "parent"
    write_tiny_tokenizer(folder)
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "parts").mkdir()
    (folder / "parts" / "more.data").write_bytes(b"more")
    return write_candidate(
        folder, name="p", backend="onnx", labels=DATA.labels, settings={"max_tokens": 512, "threads": 1}
    )


@pytest.fixture
def context(candidate: Candidate, tmp_path: Path) -> StepContext:
    return StepContext(data=DATA, incumbent=candidate, folder=tmp_path, workspace=tmp_path)


def applied(step: Settings, candidate: Candidate, context: StepContext) -> Candidate:
    return apply_step(step, candidate, context, cache=context.workspace / "cache")


def test_the_files_are_the_same_ones(candidate: Candidate, context: StepContext) -> None:
    made = applied(Settings(threads=2, batch_size=8, pad_to_multiple=4), candidate, context)
    assert made.files == candidate.files
    assert (made.path / "model.onnx").stat().st_ino == (candidate.path / "model.onnx").stat().st_ino
    assert made.settings == {"max_tokens": 512, "threads": 2, "batch_size": 8, "pad_to_multiple": 4}
    assert made.digest != candidate.digest


def test_tokens_of_the_data_are_covered_and_the_share_cut_is_said(
    candidate: Candidate, context: StepContext
) -> None:
    tokenizer = load_tokenizer(candidate.path / "tokenizer.json")
    long = Example(id="long", input="weather " * 40)
    data = replace(DATA, unlabelled=(*DATA.unlabelled, long))
    texts = [e.input for e in (*data.train, *data.dev, *data.unlabelled)]
    lengths = sorted(len(tokenizer.encode(text).ids) for text in texts)
    # 91 texts: 99.9 % of them are all, so the longest decides: 42 tokens, in steps of 8
    assert lengths[-1] == 42
    made = applied(Settings(max_tokens="data"), candidate, replace(context, data=data))
    assert made.settings["max_tokens"] == 48
    notes = made.lineage[-1].notes
    assert notes == {"truncated_share": 0.0, "longest_tokens": 42, "n_texts": 91}
    assert made.lineage[-1].settings["max_tokens"] == 48

    cut = applied(Settings(max_tokens=lengths[-2]), candidate, replace(context, data=data))
    assert cut.lineage[-1].notes["truncated_share"] == pytest.approx(1 / 91)


def test_tokens_of_the_data_never_pass_what_the_model_reads(
    candidate: Candidate, context: StepContext
) -> None:
    short = msgspec.structs.replace(candidate, settings={"max_tokens": 5})
    assert applied(Settings(max_tokens="data"), short, context).settings["max_tokens"] == 5


@given(st.lists(st.integers(0, 600), min_size=1, max_size=300))
@hypothesis_settings(max_examples=50, deadline=None)
def test_cover_is_the_least_multiple_of_8_that_covers(lengths: list[int]) -> None:
    enough = tokens_to_cover(lengths)
    assert enough % 8 == 0
    assert np.mean(np.array(lengths) <= enough) >= 0.999
    assert enough == 8 or np.mean(np.array(lengths) <= enough - 8) < 0.999


def test_without_a_text_there_is_nothing_to_cover(candidate: Candidate, context: StepContext) -> None:
    empty = make_tiny_development(train=0, dev=0, unlabelled=0)
    with pytest.raises(NotEnoughData, match='max_tokens = "data" needs at least 1 text'):
        applied(Settings(max_tokens="data"), candidate, replace(context, data=empty))


def test_precision_goes_where_the_backend_reads_it(candidate: Candidate, context: StepContext) -> None:
    step = Settings(precision="bfloat16")
    for backend, key in (("openvino", "precision"), ("hf", "dtype")):
        made = applied(step, msgspec.structs.replace(candidate, backend=backend, digest=backend), context)
        assert made.settings[key] == "bfloat16"
    with pytest.raises(InvalidInput, match="precision of backend 'onnx' must be 'float32', got 'bfloat16'"):
        applied(step, candidate, context)
    assert applied(Settings(precision="float32"), candidate, context).settings == candidate.settings


def test_a_candidate_without_tokens_has_none_to_cut(candidate: Candidate, context: StepContext) -> None:
    (candidate.path / "tokenizer.json").unlink()
    with pytest.raises(
        InvalidInput, match="max_tokens must be set on a candidate that reads tokens, got backend"
    ):
        applied(Settings(max_tokens=8), candidate, context)


@pytest.mark.parametrize(
    ("given_settings", "said"),
    [
        ({"threads": 0}, "step 'settings': Expected `int` >= 1"),
        ({"max_tokens": "all"}, "step 'settings': Invalid enum value 'all'"),
        ({"spin": True}, "must have settings among .* got 'spin'"),
        ({"precision": "int8"}, "Invalid enum value 'int8'"),
    ],
)
def test_settings_that_do_not_exist_are_refused(given_settings: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        step_from({"step": "settings", **given_settings})
