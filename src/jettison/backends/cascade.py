"""A cascade: the lean arm answers what it is sure of, the fallback arm the rest."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from jettison.backends.open import open_model
from jettison.backends.remote import is_remote
from jettison.backends.shares import CallClock, one_after_the_other, shared
from jettison.candidate import Calibration, Candidate
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.model import Model, Output, ScopeRanks
from jettison.route import Cascade, Route, Single


class CascadeClassifier:
    """Two models behind one threshold.

    The lean arm's answer stands when its confidence reaches the threshold. An input on
    which it fails is passed on, and so is, with `escalate_flagged`, one that it flags as
    or calls out of scope, and one whose `in_scope` is under `escalate_below`. One whose
    `in_scope` is under `decline_below` is plainly out of scope and stays with the lean arm.
    With `combine` "average" an escalated input is answered by the mean of both arms'
    logits, each at its own temperature: the work of the lean arm is not thrown away.
    `Output.arm` is `lean` or `fallback`; of a cascade within the
    cascade, `fallback/lean` and so on. Both arms are opened at once, so that the first
    escalated request is no slower than the next; the setting `lazy_fallback` opens the
    fallback when it is first needed instead.
    """

    def __init__(
        self,
        labels: tuple[str, ...],
        *,
        lean: Model,
        fallback: "Model | _Lazy",
        threshold: float,
        out_of_scope: str | None = None,
        escalate_flagged: bool = True,
        calibration: Calibration | None = None,
        combine: Literal["fallback", "average"] = "fallback",
        escalate_below: float | None = None,
        decline_below: float | None = None,
        temperatures: tuple[float, float] = (1.0, 1.0),
        splits_costs: bool = False,
    ) -> None:
        self.labels = labels
        self._average = combine == "average"
        self._escalate_below = escalate_below or 0.0
        self._decline_below = decline_below or 0.0
        self._temperatures = temperatures
        self._splits_costs = splits_costs
        self._lean = lean
        self._fallback = fallback
        self._threshold = threshold
        self._escalate_flagged = escalate_flagged
        self._never = out_of_scope if escalate_flagged else None
        self._ranks = ScopeRanks.of(calibration)

    def predict(self, inputs: Sequence[str]) -> list[Output]:
        """One output per input, in the inputs' order: lean on all, fallback on the rest."""
        outputs = self._ask(self._lean, inputs)
        passed_on = []
        for i, output in enumerate(outputs):
            if self._stands(output):
                outputs[i] = self._told(output, "lean", escalated=False)
            else:
                passed_on.append(i)
        if passed_on:
            answers = self._ask(self._fallback, [inputs[i] for i in passed_on])
            for i, answer in zip(passed_on, answers, strict=True):
                if self._splits_costs:
                    both_s = one_after_the_other(outputs[i].cost, answer.cost)
                    answer = msgspec.structs.replace(answer, cost=both_s)
                both = self._mean(outputs[i], answer) if self._average else answer
                outputs[i] = self._told(both, "fallback", escalated=True)
        return outputs

    def _ask(self, arm: "Model | _Lazy", inputs: Sequence[str]) -> list[Output]:
        """One arm's answers; of many at once with their part of its time: what is passed on costs more."""
        if len(inputs) < 2 or not self._splits_costs:
            return arm.predict(inputs)
        clock = CallClock()
        outputs = arm.predict(inputs)
        return shared(outputs, clock.spent())

    def close(self) -> None:
        """Close both arms."""
        self._lean.close()
        self._fallback.close()

    def _mean(self, lean: Output, fallback: Output) -> Output:
        """The answer of both arms' mean logits; the fallback's where one of the arms has none."""
        if lean.logits is None or fallback.logits is None or fallback.error or lean.error:
            return fallback
        logits = lean.logits / (2.0 * self._temperatures[0])
        logits += fallback.logits / (2.0 * self._temperatures[1])
        top = int(logits.argmax())
        ranks = [o.in_scope for o in (lean, fallback) if o.in_scope is not None]
        return Output(
            label=self.labels[top],
            confidence=float(1.0 / np.exp(logits - logits[top]).sum()),
            in_scope=sum(ranks) / 2 if len(ranks) == 2 else fallback.in_scope,
            flagged=fallback.flagged,
            logits=logits,
            arm=fallback.arm,
            escalated=fallback.escalated,
            cost=fallback.cost,
        )

    def _stands(self, output: Output) -> bool:
        if self._decline_below and output.in_scope is not None and output.in_scope < self._decline_below:
            return output.error is None
        if self._escalate_below and output.in_scope is not None and output.in_scope < self._escalate_below:
            return False
        return not (
            output.confidence < self._threshold
            or output.error is not None
            or (self._escalate_flagged and output.flagged)
            or (self._never is not None and output.label == self._never)
        )

    def _told(self, output: Output, arm: str, *, escalated: bool) -> Output:
        """The arm's output with the arm's name and the rank among the whole cascade's in-scope inputs."""
        in_scope, flagged = output.in_scope, output.flagged
        if self._ranks is not None and in_scope is not None:
            in_scope = self._ranks.rank(in_scope)
            flagged = in_scope < self._ranks.limit
        return Output(
            label=output.label,
            confidence=output.confidence,
            in_scope=in_scope,
            flagged=flagged,
            abstained=output.abstained,
            logits=output.logits,
            logprob=output.logprob,
            arm=arm if output.arm is None else f"{arm}/{output.arm}",
            escalated=escalated or output.escalated,
            error=output.error,
            unanswered=output.unanswered,
            cost=output.cost,
        )


