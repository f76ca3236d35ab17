"""Makers in environments of their own; llm-compressor itself where it is set up."""

import json
import os
import venv
from pathlib import Path

import pytest

from jettison.backends.open import open_model
from jettison.compress.causal import load_causal
from jettison.compress.maker import MAKERS, Maker, maker_version, run_maker
from jettison.compress.makers.llmcompressor_oneshot import fitting_group
from jettison.compress.step import apply_step, step_from
from jettison.errors import InvalidInput, MissingExtra, StepFailed
from jettison.files import read_json
from jettison.loop.doctor import examine
from jettison.testing import check_step
from language_steps import TEXTS, apply, context_in, language_candidate

LLMCOMPRESSOR = MAKERS["llmcompressor"]
IS_SET_UP = maker_version(LLMCOMPRESSOR) is not None
needs_maker = pytest.mark.skipif(not IS_SET_UP, reason="llm-compressor's environment is not set up")


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """An environment without any package, and a script that tells what it was given."""
    monkeypatch.setenv("JETTISON_MAKERS", str(tmp_path / "makers"))
    venv.create(tmp_path / "makers" / "bare", with_pip=False)
    script = tmp_path / "tell.py"
    script.write_text(
        "import json, os, sys\n"
        "request = json.load(open(sys.argv[1]))\n"
        "if request.get('fails'): print('noise', file=sys.stderr); sys.exit('no such layer')\n"
        "if request.get('sleeps'): import time; time.sleep(30)\n"
        "told = {'request': request, 'path': sys.path, 'environment': dict(os.environ)}\n"
        "json.dump(told, open(request['out'], 'w'))\n"
    )
    return Maker("bare", "no-such-package", "1", str(script), "none")


def test_a_maker_is_given_the_request_and_no_secret_of_ours(maker, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    run_maker(maker, {"out": str(tmp_path / "told.json"), "n": 3})
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["request"]["n"] == 3
    assert "sk-secret" not in json.dumps(told)
    assert not {"/ours", os.getcwd(), str(tmp_path)} & set(told["path"])
    assert told["environment"]["HF_HUB_OFFLINE"] == "1"


def test_a_maker_that_fails_says_why_and_one_that_hangs_is_stopped(maker):
    with pytest.raises(StepFailed, match='bare failed: "no such layer"'):
        run_maker(maker, {"fails": True})
    with pytest.raises(StepFailed, match="must end within 1 s"):
        run_maker(maker, {"sleeps": True}, timeout_s=1)
    assert maker_version(maker) is None


def test_without_its_environment_the_step_and_doctor_say_how_to_make_one(tmp_path, monkeypatch):
    pytest.importorskip("compressed_tensors")
    monkeypatch.setenv("JETTISON_MAKERS", str(tmp_path / "makers"))
    candidate = language_candidate(tmp_path / "tiny")
    with pytest.raises(
        MissingExtra, match=r"not set up: `python -m venv .*pip install llmcompressor=="
    ) as told:
        apply(tmp_path / "made", candidate, {"step": "quantize_compressed"})
    assert str(tmp_path / "makers") in str(told.value)
    [finding] = [f for f in examine() if f.what == "maker: llmcompressor"]
    assert finding.ok is False
    assert "quantize_compressed cannot run" in finding.detail


@needs_maker
@pytest.mark.slow
@pytest.mark.parametrize(
    "step",
    [
        {"method": "gptq", "group_size": 32},
        {"method": "awq"},
        {"method": "round", "scheme": "W8A16"},
        {"method": "round", "scheme": "W8A8"},
        {"method": "sparse"},
    ],
    ids=lambda step: "-".join(map(str, step.values())),
)
def test_a_tiny_model_is_made_smaller_and_answers_about_as_before(step, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    candidate = language_candidate(tmp_path / "tiny", hidden=64)
    given = step_from({"step": "quantize_compressed", "n_texts": 16, **step})
    context = context_in(tmp_path, candidate)
    if step["method"] == "round":  # the promises of every step; the other methods differ in the maker alone
        made = check_step(given, candidate, context)
    else:
        made = apply_step(given, candidate, context, cache=tmp_path / "cache")
    config = read_json(made.path / "config.json", dict)
    assert made.backend == "hf_causal"
    if step["method"] == "sparse":
        weight = load_causal(made).model.layers[0].mlp.up_proj.weight
        assert ((weight.reshape(-1, 4) != 0).sum(dim=1) <= 2).all()
    else:
        assert config["quantization_config"]["quant_method"] == "compressed-tensors"
        assert made.artifact_bytes < candidate.artifact_bytes
        # Random weights take rounding harder than trained ones, and gain least by scales made for outliers.
        limit = {"round": 0.01, "awq": 1.0}.get(step["method"], 0.4)
        notes = made.lineage[-1].notes
        assert notes["next_token_divergence"] < limit
        # Nobody named a size but for gptq: of 64 and 128 values a layer reads, 64 is the largest that fits.
        fits = None if step.get("scheme") == "W8A8" else step.get("group_size", 64)
        assert notes["group_size"] == fits
    model = open_model(made)
    outputs = model.predict(TEXTS[:8])
    model.close()
    assert capfd.readouterr() == ("", "")
    assert all(output.error is None and output.label in made.labels for output in outputs)


@needs_maker
@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "step", "said"),
    [
        (
            {"hidden": 48},
            {},
            "must be a multiple of 32 for weights in groups, got .48, 96.. Take",
        ),
        (
            {"hidden": 64},
            {"group_size": 24},
            "must divide the width of every layer, got 24 for 64",
        ),
        ({"hidden": 64, "kind": "gpt2"}, {}, "GPT2LMHeadModel must have linear layers"),
    ],
    ids=["no group fits", "this group does not", "no linear layers"],
)
def test_what_llm_compressor_cannot_round_is_refused_in_one_line(shape, step, said, tmp_path):
    candidate = language_candidate(tmp_path / "tiny", **shape)
    with pytest.raises(StepFailed, match=said):
        apply(tmp_path / "made", candidate, {"step": "quantize_compressed", "n_texts": 8, **step})


def test_the_largest_group_that_divides_every_width_is_taken():
    # SmolLM2-135M's layers read 576 and 1,536 values: 128 divides 1,536 alone, 64 both.
    assert fitting_group([576, 1536], 128) == 64
    assert fitting_group([256, 1024], 128) == 128
    assert fitting_group([256, 1024], 64) == 64
    assert fitting_group([96, 256], 128) == 32
    with pytest.raises(SystemExit, match="must be a multiple of 32"):
        fitting_group([48, 96], 128)


def test_groups_where_there_are_none_are_refused():
    for other in ({"method": "sparse"}, {"scheme": "W8A8"}):
        with pytest.raises(InvalidInput, match="group_size of quantize_compressed must be left out with"):
            step_from({"step": "quantize_compressed", "group_size": 32, **other})
