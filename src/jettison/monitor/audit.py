"""Audits: a random share of the lean answers that stood is also sent to the fallback.

From them come, at every look: how often such an answer is harmful, whether the cascade's certificate
still holds, and the threshold to use when it does not. The fallback's answer is taken for the truth,
so that the harm counted is an upper bound; where feedback of source `audit` brings labels, those
count instead. Every stood answer of one time has the same probability of an audit.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from jettison.monitor.log import News
from jettison.record import Record
from jettison.stats.betting_sequence import BettingSequence
from jettison.stats.calibration import calibration_error
from jettison.stats.interval import Interval
from jettison.stats.ltt import GRID, certify_threshold
from jettison.stats.mixtures import share_sequence

MOST_WAITING = 200_000
"""Stood answers remembered until their audit comes; one that is later still is not counted."""
MOST_EARLY = 10_000
"""Audits remembered until the answer they are of is logged, which a long stream may be after them."""
ALL_TO_FALLBACK = 1.01


class AuditPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What audits hold a cascade to."""

    place: str = ""
    """Of the cascade in the route plan."""
    threshold: float = 0.9
    """In force now: stood answers have at least this confidence."""
    epsilon: float = 0.02
    """Largest share of all requests that may be harmed, as in the certificate."""
    delta: float = 0.05
    """Probability, over all looks, that a threshold that holds is called broken, or the reverse."""
    truth: Literal["fallback", "label"] = "fallback"
    """What an audited answer is held against: the fallback's answer, or a label that feedback brings."""


class AuditStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What audits say now."""

    place: str
    verdict: str
    """`HOLDS` (harm is at most epsilon), `BROKEN` (it is more) or `OPEN`."""
    reason: str
    n_requests: int
    n_stood: int
    n_audits: int
    harm: float | None
    """Share of all requests that were harmed: each counts one over its probability; unbiased."""
    harm_low: float | None
    harm_high: float | None
    quality: float | None
    """Share of stood answers that agree with the truth."""
    quality_low: float | None
    quality_high: float | None
    mean_confidence: float | None
    """Of the audited answers."""
    calibration_error: float | None
    """Of the audited answers' confidence against the truth; None under 30 audits."""
    fallback_right: float | None
    """Share of audited requests with a label on which the fallback is right."""
    fallback_low: float | None
    fallback_high: float | None
    threshold: float
    threshold_wanted: float | None
    """A higher threshold that the audits certify, when this one is broken; above 1 escalates all."""


