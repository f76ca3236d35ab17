"""Step `verify`: a small verifier, trained on dev, says how likely each free answer is to be right."""

from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from scipy.optimize import minimize

from jettison.backends.open import open_model
from jettison.backends.prompted import PromptedModel
from jettison.backends.verifier import FEATURES, FILE, Verifier
from jettison.candidate import MANIFEST, Candidate
from jettison.compress.dev_scores import dev_scores
from jettison.compress.step import Made, StepContext
from jettison.errors import NotEnoughData, StepFailed
from jettison.files import link_or_copy, write_atomic

LEAST_EXAMPLES = 40
N_FOLDS = 5
KINDS = ("generate", "extract")


class Verify(msgspec.Struct, frozen=True, kw_only=True):
    """Train a verifier on the first half of dev; its word is the confidence from then on.

    The answers stay what they were. A cascade that passes on what the verifier doubts is certified on the
    other half of dev, which the verifier has not seen. Steps that make other weights leave it behind: name
    it last.
    """

    name: ClassVar[str] = "verify"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    ridge: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Weight of the squared weights, in examples: more of it keeps few examples from saying much."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Ask the first half of dev, fit, say what was gained.

        Raises:
            StepFailed: The candidate gives no free answers, or all of them are right, or wrong.
            NotEnoughData: Fewer than 40 answers are judged.
        """
        kind = str(candidate.settings.get("kind", context.data.kind))
        if kind not in KINDS:
            raise StepFailed(
                f"step 'verify' must start from a model that answers freely (kinds {list(KINDS)}), got "
                f"kind {kind!r}: options are weighed by their likelihood, which is calibrated without it."
            )
        features, right, before = self._answers(candidate, context)
        if len(right) < LEAST_EXAMPLES:
            raise NotEnoughData(
                f"step 'verify' needs at least {LEAST_EXAMPLES} judged answers in the first half of dev, "
                f"got {len(right)}. Add examples to the dev split."
            )
        if right.min() == right.max():
            raise StepFailed(
                f"step 'verify' needs right and wrong answers to tell apart, and all {len(right)} in the "
                f"first half of dev score {right.min():g}. A cascade needs no verifier here."
            )
        fitted = fit_verifier(features, right, ridge=self.ridge)
        for entry in candidate.files:
            if entry.path not in (MANIFEST, FILE):
                link_or_copy(candidate.path / entry.path, context.folder / entry.path)
        write_atomic(context.folder / FILE, msgspec.json.encode(fitted))
        unseen = out_of_fold(features, right, ridge=self.ridge, seed=context.seed)
        return Made(
            notes={
                "n_examples": len(right),
                "auroc_before": auroc(before, right),
                "auroc": auroc(unseen, right),
                "weights": dict(zip(FEATURES, np.round(fitted.weights, 3).tolist(), strict=True)),
            }
        )

    def _answers(
        self, candidate: Candidate, context: StepContext
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features, scores and plain confidences of the judged answers to the first half of dev."""
        examples = context.data.dev_fit
        model = open_model(candidate)
        try:
            if not isinstance(model, PromptedModel):
                raise StepFailed(
                    f"step 'verify' must start from a model that is asked a prompt, got backend "
                    f"{candidate.backend!r} ({candidate.name})."
                )
            outputs, features = model.answered([example.asked for example in examples])
        finally:
            model.close()
        scores = dev_scores(outputs, examples, context.data)
        known = np.isfinite(scores) & np.array([output.error is None for output in outputs], bool)
        before = np.array([output.confidence for output in outputs], float)
        return features[known], np.clip(scores[known], 0.0, 1.0), before[known]


def fit_verifier(features: np.ndarray, right: np.ndarray, *, ridge: float) -> Verifier:
    """The verifier that finds scores in 0-1 likeliest; shapes (n, n_features) and (n,)."""
    scale = features.std(axis=0)
    center = features.mean(axis=0)
    # A feature that never changed on dev says nothing of what it means when it does.
    told = scale > 1e-9
    plain = Verifier(
        center=tuple(center.tolist()),
        scale=tuple(np.where(told, scale, 1.0).tolist()),
        weights=(0.0,) * len(FEATURES),
        bias=0.0,
    )
    rows = plain.standardized(features) * told

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        z = rows @ parameters[:-1] + parameters[-1]
        gap = 1.0 / (1.0 + np.exp(-z)) - right
        value = float(
            np.sum(np.logaddexp(0.0, z) - right * z) + ridge / 2 * parameters[:-1] @ parameters[:-1]
        )
        return value, np.append(rows.T @ gap + ridge * parameters[:-1], gap.sum())

    found: Any = minimize(loss, np.zeros(len(FEATURES) + 1), jac=True, method="L-BFGS-B")
    weights = tuple((found.x[:-1] * told).tolist())
    return msgspec.structs.replace(plain, weights=weights, bias=float(found.x[-1]))


def out_of_fold(features: np.ndarray, right: np.ndarray, *, ridge: float, seed: int) -> np.ndarray:
    """Each answer's chance by a verifier that has not seen it, shape (n,)."""
    fold = np.random.default_rng(seed).permutation(len(right)) % N_FOLDS
    found = np.empty(len(right))
    for one in range(N_FOLDS):
        fitted = fit_verifier(features[fold != one], right[fold != one], ridge=ridge)
        found[fold == one] = [fitted.chance(row) for row in features[fold == one]]
    return found


def auroc(chances: np.ndarray, right: np.ndarray) -> float | None:
    """How often a right answer (score of at least 0.5) has the higher chance; None if all are one kind."""
    good = right >= 0.5
    if good.all() or not good.any():
        return None
    apart = chances[good][:, None] - chances[~good][None, :]
    return round(float((apart > 0).mean() + (apart == 0).mean() / 2), 4)
