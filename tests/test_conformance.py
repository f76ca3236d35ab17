"""Every built-in backend and step keeps the promises that `jettison.testing` checks."""

import ast
from pathlib import Path

import msgspec
import numpy as np
import pytest

from jettison import registry
from jettison.backends.open import open_model
from jettison.backends.text import TextClassifier
from jettison.candidate import Candidate, write_candidate
from jettison.compress.step import Step, StepContext, apply_step, step_from
from jettison.model import Output
from jettison.record import Record
from jettison.testing import check_backend, check_step
from jettison.testing import step as step_checks
from tiny import make_tiny_bert, make_tiny_development, tiny_candidate

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
DATA = make_tiny_development(train=60, dev=60, unlabelled=40)
TEXTS = [example.input for example in DATA.dev[:15]]
TESTS = Path(__file__).parent
BACKENDS_ELSEWHERE = {
    "embedder": "compress/test_embedder_steps.py",
    "fake_language": "backends/test_prompted.py",
    "hf_causal": "backends/test_engines.py",
    "hf_seq2seq": "backends/test_seq2seq.py",
    "onnx_genai": "backends/test_onnx_genai.py",
    "openvino_causal": "backends/test_openvino_causal.py",
    "llamacpp": "compress/test_gguf.py",
}
"""Checked where the models that they need are made."""
STEPS_ELSEWHERE = {
    "distill_answers": "compress/test_distill_answers.py",
    "distill_embedder": "compress/test_embedder_steps.py",
    "quantize_embedder": "compress/test_embedder_steps.py",
    "distill_language": "compress/test_distill_language.py",
    "encoder": "compress/test_encoder.py",
    "finetune_language": "compress/test_finetune_language.py",
    "prompt": "compress/test_slim_prompt.py",
    "prune_language": "compress/test_prune_language.py",
    "quantize_compressed": "compress/test_quantize_compressed.py",
    "quantize_genai": "backends/test_onnx_genai.py",
    "quantize_openvino_language": "backends/test_openvino_causal.py",
    "to_gguf": "compress/test_gguf.py",
    "quantize_gguf": "compress/test_gguf.py",
    "verify": "compress/test_cascade_language.py",
}
INT8 = 0.05
"""Tolerance where a runtime quantizes activations by what is in the batch."""


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    folder = tmp_path_factory.mktemp("hf") / "tiny"
    return tiny_candidate(make_tiny_bert(folder, DATA.labels, layers=2), DATA)


@pytest.fixture(scope="module")
def context(hf: Candidate, tmp_path_factory: pytest.TempPathFactory) -> StepContext:
    folder = tmp_path_factory.mktemp("context")
    (folder / "workspace").mkdir()
    return StepContext(data=DATA, incumbent=hf, folder=folder, workspace=folder / "workspace")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What checks leave in the system's temporary folder goes with the test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def fake(folder: Path, **settings: object) -> Candidate:
    folder.mkdir()
    (folder / "note.txt").write_text("a fixed function of the text")
    return write_candidate(
        folder, name=folder.name, backend="fake", labels=DATA.labels, out_of_scope="oos", settings=settings
    )


def made_by(context: StepContext, cache: Path, *steps: dict[str, object]) -> Candidate:
    candidate = context.incumbent
    for step in steps:
        candidate = apply_step(step_from(step), candidate, context, cache=cache)
    return candidate


def test_backend_fake_conforms(tmp_path: Path) -> None:
    check_backend(fake(tmp_path / "fake"), TEXTS)


def test_backend_hf_conforms(hf: Candidate) -> None:
    check_backend(hf, TEXTS)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_exported_backends_conform(target: str, context: StepContext, tmp_path: Path) -> None:
    check_backend(made_by(context, tmp_path, {"step": "export", "target": target}), TEXTS)


def test_backend_onnx_conforms_in_int8(context: StepContext, tmp_path: Path) -> None:
    check_backend(made_by(context, tmp_path, {"step": "quantize"}), TEXTS, tolerance=INT8)


@pytest.mark.parametrize("step", ["distill_static", "distill_linear"])
def test_student_backends_conform(step: str, context: StepContext, tmp_path: Path) -> None:
    check_backend(made_by(context, tmp_path, {"step": step}), TEXTS)


def test_backend_cascade_conforms(tmp_path: Path) -> None:
    from jettison.compress.cascade import make_cascade

    data = make_tiny_development(train=0, dev=1500, unlabelled=0)
    lean, large = fake(tmp_path / "lean", accuracy=0.99), fake(tmp_path / "large", margin=6.0)
    records = {c.name: _records(c, data) for c in (lean, large)}
    cascade = make_cascade(
        lean,
        large,
        data,
        cache=tmp_path / "cache",
        lean_records=records["lean"],
        fallback_records=records["large"],
        incumbent_records=records["large"],
        epsilon=0.05,
    )
    check_backend(cascade, TEXTS)