class _Lazy:
    """A model that is opened when it is first asked."""

    def __init__(self, candidate: Candidate, opener: Callable[[Candidate], Model]) -> None:
        self._candidate = candidate
        self._opener = opener
        self._model: Model | None = None

    def predict(self, inputs: Sequence[str]) -> list[Output]:
        if self._model is None:
            self._model = self._opener(self._candidate)
        return self._model.predict(inputs)

    def close(self) -> None:
        if self._model is not None:
            self._model.close()


def open_cascade(
    candidate: Candidate, *, opener: Callable[[Candidate], Model] = open_model
) -> CascadeClassifier:
    """Open a cascade candidate with both its arms.

    Args:
        candidate: Of backend `cascade`.
        opener: Opens each arm; one that gives an arm's kept answers lets the cascade answer without
            either being asked again.

    Raises:
        BrokenArtifact: Its settings hold no cascade route, or an arm's labels differ.
        MissingExtra: An arm's backend is not installed.
    """
    try:
        route = msgspec.convert(candidate.settings.get("route"), Cascade)
    except msgspec.ValidationError as error:
        raise BrokenArtifact(f"{candidate.path} must have a cascade in settings.route: {error}.") from error
    opened = _open_route(route, candidate, opener)
    assert isinstance(opened, CascadeClassifier)
    return opened


def _open_route(
    route: Route, candidate: Candidate, opener: Callable[[Candidate], Model], *, outermost: bool = True
) -> Model:
    settings: dict[str, Any] = candidate.settings
    match route:
        case Single():
            return opener(_arm(candidate, route.candidate))
        case Cascade(lean=lean, fallback=fallback):
            lazy = bool(settings.get("lazy_fallback", False)) and isinstance(fallback, Single)
            return CascadeClassifier(
                candidate.labels,
                lean=_open_route(lean, candidate, opener, outermost=False),
                fallback=(
                    _Lazy(_arm(candidate, fallback.candidate), opener)
                    if lazy and isinstance(fallback, Single)
                    else _open_route(fallback, candidate, opener, outermost=False)
                ),
                threshold=route.threshold,
                out_of_scope=candidate.out_of_scope,
                escalate_flagged=bool(settings.get("escalate_flagged", True)),
                calibration=candidate.calibration if outermost else None,
                combine=route.combine,
                escalate_below=route.escalate_below,
                decline_below=route.decline_below,
                temperatures=(_temperature(lean, candidate), _temperature(fallback, candidate)),
                # What runs elsewhere tells its own time, and its records are compared by that alone.
                splits_costs=not is_remote(candidate),
            )
    raise InvalidInput(
        f"a cascade must be made of single candidates and cascades, got a {type(route).__name__.lower()}."
    )


def _temperature(route: Route, candidate: Candidate) -> float:
    """Temperature of an arm's logits; those of a cascade are at 1."""
    if not isinstance(route, Single):
        return 1.0
    arm = _arm(candidate, route.candidate)
    return 1.0 if arm.backend == "cascade" else arm.calibration.temperature


def _arm(candidate: Candidate, folder: str) -> Candidate:
    path: Path = candidate.path / folder
    arm = Candidate.at(path)
    if arm.labels != candidate.labels:
        raise BrokenArtifact(f"{path} must have the cascade's labels, got {list(arm.labels[:5])}….")
    return arm
