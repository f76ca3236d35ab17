"""Makes a candidate's confidences honest: temperature and scope ranks, fitted on half of dev."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from scipy.optimize import minimize_scalar

from jettison.backends.abstain import WHEN_OUT_OF_SCOPE
from jettison.backends.ask import check_answered
from jettison.backends.open import open_model
from jettison.candidate import (
    AppliedStep,
    Calibration,
    Candidate,
    find_intact,
    library_versions,
    write_candidate,
)
from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate.calibration_choice import Answers, chosen_method, map_of
from jettison.evaluate.calibration_maps import fit_isotonic
from jettison.evaluate.recalibrate import fit_confidence_map
from jettison.evaluate.replay import output_of
from jettison.evaluate.run import predict_all
from jettison.files import folder_atomic, link_or_copy_folder, value_sha256
from jettison.model import CONFIDENCE_MAP, Decoder, Output
from jettison.record import Record
from jettison.stats.ranking import auroc
from jettison.task import Development, Example

CODE_VERSION = 3
LEAST_EXAMPLES = 20
"""Fewer cannot place a 5 % quantile."""
TEMPERATURES = (0.05, 20.0)
MOST_QUANTILES = 201
LEAST_OUT_OF_SCOPE = 20
"""Fewer out-of-scope examples cannot tell which rule is better."""
ScopeRule = Literal["max_probability", "energy", "auto"]
Method = Literal["temperature", "vector", "isotonic", "auto"]


def calibrate(
    candidate: Candidate,
    data: Development,
    *,
    cache: Path,
    false_alarm_share: float = 0.05,
    scope_rule: ScopeRule = "auto",
    records: Sequence[Record] | None = None,
    scorer: str = "label",
    method: Method = "temperature",
    abstain: bool = False,
) -> Candidate:
    """Fit a candidate's confidences on `data.dev_fit`, as a new candidate beside the old one.

    The temperature minimises the negative log-likelihood. Where the task has an
    out-of-scope label, it is fitted on the in-scope examples: a confidence is then the chance
    that the answer to an in-scope input is right, whatever share of the traffic is out of
    scope, and means the same for every candidate. There the scope scores of the in-scope
    examples are kept as quantiles, by which `in_scope` is a rank and `flagged` has the stated
    share of false alarms. A cascade keeps its arms' temperatures; its arms' `in_scope` ranks,
    mixed as it mixes them, are ranked once more for the cascade as a whole.

    Args:
        candidate: Its own calibration, if any, is replaced.
        data: Holds no test example.
        cache: Folder of calibrated candidates, one folder a key; files are hard-linked.
        false_alarm_share: Share of in-scope inputs that may be flagged, in (0, 1).
        scope_rule: What tells in-scope inputs from others (`Calibration.scope_rule`). `auto` takes
            the one with the larger AUROC on `dev_fit`, and `max_probability` where that holds too few
            out-of-scope examples to tell: energy suits a transformer a little better and can
            mislead where the size of the logits grows with the text, as in a linear model.
        records: Of the uncalibrated candidate on dev, with logits where it gives some; it is then
            not asked again. Without logits of the task's labels its confidence is mapped to the
            share of answers that `scorer` finds right.
        scorer: The task's first.
        method: What makes confidences honest. `temperature`: one number. `vector`: a scale and a bias for
            each label. `isotonic`: a monotone map. The last two need more examples; none changes an answer.
            `auto`: the temperature, unless another is better on folds it was not fitted on.
        abstain: The candidate then answers what it flags by the out-of-scope label (`Output.abstained`).

    Raises:
        InvalidInput: The share is not in (0, 1), or the candidate lacks the task's labels.
        NotEnoughData: `dev_fit` is too small to fit on.
    """
    if not 0 < false_alarm_share < 1:
        raise InvalidInput(f"false_alarm_share must be in (0, 1), got {false_alarm_share}.")
    key = value_sha256(
        {
            "calibrate": CODE_VERSION,
            "candidate": candidate.digest,
            "data": data.digest,
            "share": false_alarm_share,
            "rule": scope_rule,
            **({} if method == "temperature" else {"method": method}),
            **({"abstain": True} if abstain else {}),
        }
    )
    folder = cache / key[:20]
    if (found := find_intact(folder)) is not None:
        return msgspec.structs.replace(found, name=candidate.name)
    started = time.perf_counter()
    out_of_scope = candidate.out_of_scope or data.out_of_scope
    uncalibrated = msgspec.structs.replace(candidate, out_of_scope=out_of_scope, calibration=Calibration())
    settings = {**candidate.settings, **({WHEN_OUT_OF_SCOPE: "abstain"} if abstain else {})}
    if records is not None and candidate.backend != "cascade" and not _has_logits(candidate, records):
        fitted = Calibration(false_alarm_share=false_alarm_share, data_digest=data.digest)
        fit = {e.id for e in data.dev_fit if out_of_scope is None or e.expected != out_of_scope}
        settings[CONFIDENCE_MAP] = list(
            fit_confidence_map([r for r in records if r.example_id in fit], scorer)
        )
    else:
        fitted = _fit(uncalibrated, data, false_alarm_share, scope_rule, records, method)
    applied = AppliedStep(
        step="calibrate",
        settings={
            "false_alarm_share": false_alarm_share,
            "scope_rule": scope_rule,
            **({} if method == "temperature" else {"method": method}),
            **({"abstain": True} if abstain else {}),
        },
        seed=0,
        versions=library_versions("numpy", "scipy"),
        parents=(candidate.digest,),
        data_digest=data.digest,
        duration_s=time.perf_counter() - started,
        notes={
            "temperature": fitted.temperature,
            "scope_rule": fitted.scope_rule,
            "map": map_of(fitted),
            "n_examples": len(data.dev_fit),
        },
    )
    with folder_atomic(folder) as partial:
        link_or_copy_folder(candidate.path, partial)
        write_candidate(
            partial,
            name=candidate.name,
            backend=candidate.backend,
            labels=candidate.labels,
            out_of_scope=out_of_scope,
            settings=settings,
            calibration=fitted,
            lineage=(*candidate.lineage, applied),
            licence=candidate.licence,
        )
    return Candidate.at(folder)


def fit_temperature(logits: np.ndarray, expected: np.ndarray, weights: np.ndarray) -> float:
    """Temperature at which the softmax of the logits is most likely to give the expected labels.

    Args:
        logits: Shape (n_examples, n_labels).
        expected: Index of the right label, shape (n_examples,).
        weights: Of each example, shape (n_examples,).

    Returns:
        A temperature in 0.05-20. A candidate right on every example would earn endless
        confidence; so the example of median margin counts once more, as answered wrongly.

    Source:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2; the
        unseen error is in the spirit of Laplace's rule of succession.
    """
    rows = np.asarray(logits, np.float64)
    two_best = np.argpartition(rows, -2, axis=1)[:, -2:]
    best = np.take_along_axis(rows, two_best, axis=1)
    median = int(np.argsort(best.max(axis=1) - best.min(axis=1))[len(rows) // 2])
    rows = np.vstack([rows, rows[median]])
    rows -= rows.max(axis=1, keepdims=True)
    right = np.append(expected, two_best[median][best[median].argmin()])
    shares = np.append(weights, weights.mean())
    shares = shares / shares.sum()
    of_right = rows[np.arange(len(rows)), right]

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        normaliser = np.log(np.exp(rows / temperature).sum(axis=1))
        return float(shares @ (normaliser - of_right / temperature))

    bounds = (float(np.log(TEMPERATURES[0])), float(np.log(TEMPERATURES[1])))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _has_logits(candidate: Candidate, records: Sequence[Record]) -> bool:
    """Whether all answers came with a logit for each of the candidate's labels."""
    answered = [r for r in records if r.error is None]
    return bool(candidate.labels) and all(
        r.logits is not None and len(r.logits) == len(candidate.labels) for r in answered
    )


