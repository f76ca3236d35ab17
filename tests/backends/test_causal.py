"""Shared computation changes nothing: likelihoods and completions are those of plain passes."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from jettison.backends.causal import CausalEngine
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.errors import InvalidInput
from jettison.language import Ask, Continuation
from jettison.task import Question
from jettison.task.prompt import Message, Prompt, Shot
from tiny import make_tiny_development, make_tiny_language

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TEXTS = [example.input for example in make_tiny_development(train=60, dev=10, unlabelled=0).train]
SHARED = "Here are some questions and answers.\nQ: is it day? A: yes\nQ: is it night? A: no\nQ: "


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_language(tmp_path_factory.mktemp("lm") / request.param, TEXTS, kind=request.param)


def candidate(folder: Path, **settings: object) -> Candidate:
    labels = settings.pop("labels", ())
    # The references are float32; on a GPU `auto` would be bfloat16.
    settings = {"dtype": "float32", **settings}
    return write_candidate(folder, name="tiny", backend="hf_causal", labels=labels, settings=settings)


@cache
def reference(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def plain_logprob(folder: Path, context: str, text: str) -> tuple[float, bool]:
    """One unpadded pass for one continuation, as lm-evaluation-harness reads it off."""
    import torch

    model, tokenizer = reference(folder)
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces:
        context, text = context[:-n_spaces], context[-n_spaces:] + text
    whole = tokenizer.encode(context + text, add_special_tokens=False)
    n = len(tokenizer.encode(context, add_special_tokens=False))
    if n == 0:
        whole, n = [tokenizer.bos_token_id, *whole], 1
    with torch.inference_mode():
        logprobs = torch.log_softmax(model(torch.tensor([whole])).logits[0].float(), -1)
    taken = [logprobs[i - 1, whole[i]].item() for i in range(n, len(whole))]
    best = [int(logprobs[i - 1].argmax()) == whole[i] for i in range(n, len(whole))]
    return sum(taken), all(best)


def plain_next(folder: Path, text: str) -> np.ndarray:
    import torch

    model, tokenizer = reference(folder)
    ids = tokenizer.encode(text, add_special_tokens=False)
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0, -1]
    return torch.log_softmax(logits.float(), -1).numpy()


def asked() -> list[Continuation]:
    contexts = [f"{SHARED}{text}" for text in TEXTS[:5]] + [SHARED + "short A:", "wholly different"]
    found = [
        Continuation(context=c, text=t) for c in contexts for t in (" yes", " no", " music again", ".")
    ]
    return [
        *found,
        Continuation(context="ends in a space ", text="yes"),
        Continuation(context="", text="no"),
    ]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_likelihoods_are_those_of_plain_passes(folder: Path, batch_size: int) -> None:
    engine = CausalEngine(candidate(folder, batch_size=batch_size))
    found = engine.likelihoods(asked())
    wanted = [plain_logprob(folder, one.context, one.text) for one in asked()]
    np.testing.assert_allclose([f.logprob for f in found], [w[0] for w in wanted], atol=1e-4)
    assert [f.greedy for f in found] == [w[1] for w in wanted]


@pytest.fixture
def counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[CausalEngine, list[int]]:
    """An engine, and the number of tokens of each pass it makes."""
    engine = CausalEngine(candidate(folder))
    assert engine._packs
    n_tokens: list[int] = []
    forward = engine._model.forward

    def counting(*given: object, input_ids: object = None, **more: object) -> object:
        n_tokens.append(input_ids.numel())
        return forward(*given, input_ids=input_ids, **more)

    monkeypatch.setattr(engine._model, "forward", counting)
    return engine, n_tokens


def test_every_token_is_computed_once(counted: tuple[CausalEngine, list[int]]) -> None:
    engine, n_tokens = counted
    requests = [
        Continuation(context=f"{SHARED}{text} A:", text=choice)
        for text in TEXTS[:8]
        for choice in (" yes", " yes it is", " yes it was", " no")
    ]
    engine.likelihoods(requests)
    # All beginnings of what is read (an ending's last token is not), each once.
    pairs = engine._tokens.pairs(requests)
    read = [(*pair.context, *pair.ending[:-1]) for pair in pairs]
    assert sum(n_tokens) == len({ids[:n] for ids in read for n in range(1, len(ids) + 1)})


def test_a_preamble_is_computed_once_for_many_calls(counted: tuple[CausalEngine, list[int]]) -> None:
    engine, n_tokens = counted
    calls = [[Continuation(context=f"{SHARED}{text} A:", text=" yes")] for text in TEXTS[:6]]
    spread = [found.logprob for call in calls for found in engine.likelihoods(call)]
    preamble = len(engine.token_ids(SHARED))
    # The second call sees what it shares with the first; from the third on it is there.
    assert min(n_tokens[:1]) > preamble > 2 * max(n_tokens[3:])
    together = engine.likelihoods([one for call in calls for one in call])
    np.testing.assert_allclose(spread, [one.logprob for one in together], atol=1e-4)


@pytest.mark.parametrize("kind", ["mistral", "mamba"])
def test_layers_that_cannot_be_packed_get_plain_passes(tmp_path: Path, kind: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, MambaConfig, MistralConfig

    folder = make_tiny_language(tmp_path / kind, TEXTS)
    shape = {"vocab_size": 500, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.3}
    shape |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = (
        MambaConfig(state_size=4, **shape)
        if kind == "mamba"
        else MistralConfig(
            intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, sliding_window=6, **shape
        )
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).eval().save_pretrained(folder)
    engine = CausalEngine(candidate(folder, max_context=200))
    assert not engine._packs
    requests = asked()[:8]
    wanted = [plain_logprob(folder, one.context, one.text)[0] for one in requests]
    np.testing.assert_allclose([f.logprob for f in engine.likelihoods(requests)], wanted, atol=1e-4)


def test_one_beginning_of_sequence_token_and_no_more(folder: Path, tmp_path: Path) -> None:
    import shutil

    from tokenizers import processors
    from transformers import AutoTokenizer

    adding = shutil.copytree(folder, tmp_path / "adding")
    tokenizer = AutoTokenizer.from_pretrained(adding)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|start|> $A", pair="<|start|> $A $B", special_tokens=[("<|start|>", 1)]
    )
    tokenizer.save_pretrained(adding)
    ids = CausalEngine(candidate(folder)).token_ids("play music")
    assert 1 not in ids
    engine = CausalEngine(candidate(adding))
    assert engine.token_ids("play music") == [1, *ids]
    assert engine.token_ids("<|start|>play music") == [1, *ids]
    assert CausalEngine(candidate(adding, add_bos=False)).token_ids("play music") == ids
    [pair] = engine._tokens.pairs([Continuation(context="play", text=" music")])
    assert [*pair.context, *pair.ending] == [1, *ids]
    assert CausalEngine(candidate(folder, add_bos=True)).token_ids("play music") == [1, *ids]


def test_a_continuation_longer_than_the_model_is_refused(folder: Path) -> None:
    engine = CausalEngine(candidate(folder, max_context=16))
    with pytest.raises(InvalidInput, match=r"must be 1 to 16 tokens long, got \d+ of"):
        engine.likelihoods([Continuation(context="a", text=" yes" * 40)])
    with pytest.raises(InvalidInput, match=r"must be 1 to 16 tokens long, got 0 of ''"):
        engine.likelihoods([Continuation(context="a", text="")])
    [long] = engine.likelihoods([Continuation(context="wake me " * 40, text=" yes")])
    assert long.n_context_tokens == 16 + 1 - long.n_tokens


def test_greedy_completions_are_those_of_generate(folder: Path) -> None:
    model, tokenizer = reference(folder)
    engine = CausalEngine(candidate(folder, batch_size=3))
    prompts = [f"{SHARED}{text} A:" for text in TEXTS[:4]] + ["short", "a"]
    answers = engine.complete([Ask(text=text, max_tokens=12) for text in prompts])
    for text, answer in zip(prompts, answers, strict=True):
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        made = model.generate(
            ids, attention_mask=ids * 0 + 1, max_new_tokens=12, do_sample=False, pad_token_id=0
        )
        wanted = tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
        assert answer.text == wanted
        assert answer.cost.prompt_tokens == ids.shape[1]
        assert answer.cost.completion_tokens == len(answer.token_logprobs)


def test_a_stop_string_ends_an_answer_before_it(folder: Path) -> None:
    engine = CausalEngine(candidate(folder))
    whole = engine.complete([Ask(text=SHARED, max_tokens=16)])[0].text
    stop = whole[4:6]
    cut = engine.complete([Ask(text=SHARED, max_tokens=16, stop=(stop,))])[0]
    assert cut.text == whole[: whole.find(stop)]
    assert cut.finish == "stop"


def test_sampling_depends_on_its_seed_and_not_on_its_neighbours(folder: Path) -> None:
    engine = CausalEngine(candidate(folder))
    asks = [Ask(text=SHARED, max_tokens=10, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    greedy = Ask(text=SHARED + "wake", max_tokens=10)
    one, same, other, plain = engine.complete([*asks, greedy])
    assert one.text == same.text != other.text
    assert engine.complete([asks[2]])[0].text == other.text
    assert engine.complete([greedy])[0].text == plain.text


def test_sampling_draws_from_the_softmax(folder: Path) -> None:
    engine = CausalEngine(candidate(folder, batch_size=500))
    asks = [Ask(text=SHARED, max_tokens=1, temperature=2.0, seed=seed) for seed in range(1000)]
    drawn = [answer.token_logprobs[0] for answer in engine.complete(asks)]
    logprobs = plain_next(folder, SHARED)
    shares = np.exp(logprobs / 2) / np.exp(logprobs / 2).sum()
    best = int(logprobs.argmax())
    hits = sum(abs(one - logprobs[best]) < 1e-4 for one in drawn)
    assert binomtest(hits, 1000, float(shares[best])).pvalue > 1e-4


def test_an_answer_knows_its_tokens_and_when_the_first_came(folder: Path) -> None:
    engine = CausalEngine(candidate(folder))
    answer = engine.complete([Ask(text=SHARED, max_tokens=5)])[0]
    logprobs = plain_next(folder, SHARED)
    np.testing.assert_allclose(answer.token_logprobs[0], logprobs.max(), atol=1e-4)
    np.testing.assert_allclose(max(answer.top_logprobs.values()), logprobs.max(), atol=1e-4)
    assert 0 < answer.cost.first_token_s <= answer.cost.latency_s
    failed = engine.complete([Ask(text=SHARED, max_tokens=5000)])[0]
    assert "max_tokens must leave room" in failed.error


def test_logits_are_normalised_next_token_probabilities(folder: Path) -> None:
    engine = CausalEngine(candidate(folder))
    found = engine.logits([SHARED])[0]
    assert found.shape[0] == len(engine.token_ids(SHARED)) - 1
    np.testing.assert_allclose(np.exp(found).sum(1), 1.0, rtol=1e-4)


def test_the_chat_template_is_the_models_own(folder: Path) -> None:
    engine = CausalEngine(candidate(folder))
    rendered = engine.render([Message(role="user", content="hi")], answer_prefix="Label:")
    assert rendered == "<|start|>user\nhi<|end|>\n<|start|>assistant\nLabel:"


def test_labels_and_choices_are_weighed_by_their_likelihood(folder: Path) -> None:
    prompt = {
        "template": "Text: {input}\nLabel, one of {labels}:",
        "shots": [{"input": "play a song", "answer": "music"}],
        "chat": False,
    }
    model = open_model(candidate(folder, labels=("music", "alarm"), prompt=prompt))
    output = model.predict(["wake me at six"])[0]
    context = Prompt(
        template=prompt["template"], shots=(Shot(input="play a song", answer="music"),), chat=False
    ).text("wake me at six", labels=("music", "alarm"))
    wanted = [plain_logprob(folder, context, f" {label}")[0] for label in ("music", "alarm")]
    np.testing.assert_allclose(output.logits, wanted, atol=1e-4)
    assert output.label == ("music", "alarm")[int(np.argmax(wanted))]

    chooser = open_model(candidate(folder, kind="choose", prompt={"chat": False}))
    questions = [Question(text="Q: is it day? A:", choices=("yes", "no", "who knows"))]
    chosen = chooser.predict(questions)[0]
    wanted = [plain_logprob(folder, "Q: is it day? A:", f" {c}")[0] for c in questions[0].choices]
    np.testing.assert_allclose(chosen.logits, wanted, atol=1e-4)
    assert chosen.label == questions[0].choices[int(np.argmax(wanted))]