class Audits:
    """Reads records and keeps one sequence over the audited answers."""

    def __init__(self, plan: AuditPlan) -> None:
        self.plan = plan
        self._sequence = BettingSequence(alpha_low=plan.delta / 2, alpha_high=plan.delta / 2, means=_MEANS)
        self._waiting: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        self._early: OrderedDict[str, tuple[str | None, float]] = OrderedDict()
        self._unlabelled: OrderedDict[str, tuple[float, str | None, str | None, float]] = OrderedDict()
        self._n_requests, self._n_stood, self._weighted = 0, 0, 0.0
        self._fallback = [0, 0]
        self._audited: list[tuple[float, bool]] = []

    def take(self, news: News) -> None:
        """Take in the next part of the log."""
        for record in news.records:
            self._record(record)
        for said in news.feedback:
            pair = self._unlabelled.get(said.request_id)
            if pair is not None and said.label is not None and said.source == "audit":
                del self._unlabelled[said.request_id]
                self._labelled(*pair, said.label)

    def _record(self, record: Record) -> None:
        route = record.route or ""
        lean = _inside(self.plan.place, "lean", route)
        if record.role == "audit" and record.error is None and record.propensity:
            self._audit(record.example_id, record.output, record.propensity)
        elif record.role in ("answer", None) and lean and record.error is None:
            self._n_requests += 1
            self._n_stood += 1
            self._waiting[record.example_id] = (_confidence(record), record.output)
            if len(self._waiting) > MOST_WAITING:
                self._waiting.popitem(last=False)
            if record.example_id in self._early:
                self._audit(record.example_id, *self._early.pop(record.example_id))
        elif record.role in ("answer", None) and _inside(self.plan.place, "fallback", route):
            self._n_requests += 1

    def _audit(self, request: str, big: str | None, propensity: float) -> None:
        """Join an audit with the answer that it is of, whichever is logged first."""
        stood = self._waiting.pop(request, None)
        if stood is None:
            self._early[request] = (big, propensity)
            if len(self._early) > MOST_EARLY:
                self._early.popitem(last=False)
            return
        confidence, output = stood
        if self.plan.truth == "label":
            self._unlabelled[request] = (confidence, output, big, propensity)
            if len(self._unlabelled) > MOST_WAITING:
                self._unlabelled.popitem(last=False)
        else:
            self._count(confidence, output != big, propensity)

    def _labelled(
        self, confidence: float, lean: str | None, big: str | None, propensity: float, label: str
    ) -> None:
        self._fallback[0] += int(big == label)
        self._fallback[1] += 1
        self._count(confidence, lean != label and big == label, propensity)

    def _count(self, confidence: float, is_harmful: bool, propensity: float) -> None:
        self._sequence.update([float(is_harmful)])
        self._weighted += is_harmful / propensity
        self._audited.append((confidence, is_harmful))

    def status(self) -> AuditStatus:
        """What audits say now; it may be looked at as often as one likes."""
        plan, n = self.plan, self._sequence.n
        shown = self._sequence.interval()
        if not n or not self._n_requests:
            return _status(plan, "OPEN", "no audit has come yet.", self, None, None, None)
        stood = share_sequence(self._n_stood, self._n_requests, alpha=plan.delta / 2)
        low, high = shown.low * stood.low, shown.high * stood.high
        harm = min(1.0, self._weighted / self._n_requests)
        if low > plan.epsilon:
            wanted = self._certified(stood.high)
            reason = (
                f"at least {low:.2%} of all requests are harmed, the certificate allows {plan.epsilon:.2%} "
                f"({sum(h for _, h in self._audited):,} of {n:,} audits): the threshold goes from "
                f"{plan.threshold:g} to {wanted:g}."
            )
            return _status(plan, "BROKEN", reason, self, (harm, low, high), shown, wanted)
        if high <= plan.epsilon:
            reason = (
                f"at most {high:.2%} of all requests are harmed, the certificate allows {plan.epsilon:.2%}."
            )
            return _status(plan, "HOLDS", reason, self, (harm, low, high), shown, None)
        reason = (
            f"between {low:.2%} and {high:.2%} of all requests are harmed after {n:,} audits; "
            f"the certificate allows {plan.epsilon:.2%}."
        )
        return _status(plan, "OPEN", reason, self, (harm, low, high), shown, None)

    def _certified(self, stood_share: float) -> float:
        """The lowest higher threshold that the audits certify; above 1 where they certify none."""
        scores = np.array([confidence for confidence, _ in self._audited])
        harmful = np.array([is_harmful for _, is_harmful in self._audited])
        found = certify_threshold(
            scores,
            harmful,
            epsilon=min(self.plan.epsilon / max(stood_share, 1e-9), 0.999),
            delta=self.plan.delta / 2,
            grid=GRID[self.plan.threshold < GRID],
        )
        return ALL_TO_FALLBACK if found is None else found.threshold

    def tightened(self) -> "Audits":
        """Audits of the threshold that is wanted, begun anew: the old ones are not of its answers."""
        wanted = self.status().threshold_wanted
        assert wanted is not None
        return Audits(msgspec.structs.replace(self.plan, threshold=wanted))

    @property
    def calibration_pairs(self) -> Sequence[tuple[float, bool]]:
        """Confidence, and whether the answer was harmful, of every audit so far."""
        return self._audited

    def state(self) -> dict[str, Any]:
        """Everything it knows."""
        return {
            "plan": msgspec.to_builtins(self.plan),
            "sequence": self._sequence.state(),
            "waiting": list(self._waiting.items()),
            "early": list(self._early.items()),
            "unlabelled": list(self._unlabelled.items()),
            "counts": [self._n_requests, self._n_stood, self._weighted, self._fallback],
            "audited": self._audited,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Audits":
        """Go on where `state` was taken."""
        found = cls(msgspec.convert(state["plan"], AuditPlan))
        found._sequence = BettingSequence.from_state(state["sequence"])
        found._waiting = OrderedDict((name, tuple(stood)) for name, stood in state["waiting"])
        found._early = OrderedDict((name, tuple(audit)) for name, audit in state["early"])
        found._unlabelled = OrderedDict((name, tuple(pair)) for name, pair in state["unlabelled"])
        found._n_requests, found._n_stood, found._weighted, fallback = state["counts"]
        found._fallback = list(fallback)
        found._audited = [(float(confidence), bool(harm)) for confidence, harm in state["audited"]]
        return found


_MEANS = np.unique(np.concatenate([np.geomspace(1e-4, 0.1, 120), np.linspace(0.1, 1.0, 91), [0.0]]))


def _status(
    plan: AuditPlan,
    verdict: str,
    reason: str,
    audits: Audits,
    harm: tuple[float, float, float] | None,
    shown: Interval | None,
    wanted: float | None,
) -> AuditStatus:
    confidences = np.array([confidence for confidence, _ in audits._audited])
    right = np.array([not is_harmful for _, is_harmful in audits._audited])
    n_right, n_labelled = audits._fallback
    fallback = share_sequence(n_right, n_labelled, alpha=plan.delta) if n_labelled else None
    return AuditStatus(
        place=plan.place,
        verdict=verdict,
        reason=reason,
        n_requests=audits._n_requests,
        n_stood=audits._n_stood,
        n_audits=len(right),
        harm=harm[0] if harm else None,
        harm_low=harm[1] if harm else None,
        harm_high=harm[2] if harm else None,
        quality=1 - shown.value if shown else None,
        quality_low=1 - shown.high if shown else None,
        quality_high=1 - shown.low if shown else None,
        mean_confidence=float(confidences.mean()) if len(right) else None,
        calibration_error=calibration_error(confidences, right) if len(right) >= 30 else None,
        fallback_right=fallback.value if fallback else None,
        fallback_low=fallback.low if fallback else None,
        fallback_high=fallback.high if fallback else None,
        threshold=plan.threshold,
        threshold_wanted=wanted,
    )


def _inside(place: str, side: str, route: str) -> bool:
    """Whether a record's place is the cascade's side, or deeper in it."""
    wanted = f"{place}/{side}" if place else side
    return route == wanted or route.startswith(f"{wanted}/")


def _confidence(record: Record) -> float:
    return 0.0 if record.confidence is None else min(1.0, max(0.0, record.confidence))