@pytest.mark.parametrize("backend", ["openai", "vllm"])
def test_endpoint_backends_conform(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from endpoint_server import Server, labels_by_length
    from jettison.backends.endpoint import endpoint_candidate

    monkeypatch.setenv("JETTISON_ANSWERS", str(tmp_path / "answers"))
    server = Server()
    server.behave = labels_by_length(DATA.labels)
    (tmp_path / "far").mkdir()
    settings = {"kind": "classify", "prompt": {"template": "Text: {input}"}}
    try:
        check_backend(
            endpoint_candidate(
                tmp_path / "far",
                url=server.url,
                model="small",
                labels=DATA.labels,
                settings=settings,
                backend=backend,
            ),
            TEXTS,
        )
    finally:
        server.close()


def test_every_backend_is_checked() -> None:
    here = {"fake", "hf", "onnx", "openvino", "static", "linear", "cascade", "openai", "vllm"}
    # Those of the package: another test may have registered one of its own.
    assert set(registry._declared("backends")) == here | set(BACKENDS_ELSEWHERE)
    for name, path in BACKENDS_ELSEWHERE.items():
        assert _checks(path, "check_backend", name), path


@pytest.mark.parametrize(
    "step",
    [
        {"step": "export", "target": "onnx"},
        {"step": "export", "target": "openvino"},
        {"step": "quantize", "method": "dynamic"},
        {"step": "quantize", "method": "static", "n_calibration": 20},
        {"step": "quantize", "method": "weights4"},
        {"step": "mixed_precision"},
        {"step": "settings", "max_tokens": "data", "batch_size": 8},
        {"step": "distill_linear"},
        {"step": "trim_vocabulary"},
        {"step": "prune", "depth": 1},
        {"step": "narrow", "n_tokens": 400},
        {"step": "finetune", "epochs": 1},
        {"step": "distill", "epochs": 1},
        {"step": "distill_static"},
    ],
    ids=lambda step: " ".join(str(value) for value in step.values()),
)
def test_steps_conform(step: dict[str, object], context: StepContext, temporary: Path) -> None:
    check_step(step_from(step), context.incumbent, context)


def test_every_step_is_checked() -> None:
    parametrized = next(m for m in test_steps_conform.pytestmark if m.name == "parametrize")
    here = {step["step"] for step in parametrized.args[1]}
    # Other tests leave steps of their own in the registry of this process.
    ours = {
        n for n in registry.names("steps") if registry.load("steps", n).__module__.startswith("jettison.")
    }
    assert ours == here | set(STEPS_ELSEWHERE)
    for name, path in STEPS_ELSEWHERE.items():
        assert _checks(path, "check_step", name), path


class Careless(TextClassifier):
    """A backend that breaks the promise its setting names."""

    def logits(self, inputs):  # type: ignore[no-untyped-def]
        fault = self.candidate.settings["fault"]
        rows = np.array([[len(text) % 7, 1.0, 2.0, 0.5, 0.1] for text in inputs], np.float32)
        if fault == "order":
            return rows[np.argsort(rows[:, 0], kind="stable")]
        if fault == "batch":
            return rows + len(inputs)
        if fault == "nan":
            rows[1] = np.nan
        if fault == "mutates":
            inputs[0] = ""
        return rows[:-1] if fault == "short" and len(rows) > 1 else rows


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("order", "outputs must agree within"),
        ("batch", "alone and in a batch"),
        ("nan", "logits must be finite, got nan"),
        ("mutates", "the inputs must be left as they were"),
        ("short", "13 inputs must give as many outputs, got 12"),
    ],
)
def test_a_careless_backend_is_caught(fault: str, said: str, tmp_path: Path) -> None:
    registry.register("backends", "careless", Careless)
    candidate = fake(tmp_path / "careless", fault=fault)
    candidate = msgspec.structs.replace(candidate, backend="careless")
    try:
        with pytest.raises(AssertionError, match=said):
            check_backend(candidate)
    finally:
        registry._added.clear()


def test_a_step_that_spoils_its_parent_is_caught(tmp_path: Path, temporary: Path) -> None:
    from jettison.compress.settings import Settings
    from jettison.compress.step import Made

    class Spoils(Settings, frozen=True, kw_only=True):
        def make(self, candidate: Candidate, context: StepContext) -> Made:
            (candidate.path / "note.txt").write_text("spoiled")
            (context.folder / "note.txt").write_text("new")
            return Made()

    parent = fake(tmp_path / "parent")
    context = StepContext(data=DATA, incumbent=parent, folder=tmp_path, workspace=tmp_path)
    step: Step = Spoils()
    with pytest.raises(AssertionError, match="a step must leave its parent as it was"):
        check_step(step, parent, context)
    assert step_checks.__name__ == "jettison.testing.step"


def _checks(path: str, check: str, name: str) -> bool:
    """Whether a test file calls the check, and names what is to be checked."""
    nodes = list(ast.walk(ast.parse((TESTS / path).read_text())))
    calls = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    return check in calls and name in {node.value for node in nodes if isinstance(node, ast.Constant)}


def _records(candidate: Candidate, data) -> list[Record]:  # type: ignore[no-untyped-def]
    outputs: list[Output] = open_model(candidate).predict([example.input for example in data.dev])
    return [
        Record(
            candidate=candidate.digest,
            example_id=example.id,
            split="dev",
            output=output.label,
            expected=example.expected,
            confidence=output.confidence,
            in_scope=output.in_scope,
            flagged=output.flagged,
        )
        for example, output in zip(data.dev, outputs, strict=True)
    ]
