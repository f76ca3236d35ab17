"""GGUF files say what the checkpoint says, keep to its tokens, and get smaller."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison.backends.causal import CausalEngine
from jettison.backends.llamacpp import LlamaCppEngine
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.compress.step import step_from
from jettison.compress.to_gguf import IMPORTANCE, mean_squared_inputs
from jettison.errors import BrokenArtifact, InvalidInput, ParityFailed, StepFailed
from jettison.language import Ask, Continuation
from jettison.task import Example
from jettison.task.prompt import Message, Prompt, Shot
from jettison.testing import check_backend, check_language_model, check_step
from language_steps import DATA, TEXTS, apply, context_in, language_candidate, save_changed

pytest.importorskip("xllamacpp")
pytest.importorskip("gguf")
TO = {"step": "to_gguf", "precision": "float32", "n_importance": 16, "n_texts": 2}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = tmp_path_factory.mktemp("gguf") / "whole"
    return language_candidate(folder, kind=request.param, hidden=64)


@pytest.fixture(scope="module")
def exact(whole: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return apply(tmp_path_factory.mktemp("made"), whole, TO)


def test_it_answers_as_the_checkpoint(whole: Candidate, exact: Candidate) -> None:
    asked = [
        Continuation(context=f"Text: {text}\nLabel:", text=f" {label}")
        for text in TEXTS[:4]
        for label in DATA.labels
    ]
    ours, theirs = LlamaCppEngine(exact), CausalEngine(whole)
    for a, b in zip(ours.likelihoods(asked), theirs.likelihoods(asked), strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=0.02)  # keys and values are held in 16 bits
        assert (a.n_tokens, a.n_context_tokens) == (b.n_tokens, b.n_context_tokens)
    for a, b in zip(ours.logits(TEXTS[:1]), theirs.logits(TEXTS[:1]), strict=True):
        np.testing.assert_allclose(a, b, atol=0.05)
    asks = [Ask(text=text, max_tokens=6) for text in TEXTS[:3]]
    asks.append(Ask(messages=(Message(role="user", content="show me"),), max_tokens=4))
    for a, b in zip(ours.complete(asks), theirs.complete(asks), strict=True):
        # llama.cpp writes a mark in the midst of an answer out, transformers leaves it away.
        said = a.text.replace("<|start|>", "")
        assert (said, a.cost.prompt_tokens) == (b.text, b.cost.prompt_tokens)
    ours.close()


def test_engine_and_backend_keep_their_promises(exact: Candidate) -> None:
    check_language_model(LlamaCppEngine(exact), TEXTS[:2], tolerance=0.02)
    # A tiny model on a text it has never seen: 16-bit keys and values move a label's weight by a hundredth.
    check_backend(exact, TEXTS[:3], tolerance=0.02)
    assert exact.backend == "llamacpp"


def test_answers_are_held_to_choices_and_schemas(exact: Candidate) -> None:
    engine = LlamaCppEngine(exact)
    choices = ('say "yes"', "no\\never", "ja\nnein")
    assert engine.complete([Ask(text="well", choices=choices, max_tokens=60)])[0].text in choices
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
    schema["additionalProperties"] = False
    (answer,) = engine.complete([Ask(text="well", json_schema=schema, max_tokens=60)])
    assert json.loads(answer.text) in ({"n": 1}, {"n": 2})
    for unreadable in ({"$ref": "#/nowhere"}, {"type": "nonsense"}):
        (answer,) = engine.complete([Ask(text="well", json_schema=unreadable)])
        assert "llama.cpp cannot hold answers to the schema" in str(answer.error)
    engine.close()


def test_a_prompt_held_to_a_schema_needs_no_shots(exact: Candidate, tmp_path: Path) -> None:
    examples = tuple(
        Example(id=str(i), input=text, expected='{"ok":true}') for i, text in enumerate(TEXTS[:2] * 20)
    )
    data = replace(
        DATA, kind="extract", labels=(), train=examples[:4], dev=examples, scorers=("json_valid",)
    )
    prompt = Prompt(shots=(Shot(input="a", answer='{"ok":true}'),), chat=False, max_tokens=60)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.gguf").write_bytes((exact.path / "model.gguf").read_bytes())
    settings = {"kind": "extract", "prompt": msgspec.to_builtins(prompt)}
    asking = write_candidate(tmp_path / "m", name="m", backend="llamacpp", labels=(), settings=settings)
    slim = apply(tmp_path, asking, {"step": "prompt", "n_examples": 10}, data=data)
    notes = slim.lineage[-1].notes
    # Weights drawn at random write no JSON, until a grammar leaves them no choice.
    assert (notes["dev_fit_score_before"], notes["dev_fit_score"]) == (0.0, 1.0)
    assert [trial["tried"] for trial in notes["trials"]][:2] == [
        "answers held to the schema of train's",
        "0 shots",
    ]
    assert "shots" not in slim.settings["prompt"]
    # Between the marks a grammar leaves room for space, which such weights take: the limit is not lowered.
    assert slim.settings["prompt"]["max_tokens"] == 60
    assert notes["answer_limit"]["kept"] == 60
    model = open_model(slim)
    answers = [json.loads(output.label) for output in model.predict(TEXTS[:3])]
    model.close()
    assert all(set(answer) == {"ok"} and isinstance(answer["ok"], bool) for answer in answers)


def test_log_probabilities_are_left_away_where_nobody_wants_them(exact: Candidate) -> None:
    bare = msgspec.structs.replace(exact, settings={**exact.settings, "logprobs": False})
    ours, theirs = LlamaCppEngine(bare), LlamaCppEngine(exact)
    ((one,), (other,)) = (engine.complete([Ask(text=TEXTS[0], max_tokens=5)]) for engine in (ours, theirs))
    assert one.text == other.text
    assert (one.token_logprobs, one.top_logprobs) == (None, None)
    assert other.token_logprobs is not None
    asked = [Continuation(context="show", text=" me")]
    assert ours.likelihoods(asked)[0].logprob == pytest.approx(theirs.likelihoods(asked)[0].logprob)
    with pytest.raises(InvalidInput, match=r"a continuation must be 1 to .* tokens long, got 0"):
        ours.likelihoods([Continuation(context="show", text="")])
    ours.close()
    theirs.close()


# Rows of 64 do not divide into blocks of 256: the k-quants take other formats in their place.
@pytest.mark.parametrize(("kind", "bits"), [("Q8_0", 8.5), ("Q5_K_M", 6), ("Q3_K_M", 4.5), ("Q4_0", 4.5)])
def test_fewer_bits_take_less_room_and_answer_about_alike(
    whole: Candidate, exact: Candidate, kind: str, bits: float, tmp_path: Path
) -> None:
    small = apply(tmp_path, exact, {"step": "quantize_gguf", "type": kind}, incumbent=whole)
    assert small.artifact_bytes < exact.artifact_bytes
    assert small.lineage[-1].notes["importance"] is True
    assert not (small.path / IMPORTANCE).exists()
    reference, found = (open_model(c).predict(TEXTS[:10]) for c in (exact, small))
    away = np.mean([np.abs(a.logits - b.logits).mean() for a, b in zip(reference, found, strict=True)])
    assert 0 < away < (0.5 if bits > 8 else 3.0)


def test_the_steps_keep_their_promises(whole: Candidate, exact: Candidate, tmp_path: Path) -> None:
    check_step(step_from(TO), whole, context_in(tmp_path, whole), texts=TEXTS[:2])
    step = step_from({"step": "quantize_gguf", "type": "Q8_0"})
    check_step(step, exact, context_in(tmp_path, whole), texts=TEXTS[:2])


def test_importance_is_the_mean_square_of_what_a_layer_reads() -> None:
    import torch

    torch.manual_seed(0)
    table, layer = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 2)

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.layer = table, layer

        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return self.layer(self.table(input_ids))

    rows = [[0, 1], [4, 2, 2]]
    read = table.weight.detach()[[0, 1, 4, 2, 2]].numpy()
    found = mean_squared_inputs(Tiny(), rows)
    np.testing.assert_allclose(found["layer"], (read**2).mean(0), rtol=1e-6)


def test_what_cannot_be_converted_is_said(exact: Candidate, tmp_path: Path) -> None:
    gpt2 = language_candidate(tmp_path / "gpt2", kind="gpt2")
    with pytest.raises(
        StepFailed, match=r"must have a family of \[.*\] to become a GGUF file here, got 'gpt2'"
    ):
        apply(tmp_path, gpt2, TO)
    with pytest.raises(StepFailed, match="must start from a candidate of backend 'hf_causal'"):
        apply(tmp_path, exact, TO)
    with pytest.raises(
        StepFailed, match=r"must start from a candidate of backend 'llamacpp'.*Put `to_gguf`"
    ):
        apply(tmp_path, gpt2, {"step": "quantize_gguf"})


def test_a_file_that_answers_otherwise_is_refused(whole: Candidate, tmp_path: Path, monkeypatch) -> None:
    from jettison.compress import gguf_write

    def turn(model: object) -> None:
        norm = model.model.norm.weight.data  # type: ignore[attr-defined]
        norm[: len(norm) // 2] *= 3

    other = save_changed(whole, tmp_path / "other", turn)
    written = gguf_write.write_gguf

    def write_wrong(candidate, tensors, path, *, precision):  # type: ignore[no-untyped-def]
        tensors = {**tensors, "model.norm.weight": np.ones_like(tensors["model.norm.weight"])}
        return written(candidate, tensors, path, precision=precision)

    monkeypatch.setattr("jettison.compress.to_gguf.write_gguf", write_wrong)
    with pytest.raises(ParityFailed, match="the GGUF file must answer as other does"):
        apply(tmp_path, other, TO)


def test_a_trimmed_tokenizer_is_taken_although_no_list_of_tokenizers_knows_it(tmp_path: Path) -> None:
    """llama.cpp's converter knows tokenizers by a hash, and refuses one whose tokens left (issue 27277)."""
    kept = language_candidate(tmp_path / "kept", hidden=64)
    trimmed = apply(tmp_path, kept, {"step": "trim_vocabulary"})
    made = apply(tmp_path, trimmed, TO)
    assert made.lineage[-1].notes["next_token_divergence"] < 0.01


