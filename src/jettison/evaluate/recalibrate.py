"""Calibration from records that are there already: a language model is asked each input once.

Its raw answers do not depend on the calibration; only confidence and scope do, and those are
computed anew from what the records hold.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from scipy.optimize import minimize

from jettison.backends.abstain import WHEN_OUT_OF_SCOPE
from jettison.candidate import Calibration, Candidate
from jettison.errors import NotEnoughData
from jettison.model import CONFIDENCE_MAP, Decoder, log_odds, mapped_confidence
from jettison.record import Record

LEAST_EXAMPLES = 20
_OF_CALIBRATION = (CONFIDENCE_MAP, WHEN_OUT_OF_SCOPE)
"""Settings that calibration adds."""
PRIOR = 1.0
"""Weight of one made-up example either way, which keeps the map finite where every answer is right."""


def uncalibrated(candidate: Candidate) -> Candidate | None:
    """The candidate whose calibration this is; None where the last step was another."""
    if not candidate.lineage or candidate.lineage[-1].step != "calibrate":
        return None
    settings = {key: value for key, value in candidate.settings.items() if key not in _OF_CALIBRATION}
    return msgspec.structs.replace(
        candidate,
        calibration=Calibration(),
        settings=settings,
        digest=candidate.lineage[-1].parents[0],
        lineage=candidate.lineage[:-1],
    )


def recalibrated(records: Sequence[Record], candidate: Candidate) -> list[Record]:
    """Records of the uncalibrated candidate as the calibrated one would have given them."""
    with_logits = bool(candidate.labels) and all(
        r.logits is not None and len(r.logits) == len(candidate.labels) for r in records if r.error is None
    )
    if with_logits:
        return _decoded(records, candidate)
    return [
        msgspec.structs.replace(
            record,
            candidate=candidate.digest,
            confidence=None
            if record.confidence is None
            else mapped_confidence(record.confidence, candidate.settings),
        )
        for record in records
    ]


def fit_confidence_map(records: Sequence[Record], scorer: str) -> tuple[float, float]:
    """Slope and intercept of the map from raw confidence to the chance that the answer is right.

    Args:
        records: With raw confidences, of the half of dev that is fitted on.
        scorer: What says how right an answer is, in 0-1.

    Raises:
        NotEnoughData: Under 20 records are judged.

    Source:
        Platt 1999, "Probabilistic outputs for support vector machines", with his prior counts.
    """
    judged = [r for r in records if r.error is None and r.scores.get(scorer) is not None]
    if len(judged) < LEAST_EXAMPLES:
        raise NotEnoughData(
            f"calibration needs at least {LEAST_EXAMPLES} answers judged by {scorer!r} in its half of dev, "
            f"got {len(judged)}. Add examples to the dev split."
        )
    odds = np.array([log_odds(r.confidence or 0.0) for r in judged])
    right = np.array([min(max(r.scores[scorer] or 0.0, 0.0), 1.0) for r in judged])
    middle = float(np.median(odds))
    # One answer of middling confidence right, and one wrong.
    odds = np.concatenate([odds, [middle, middle]])
    right = np.concatenate([right, [PRIOR, 0.0]])

    def loss(parameters: np.ndarray) -> float:
        z = parameters[0] * odds + parameters[1]
        return float(np.mean(np.logaddexp(0.0, z) - right * z))

    # A surer answer is never held to be less likely right: the order of confidences is kept.
    found: Any = minimize(loss, np.array([1.0, 0.0]), bounds=[(0.0, 20.0), (-30.0, 30.0)])
    return float(found.x[0]), float(found.x[1])


def _decoded(records: Sequence[Record], candidate: Candidate) -> list[Record]:
    decoder = Decoder(candidate.labels, candidate.out_of_scope, candidate.calibration)
    found = []
    for record in records:
        if record.error is not None:
            found.append(msgspec.structs.replace(record, candidate=candidate.digest))
            continue
        output = decoder.outputs(np.asarray([record.logits], np.float32))[0]
        found.append(
            msgspec.structs.replace(
                record,
                candidate=candidate.digest,
                confidence=output.confidence,
                in_scope=output.in_scope,
                flagged=None if output.in_scope is None else output.flagged,
            )
        )
    return found
