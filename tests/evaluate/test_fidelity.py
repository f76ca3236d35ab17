"""A lean language model held against the incumbent, token by token."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jettison.backends.causal import CausalEngine
from jettison.candidate import Candidate, write_candidate
from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate import measure_fidelity
from jettison.evaluate.fidelity import compare_engines
from jettison.language import Continuation, Likelihood
from tiny import make_tiny_development, make_tiny_language

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TEXTS = [example.input for example in make_tiny_development(train=60, dev=10, unlabelled=0).train]


class Told:
    """Says the same next-token probabilities everywhere; a text is as many tokens as characters."""

    def __init__(self, *shares: float) -> None:
        self.row = np.log(np.array(shares, np.float32))

    def logits(self, texts: Any) -> list[np.ndarray]:
        return [np.tile(self.row, (max(0, len(text) - 1), 1)) for text in texts]

    def likelihoods(self, asked: list[Continuation]) -> list[Likelihood]:
        return [
            Likelihood(
                logprob=float(self.row[0]) * len(one.text),
                n_tokens=len(one.text),
                n_characters=len(one.text),
                greedy=False,
            )
            for one in asked
        ]


def candidate(folder: Path, backend: str = "hf_causal") -> Candidate:
    # The references are computed on the CPU, with the engine's own weights.
    settings = {"kind": "generate", "device": "cpu"}
    return write_candidate(folder, name="tiny", backend=backend, labels=(), settings=settings)


def test_known_divergence_agreement_and_perplexity() -> None:
    # KL = 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75) = 0.143841; perplexity = 1 / p of what came: 4 and 2
    found = compare_engines(Told(0.25, 0.75), Told(0.5, 0.5), ["abc", "abcdef", "a"])
    assert found.kl.value == pytest.approx(0.143841, abs=1e-6)
    assert found.kl.low == pytest.approx(found.kl.high)
    assert found.top_1_agreement.value == 0.0
    assert (found.perplexity.value, found.perplexity_incumbent.value) == (
        pytest.approx(4),
        pytest.approx(2),
    )
    assert found.perplexity_ratio.value == pytest.approx(2)
    assert (found.n_texts, found.n_tokens) == (2, 2 + 5)


def test_a_model_is_faithful_to_itself(tmp_path: Path) -> None:
    whole = candidate(make_tiny_language(tmp_path / "whole", TEXTS))
    found = measure_fidelity(whole, whole, TEXTS[:5])
    assert found.kl.value == pytest.approx(0, abs=1e-7)
    assert (found.top_1_agreement.low, found.perplexity_ratio.value) == (1.0, pytest.approx(1))


def test_figures_are_those_of_torch(tmp_path: Path) -> None:
    import torch

    whole = candidate(make_tiny_language(tmp_path / "whole", TEXTS))
    lean = candidate(make_tiny_language(tmp_path / "lean", TEXTS, layers=1, seed=1))
    found = measure_fidelity(lean, whole, TEXTS[:6])
    p, q = (CausalEngine(one) for one in (whole, lean))
    apart, same, surprise, n = 0.0, 0, 0.0, 0
    for text in TEXTS[:6]:
        ids = torch.tensor([p.token_ids(text)])
        with torch.inference_mode():
            a, b = (torch.log_softmax(one._model(ids).logits[0, :-1].double(), -1) for one in (p, q))
            started = torch.cat([torch.tensor([[1]]), ids], 1)
            surprise += float(q._model(started, labels=started).loss) * ids.shape[1]
        apart += float(torch.nn.functional.kl_div(b, a, log_target=True, reduction="sum"))
        same += int((a.argmax(-1) == b.argmax(-1)).sum())
        n += ids.shape[1]
    assert found.n_tokens == n - 6
    assert found.kl.value == pytest.approx(apart / (n - 6), rel=1e-4)
    assert found.kl.low < found.kl.value < found.kl.high
    assert found.top_1_agreement.value == pytest.approx(same / (n - 6))
    assert found.perplexity.value == pytest.approx(np.exp(surprise / n), rel=1e-4)


def test_other_vocabularies_few_texts_and_other_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"must read the same tokens .*, got \(2, 3\) and \(2, 2\)"):
        compare_engines(Told(0.2, 0.2, 0.6), Told(0.5, 0.5), ["abc", "def"])
    with pytest.raises(NotEnoughData, match="at least 2 texts of more than one token, got 1"):
        compare_engines(Told(0.5, 0.5), Told(0.5, 0.5), ["abc", "a", ""])
    with np.errstate(divide="ignore"), pytest.raises(InvalidInput, match="must be above 0"):
        compare_engines(Told(0.0, 1.0), Told(0.5, 0.5), ["abc", "def"])
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/note.txt").write_text("no language model")
    fake = write_candidate(tmp_path / "fake", name="fake", backend="fake", labels=("a", "b"), settings={})
    with pytest.raises(InvalidInput, match="needs a language model, got a candidate of backend 'fake'"):
        measure_fidelity(fake, fake, TEXTS[:5])