def test_a_file_that_cuts_text_into_other_tokens_is_refused(
    whole: Candidate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a runtime takes the tokenizer's class for its rules and puts a token in front."""
    own = LlamaCppEngine.token_ids
    monkeypatch.setattr(LlamaCppEngine, "token_ids", lambda self, text: [0, *own(self, text)])
    with pytest.raises(ParityFailed, match=r"must cut text into the tokens of .*, got others on"):
        apply(tmp_path, whole, TO)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"PK\x03\x04 a zip" + bytes(64), "must be a GGUF file, got one that begins with b'PK"),
        (b"GGUF\x01\x00\x00\x00" + bytes(64), "must be of GGUF version 2 or 3, got version 1"),
        (b"GGUF\x03\x00\x00\x00" + bytes(64), "must be one that names its architecture, got none"),
    ],
)
def test_a_broken_file_is_said(content: bytes, rule: str, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(content)
    broken = write_candidate(tmp_path, name="b", backend="llamacpp", labels=("a", "b"), settings={})
    with pytest.raises(BrokenArtifact, match=rule):
        open_model(broken)


def test_a_file_that_was_cut_off_is_said(exact: Candidate, tmp_path: Path) -> None:
    content = (exact.path / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(content[: len(content) // 2])
    broken = write_candidate(tmp_path, name="b", backend="llamacpp", labels=("a", "b"), settings={})
    with pytest.raises(BrokenArtifact, match=r"must be whole, got tensor '.*' up to byte"):
        open_model(broken)
