"""An encoder takes the place of a model that shows nothing but labels, and learns from them."""

from pathlib import Path

import msgspec
import pytest

from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.errors import InvalidInput
from jettison.testing import check_step
from tiny import make_tiny_bert, make_tiny_development

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
DATA = make_tiny_development(train=200, dev=60, unlabelled=40)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> StepContext:
    """A run whose incumbent is the fake backend: it has no weights at all."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "fake").mkdir()
    fake = write_candidate(folder / "fake", name="far", backend="fake", labels=DATA.labels)
    return StepContext(data=DATA, incumbent=fake, folder=folder, workspace=folder / "workspace")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny", ("a", "b"), layers=2)


def test_it_keeps_a_steps_promises(
    context: StepContext, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = check_step(step_from({"step": "encoder", "source": str(encoder)}), context.incumbent, context)
    assert made.backend == "hf"
    assert made.labels == DATA.labels


def test_distilling_into_it_teaches_the_incumbents_labels(
    context: StepContext, encoder: Path, tmp_path: Path
) -> None:
    made: Candidate = context.incumbent
    for step in (
        {"step": "encoder", "source": str(encoder)},
        {"step": "distill", "epochs": 12, "learning_rate": 5e-3, "train_embeddings": True},
    ):
        made = apply_step(step_from(step), made, context, cache=tmp_path)
    texts = [example.input for example in DATA.dev]
    taught, own = (open_model(c).predict(texts) for c in (context.incumbent, made))
    same = [a.label == b.label for a, b in zip(taught, own, strict=True)]
    assert sum(same) / len(same) > 0.8


def test_other_weights_at_the_same_place_are_another_candidate(
    context: StepContext, encoder: Path, tmp_path: Path
) -> None:
    step = step_from({"step": "encoder", "source": str(encoder)})
    before = apply_step(step, context.incumbent, context, cache=tmp_path)
    make_tiny_bert(encoder, ("a", "b"), layers=2, seed=7)
    after = apply_step(step, context.incumbent, context, cache=tmp_path)
    assert before.digest != after.digest


def test_a_place_without_a_model_is_refused(context: StepContext, tmp_path: Path) -> None:
    step = step_from({"step": "encoder", "source": str(tmp_path)})
    with pytest.raises(InvalidInput, match=r"encoder\.source must be a folder with config\.json"):
        apply_step(step, msgspec.structs.replace(context.incumbent), context, cache=tmp_path / "cache")
