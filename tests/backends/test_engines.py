"""Every engine keeps the promises that `jettison.testing` checks, and the checks find who does not."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from jettison.backends.causal import CausalEngine
from jettison.backends.fake_language import FakeLanguage
from jettison.candidate import Candidate, write_candidate
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.testing import check_backend, check_language_model
from tiny import make_tiny_development, make_tiny_language

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TEXTS = [example.input for example in make_tiny_development(train=60, dev=10, unlabelled=0).train]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = make_tiny_language(tmp_path_factory.mktemp("engines") / "tiny", TEXTS)
    settings = {"batch_size": 4, "dtype": "float32"}
    return write_candidate(folder, name="tiny", backend="hf_causal", labels=(), settings=settings)


def test_the_causal_engine(tiny: Candidate) -> None:
    check_language_model(CausalEngine(tiny), TEXTS[:6])


def test_the_causal_backend(tiny: Candidate) -> None:
    labels = ("music", "alarm")
    prompt = {"template": "Text: {input}\nLabel:", "chat": False}
    settings = {"kind": "classify", "prompt": prompt, "dtype": "float32"}
    check_backend(
        write_candidate(tiny.path, name="tiny", backend="hf_causal", labels=labels, settings=settings),
        TEXTS[:3],
    )


@pytest.mark.parametrize("likelihoods", [True, False])
def test_the_fake_engine(likelihoods: bool) -> None:
    check_language_model(FakeLanguage(likelihoods=likelihoods), TEXTS[:3], consistent=False)


class _Broken(FakeLanguage):
    """Breaks one promise."""

    def __init__(self, promise: str) -> None:
        super().__init__()
        self.promise = promise

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        found = super().complete(asks)
        if self.promise == "alone" and len(asks) == 1:
            found = [msgspec.structs.replace(found[0], text=found[0].text + "!")]
        if self.promise == "order":
            found = [msgspec.structs.replace(one, text=f"{i}") for i, one in enumerate(found)]
        if self.promise == "error":
            found = [msgspec.structs.replace(one, error="no") for one in found]
        return found[: len(found) - (self.promise == "count")]

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        found = super().likelihoods(asked)
        shift = {"positive": 9.0, "batch": -0.1 * len(asked)}.get(self.promise, 0.0)
        return [msgspec.structs.replace(one, logprob=one.logprob + shift) for one in found]

    def render(self, messages: Any, *, answer_prefix: str = "") -> str:
        found = super().render(messages, answer_prefix=answer_prefix)
        return found.removesuffix(answer_prefix) if self.promise == "prefix" else found


@pytest.mark.parametrize(
    ("promise", "message"),
    [
        ("alone", "the same alone and in a batch"),
        ("order", "must not depend on the order"),
        ("error", "every text must get a completion, got error 'no'"),
        ("count", "requests must give as many"),
        ("positive", "a log-probability must be <= 0"),
        ("batch", "log-probabilities must agree within .* alone and in a batch"),
        ("prefix", "must end with the answer's prefix"),
    ],
)
def test_a_broken_promise_is_found(promise: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_language_model(_Broken(promise), consistent=False)


def test_an_engine_that_contradicts_itself_is_found(tiny: Candidate) -> None:
    engine = CausalEngine(tiny)
    honest = engine.likelihoods
    engine.likelihoods = lambda asked: [  # type: ignore[method-assign]
        msgspec.structs.replace(one, logprob=one.logprob - 0.5) for one in honest(asked)
    ]
    with pytest.raises(AssertionError, match=r"as likely as was said, got 0\.5 apart"):
        check_language_model(engine, TEXTS[:6])
