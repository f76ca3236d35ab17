"""An encoder that embeds, its graph and its table: they keep their promises and find what it finds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jettison.backends.embedder import open_embedder
from jettison.backends.ranker import read_index
from jettison.candidate import Candidate
from jettison.compress.incumbent_embedder import take_in_embedder
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.errors import StepFailed
from jettison.task import Development, Passage
from jettison.testing import check_backend, check_step
from tiny import make_tiny_bert, make_tiny_development

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CLASSES = make_tiny_development(train=30, dev=30, unlabelled=0)
CORPUS = tuple(Passage(id=e.id, text=e.input) for e in CLASSES.train)


def asks(kind: str) -> Development:
    """The tiny data as a task that searches its own train texts."""
    return replace(CLASSES, kind=kind, labels=(), out_of_scope=None, corpus=CORPUS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = tmp_path_factory.mktemp("embedder")
    bert = make_tiny_bert(folder / "tiny", CLASSES.labels, layers=2)
    return take_in_embedder(
        bert, "tiny", asks("embed"), cache=folder / "cache", seed=0, progress=lambda *_: None
    )


@pytest.fixture
def context(encoder: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StepContext:
    (tmp_path / "workspace").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return StepContext(
        data=asks("embed"), incumbent=encoder, folder=tmp_path, workspace=tmp_path / "workspace"
    )


def test_backend_embedder_conforms(encoder: Candidate) -> None:
    assert encoder.backend == "embedder"
    check_backend(encoder, [e.input for e in CLASSES.dev[:8]])


def test_a_text_cut_on_the_left_is_embedded_by_its_end(encoder: Candidate) -> None:
    end = " ".join(["album", *["weather"] * 61])
    texts = [end, f"balance balance {end}"]
    of_start = open_embedder(encoder.path, encoder.settings).embed(texts)
    of_end = open_embedder(encoder.path, {**encoder.settings, "truncation_side": "left"}).embed(texts)
    assert not np.allclose(of_start[0], of_start[1], atol=1e-3)
    np.testing.assert_allclose(of_end[0], of_end[1], atol=1e-5)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param({"step": "quantize_embedder", "precision": "float32"}, marks=pytest.mark.slow),
        pytest.param({"step": "quantize_embedder", "precision": "int8"}, marks=pytest.mark.slow),
        {"step": "distill_embedder", "dimensions": 16},
    ],
    ids=lambda step: " ".join(str(value) for value in step.values()),
)
def test_steps_conform_and_the_corpus_is_embedded_anew(
    step: dict[str, object], encoder: Candidate, context: StepContext, tmp_path: Path
) -> None:
    check_step(step_from(step), encoder, context)
    made = apply_step(step_from(step), encoder, context, cache=tmp_path / "cache")
    index = read_index(made.path)
    assert index.ids == tuple(passage.id for passage in CORPUS)
    own = open_embedder(made.path).embed([CORPUS[0].text])[0]
    assert index.vectors[0] @ own == pytest.approx(1.0, abs=1e-3)
    if step.get("precision") == "float32":
        before = open_embedder(encoder.path, encoder.settings).embed([e.input for e in CLASSES.dev])
        after = open_embedder(made.path, made.settings).embed([e.input for e in CLASSES.dev])
        np.testing.assert_allclose(after, before, atol=1e-4)


def test_a_graph_is_no_checkpoint_to_start_from(
    encoder: Candidate, context: StepContext, tmp_path: Path
) -> None:
    table = apply_step(
        step_from({"step": "distill_embedder", "dimensions": 16}),
        encoder,
        context,
        cache=tmp_path / "cache",
    )
    with pytest.raises(StepFailed, match="must start from an embedder's checkpoint"):
        apply_step(step_from({"step": "quantize_embedder"}), table, context, cache=tmp_path / "cache")