def _asked(candidate: Candidate, examples: Sequence[Example]) -> list[Output]:
    model = open_model(candidate)
    try:
        outputs = list(predict_all(model, [example.asked for example in examples]))
    finally:
        model.close()
    check_answered(outputs, candidate.name)
    return outputs


def _fit(
    candidate: Candidate,
    data: Development,
    false_alarm_share: float,
    scope_rule: ScopeRule,
    records: Sequence[Record] | None,
    method: Method,
) -> Calibration:
    """The calibration of a candidate whose own has been taken off."""
    examples = [e for e in data.dev_fit if e.is_judged]
    if len(examples) < LEAST_EXAMPLES:
        raise NotEnoughData(
            f"calibration needs at least {LEAST_EXAMPLES} labelled examples in its half of dev, "
            f"got {len(examples)}. Add examples to the dev split."
        )
    if records is None:
        outputs = _asked(candidate, examples)
    else:
        by_id = {record.example_id: record for record in records}
        outputs = [output_of(by_id[example.id]) for example in examples]
    answered = [(e, o) for e, o in zip(examples, outputs, strict=True) if o.error is None]
    if len(answered) < LEAST_EXAMPLES:
        error = next(o.error for o in outputs if o.error is not None)
        raise NotEnoughData(
            f"calibration needs at least {LEAST_EXAMPLES} answers, got {len(answered)}: {error}."
        )
    in_scope = [o for e, o in answered if e.expected != candidate.out_of_scope]
    rule = Calibration()
    if candidate.backend == "cascade":
        scores = _arm_ranks(in_scope)
    else:
        known = _known(candidate, answered)
        rule = Calibration(temperature=fit_temperature(known.logits, known.expected, known.weights))
        rule = msgspec.structs.replace(rule, scope_rule=_scope_rule(candidate, answered, rule, scope_rule))
        scores = _scope_scores(candidate, in_scope, rule)
        rule = _with_method(known, rule, method)
    return msgspec.structs.replace(
        rule,
        scope_quantiles=None if candidate.out_of_scope is None else _quantiles(scores),
        false_alarm_share=false_alarm_share,
        data_digest=data.digest,
    )


