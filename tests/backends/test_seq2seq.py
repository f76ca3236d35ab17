"""The encoder reads once what is asked about many times, and nothing changes by it."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jettison import registry
from jettison.backends.open import open_model
from jettison.backends.seq2seq import Seq2SeqEngine, open_seq2seq
from jettison.candidate import Candidate, write_candidate
from jettison.errors import InvalidInput, Unsupported
from jettison.language import Ask, Continuation
from jettison.task import Question
from jettison.testing import check_backend, check_language_model
from tiny import make_tiny_development, make_tiny_language

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TEXTS = [example.input for example in make_tiny_development(train=60, dev=10, unlabelled=0).train]


@pytest.fixture(scope="module", params=["t5", "bart"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder-decoder with random weights; its tokenizer ends every text with a token."""
    import torch
    from tokenizers import processors
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartConfig, T5Config

    made = make_tiny_language(tmp_path_factory.mktemp("s2s") / request.param, TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(made)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", pair="$A $B <|end|>", special_tokens=[("<|end|>", 2)]
    )
    tokenizer.chat_template = None
    tokenizer.save_pretrained(made)
    (made / "chat_template.jinja").unlink(missing_ok=True)
    shape = {"vocab_size": len(tokenizer), "d_model": 32, "pad_token_id": 0, "eos_token_id": 2}
    torch.manual_seed(0)
    if request.param == "t5":
        config = T5Config(d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0, **shape)
    else:
        config = BartConfig(
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=128,
            decoder_start_token_id=2,
            bos_token_id=1,
            init_std=0.3,
            **shape,
        )
    AutoModelForSeq2SeqLM.from_config(config).eval().save_pretrained(made)
    return made


def candidate(folder: Path, **settings: object) -> Candidate:
    # The references are float32; on a GPU `auto` would be bfloat16.
    settings = {"dtype": "float32", **settings}
    return write_candidate(folder, name="tiny", backend="hf_seq2seq", labels=(), settings=settings)


@cache
def reference(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def plain_logprob(folder: Path, context: str, text: str) -> tuple[float, bool]:
    """One pass for one continuation, the model shifting the labels itself."""
    import torch

    model, tokenizer = reference(folder)
    read = torch.tensor([tokenizer.encode(context)])
    labels = tokenizer.encode(text, add_special_tokens=False)
    with torch.inference_mode():
        logits = model(input_ids=read, labels=torch.tensor([labels])).logits[0]
    logprobs = torch.log_softmax(logits, -1)
    taken = sum(float(logprobs[i, token]) for i, token in enumerate(labels))
    return taken, logprobs.argmax(-1).tolist() == labels


def test_it_keeps_the_promises_of_an_engine_and_of_a_backend(folder: Path) -> None:
    check_language_model(Seq2SeqEngine(candidate(folder)), TEXTS[:3], consistent=False)
    prompt = {"template": "Text: {input}\nLabel:", "chat": False}
    settings = {"kind": "classify", "prompt": prompt, "dtype": "float32"}
    labels = ("music", "alarm")
    check_backend(
        write_candidate(folder, name="t", backend="hf_seq2seq", labels=labels, settings=settings), TEXTS[:3]
    )


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_likelihoods_are_those_of_plain_passes(folder: Path, batch_size: int) -> None:
    engine = Seq2SeqEngine(candidate(folder, batch_size=batch_size))
    endings = ("yes", " no", "music again and again", ".")
    asked = [Continuation(context=c, text=t) for c in [*TEXTS[:5], "", "a"] for t in endings]
    found = engine.likelihoods(asked)
    wanted = [plain_logprob(folder, one.context, one.text) for one in asked]
    np.testing.assert_allclose([f.logprob for f in found], [w[0] for w in wanted], atol=1e-4)
    assert [f.greedy for f in found] == [w[1] for w in wanted]


def test_the_encoder_reads_a_context_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Seq2SeqEngine(candidate(folder))
    rows: list[int] = []
    encoder = engine._model.get_encoder()
    forward = encoder.forward

    def counted(*given: object, input_ids: Any = None, **more: object) -> object:
        rows.append(len(input_ids))
        return forward(*given, input_ids=input_ids, **more)

    monkeypatch.setattr(encoder, "forward", counted)
    engine.likelihoods([Continuation(context=c, text=t) for c in TEXTS[:3] for t in ("a", "b", "c", "d")])
    assert sum(rows) == 3


def test_greedy_completions_are_those_of_generate(folder: Path) -> None:
    model, tokenizer = reference(folder)
    engine = Seq2SeqEngine(candidate(folder, batch_size=3))
    prompts = [*TEXTS[:5], "a", ""]
    answers = engine.complete([Ask(text=text, max_tokens=12) for text in prompts])
    for text, answer in zip(prompts, answers, strict=True):
        ids = tokenizer(text, return_tensors="pt").input_ids
        made = model.generate(ids, attention_mask=ids * 0 + 1, max_new_tokens=12, do_sample=False)
        assert answer.text == tokenizer.decode(made[0], skip_special_tokens=True)
        assert answer.cost.prompt_tokens == ids.shape[1]
        assert len(answer.token_logprobs) == max(1, answer.cost.completion_tokens)


def test_a_context_that_is_too_long_loses_its_beginning(folder: Path) -> None:
    engine = Seq2SeqEngine(candidate(folder, max_context=6))
    assert len(engine._tokens.encode([TEXTS[1]])[0]) >= 5
    one, same = (
        engine.likelihoods([Continuation(context=f"{TEXTS[i]} " * 20 + TEXTS[1], text="yes")])[0]
        for i in (0, 2)
    )
    assert one.n_context_tokens == 6
    assert one.logprob == pytest.approx(same.logprob)
    with pytest.raises(InvalidInput, match=r"a continuation must be 1 to 6 tokens long, got \d+"):
        engine.likelihoods([Continuation(context="a", text=TEXTS[0] * 20)])


def test_choices_are_answered_through_the_registry(folder: Path) -> None:
    registry.register("backends", "hf_seq2seq", open_seq2seq)
    model = open_model(candidate(folder, kind="choose"))
    [output] = model.predict([Question(text="is it day?", choices=("yes", "no"))])
    wanted = [plain_logprob(folder, "is it day?", f" {choice}")[0] for choice in ("yes", "no")]
    np.testing.assert_allclose(output.logits, wanted, atol=1e-4)
    with pytest.raises(Unsupported, match="answers nothing"):
        model.engine.logits(["a text"])
    model.close()
