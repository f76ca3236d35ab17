"""Shared computation changes nothing: likelihoods and completions are those of plain passes."""

from pathlib import Path

import numpy as np
import pytest

from jettison.backends.causal import CausalEngine
from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
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
    return write_candidate(folder, name="tiny", backend="hf_causal", labels=labels, settings=settings)


def plain_logprob(folder: Path, context: str, text: str) -> tuple[float, bool]:
    """One unpadded pass for one continuation, as lm-evaluation-harness reads it off."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
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


def test_a_prefix_that_all_share_is_computed_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = CausalEngine(candidate(folder))
    n_tokens: list[int] = []
    forward = engine._model.forward

    def counted(*given: object, input_ids: object = None, **more: object) -> object:
        n_tokens.append(input_ids.numel())
        return forward(*given, input_ids=input_ids, **more)

    monkeypatch.setattr(engine._model, "forward", counted)
    requests = [Continuation(context=f"{SHARED}{text}", text=" yes") for text in TEXTS[:8]]
    shared = engine.likelihoods(requests)
    with_sharing = sum(n_tokens)
    n_tokens.clear()
    engine._shares = False
    alone = engine.likelihoods(requests)
    assert with_sharing < 0.5 * sum(n_tokens)
    np.testing.assert_allclose([s.logprob for s in shared], [a.logprob for a in alone], atol=1e-4)


def test_greedy_completions_are_those_of_generate(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
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


def test_sampling_repeats_with_its_seed(folder: Path) -> None:
    engine = CausalEngine(candidate(folder))
    asks = [Ask(text=SHARED, max_tokens=10, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    one, same, other = (engine.complete([ask])[0].text for ask in asks)
    assert one == same != other


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