def _known(candidate: Candidate, answered: Sequence[tuple[Example, Output]]) -> Answers:
    """Logits, right labels and weights of the examples that confidences are fitted on."""
    index = {label: i for i, label in enumerate(candidate.labels)}
    known = [(e, o) for e, o in answered if e.expected in index]
    if len(known) < LEAST_EXAMPLES:
        raise InvalidInput(
            f"{candidate.name} must know the task's labels, got {list(candidate.labels[:5])} of it and "
            f"{sorted({str(e.expected) for e, _ in answered})[:5]} of the task. "
            "Name the model's labels as the task does."
        )
    inside = [(e, o) for e, o in known if e.expected != candidate.out_of_scope]
    fitted_on = inside if len(inside) >= LEAST_EXAMPLES else known
    return Answers(
        logits=np.stack([_logits(o) for _, o in fitted_on]),
        expected=np.array([index[str(e.expected)] for e, _ in fitted_on]),
        weights=np.array([e.weight for e, _ in fitted_on]),
        outside=index.get(str(candidate.out_of_scope)) if fitted_on is inside else None,
    )


def _with_method(known: Answers, rule: Calibration, method: Method) -> Calibration:
    """The calibration with a finer map of confidences beside the temperature, which scope still uses."""
    if method == "auto":
        method = chosen_method(known, fit_temperature)
    if method == "vector":
        scales, biases = known.fitted_vector(rule.temperature)
        return msgspec.structs.replace(rule, scales=scales, biases=biases)
    if method == "isotonic":
        confidence, right = known.judged(rule.temperature)
        return msgspec.structs.replace(rule, knots=fit_isotonic(confidence, right, known.weights))
    return rule


def _scope_rule(
    candidate: Candidate,
    answered: Sequence[tuple[Example, Output]],
    calibration: Calibration,
    wanted: ScopeRule,
) -> Literal["max_probability", "energy"]:
    """The rule to score scope by: the one wanted, or the better one on these examples."""
    if wanted != "auto":
        return wanted
    inside = [o for e, o in answered if e.expected != candidate.out_of_scope]
    outside = [o for e, o in answered if e.expected == candidate.out_of_scope]
    if min(len(inside), len(outside)) < LEAST_OUT_OF_SCOPE:
        return "max_probability"
    energy = msgspec.structs.replace(calibration, scope_rule="energy")
    by_energy, by_probability = (
        auroc(_scope_scores(candidate, inside, rule), _scope_scores(candidate, outside, rule))
        for rule in (energy, calibration)
    )
    return "energy" if by_energy > by_probability else "max_probability"


def _scope_scores(candidate: Candidate, outputs: Sequence[Output], calibration: Calibration) -> np.ndarray:
    """Scope scores of in-scope examples under a rule, shape (n_examples,)."""
    if not outputs:
        return np.empty(0)
    decoder = Decoder(candidate.labels, candidate.out_of_scope, calibration)
    return decoder.scope_scores(np.stack([_logits(o) for o in outputs]))


def _arm_ranks(outputs: Sequence[Output]) -> np.ndarray:
    """The ranks a cascade's arms gave, shape (n_examples,); empty when an arm gives none."""
    ranks = [output.in_scope for output in outputs]
    return np.array([]) if None in ranks else np.array(ranks, float)


def _quantiles(scores: np.ndarray) -> tuple[float, ...] | None:
    """Scores at evenly spaced quantiles, ascending; None when there are too few."""
    if len(scores) < LEAST_EXAMPLES:
        return None
    n = min(MOST_QUANTILES, len(scores))
    return tuple(np.quantile(scores, np.linspace(0, 1, n)).tolist())


def _logits(output: Output) -> np.ndarray:
    if output.logits is None:
        raise InvalidInput("a model to calibrate must give logits, got an output without them.")
    return output.logits
