"""Joins a lean and a fallback candidate into one: the lean one answers what it is proved safe on."""

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from jettison.candidate import (
    ARMS,
    MANIFEST,
    AppliedStep,
    Candidate,
    find_intact,
    library_versions,
    write_candidate,
)
from jettison.errors import InvalidInput, NotEnoughData, StepFailed
from jettison.files import folder_atomic, link_or_copy_folder, read_json, value_sha256, write_json
from jettison.record import Record
from jettison.route import Cascade, Certificate, Single
from jettison.stats.ltt import certify_threshold
from jettison.task import Development, Example

CODE_VERSION = 3
GRID_SIZE = 100
NEVER = -1.0
"""Score of an input that the lean arm passes on whatever the threshold is."""
ALWAYS = 2.0
"""Score of one that it keeps whatever the threshold is."""


def make_cascade(
    lean: Candidate,
    fallback: Candidate,
    data: Development,
    *,
    cache: Path,
    lean_records: Sequence[Record],
    fallback_records: Sequence[Record],
    incumbent_records: Sequence[Record],
    epsilon: float = 0.005,
    delta: float = 0.1,
    escalate_flagged: bool = True,
    combine: Literal["fallback", "average"] = "fallback",
    escalate_below: float | None = None,
    decline_below: float | None = None,
    scorer: str = "label",
    name: str | None = None,
) -> Candidate:
    """Certify a threshold on `data.dev_certify` and put the two candidates behind it.

    Harm is an input that the lean arm answers for good, wrongly, and the incumbent
    answers rightly. With probability 1 - delta over the certifying examples, harm
    befalls at most a share epsilon of all inputs like them. What the fallback gets
    wrong where the incumbent is right comes on top (`n_fallback_harmful` in the
    lineage's notes); it is nothing when the fallback is the incumbent.

    The thresholds tried, strictest first, are quantiles of the lean arm's confidence on
    `data.dev_fit`, so they are fixed before a certifying example is seen.

    Args:
        lean: Calibrated; answers first.
        fallback: Answers what the lean arm passes on; may itself be a cascade.
        data: Its `dev_certify` must not have been fitted on.
        cache: Folder of finished cascades, one folder a key; files are hard-linked.
        lean_records: Of `lean` on dev.
        fallback_records: Of `fallback` on dev.
        incumbent_records: Of the incumbent on dev.
        epsilon: Largest harm, a share in (0, 1).
        delta: Error probability of the certificate, in (0, 1).
        escalate_flagged: Pass on whatever the lean arm flags as, or calls, out of scope.
        combine: What answers an escalated input (`Cascade.combine`).
        escalate_below: Least `in_scope` by the lean arm at which its answer may stand.
        decline_below: `in_scope` by the lean arm under which an input is plainly out of scope
            and not worth the fallback. Its answer counts as the lean arm's in the certificate.
        scorer: Harm is a lower score by it than the incumbent's; of labels, wrong where that is right.
        name: Name of the cascade; None makes one of the arms'.

    Raises:
        InvalidInput: The labels differ, or records are missing or of another candidate.
        NotEnoughData: Too few certifying examples for any threshold; says how many are needed.
        StepFailed: Even the strictest threshold does harm, or the lean arm may answer next to nothing.

    Source:
        Angelopoulos et al. 2021, "Learn then Test", fixed-sequence testing with the
        exact binomial tail.
    """
    _check(lean, fallback, lean_records, fallback_records, epsilon, delta)
    found = certify_route(
        lean,
        data,
        lean_records=lean_records,
        incumbent_records=incumbent_records,
        epsilon=epsilon,
        delta=delta,
        escalate_flagged=escalate_flagged,
        combine=combine,
        escalate_below=escalate_below,
        decline_below=decline_below,
        scorer=scorer,
    )
    fallback_of, incumbent_of = _by_id(fallback_records), _by_id(incumbent_records)
    notes = {
        "accepted_share": found.accepted_share,
        "n_fallback_harmful": sum(
            _worse(_of(fallback_of, e, "fallback"), incumbent_of[e.id], scorer) for e in found.passed_on
        ),
        "lean": lean.name,
        "fallback": fallback.name,
    }
    route = found.route
    return _write(lean, fallback, data, route, notes, escalate_flagged, cache, name)


class CertifiedRoute(NamedTuple):
    """A threshold that may be used, before any artifact is written."""

    route: Cascade
    accepted_share: float
    """Of the certifying examples."""
    passed_on: tuple[Example, ...]


def certify_route(
    lean: Candidate,
    data: Development,
    *,
    lean_records: Sequence[Record],
    incumbent_records: Sequence[Record],
    epsilon: float,
    delta: float,
    escalate_flagged: bool = True,
    combine: Literal["fallback", "average"] = "fallback",
    escalate_below: float | None = None,
    decline_below: float | None = None,
    scorer: str = "label",
) -> CertifiedRoute:
    """The lowest certified threshold of a lean arm; arguments and errors as of `make_cascade`."""
    rules = _Rules(
        out_of_scope=lean.out_of_scope if escalate_flagged else None,
        escalate_flagged=escalate_flagged,
        escalate_below=escalate_below or 0.0,
        decline_below=decline_below or 0.0,
    )
    examples = _independent(data.dev_certify)
    _check_enough(len(examples), epsilon, delta)
    lean_of, incumbent_of = _by_id(lean_records), _by_id(incumbent_records)
    scores = np.array([_score(_of(lean_of, e, "lean"), rules) for e in examples])
    harmful = np.array([_worse(lean_of[e.id], _of(incumbent_of, e, "incumbent"), scorer) for e in examples])
    fitted = [lean_of[e.id] for e in data.dev_fit if e.id in lean_of]
    certified = certify_threshold(
        scores,
        harmful,
        epsilon=epsilon,
        delta=delta,
        grid=_grid([_score(r, rules) for r in fitted]),
    )
    if certified is None or certified.accepted_share <= 0:
        raise _nothing_certified(lean, scores, harmful, epsilon, delta)
    route = Cascade(
        lean=Single(candidate="lean"),
        fallback=Single(candidate="fallback"),
        threshold=certified.threshold,
        certificate=Certificate(
            epsilon=epsilon,
            delta=delta,
            n_examples=certified.n_examples,
            n_harmful=certified.n_harmful,
            data_digest=data.digest,
            reference=incumbent_records[0].candidate,
        ),
        combine=combine,
        escalate_below=escalate_below,
        decline_below=decline_below,
    )
    passed_on = [e for e, score in zip(examples, scores, strict=True) if score < certified.threshold]
    return CertifiedRoute(route, certified.accepted_share, tuple(passed_on))


def stands(record: Record, route: Cascade, *, out_of_scope: str | None, escalate_flagged: bool) -> bool:
    """Whether a cascade by this route keeps the lean arm's answer, as the cascade itself decides it."""
    rules = _Rules(
        out_of_scope=out_of_scope if escalate_flagged else None,
        escalate_flagged=escalate_flagged,
        escalate_below=route.escalate_below or 0.0,
        decline_below=route.decline_below or 0.0,
    )
    return _score(record, rules) >= max(route.threshold, 0.0)


def examples_needed(epsilon: float, delta: float) -> int:
    """Certifying examples without which not even a harmless threshold can be certified."""
    return math.ceil(math.log(delta) / math.log1p(-epsilon))


def _write(
    lean: Candidate,
    fallback: Candidate,
    data: Development,
    route: Cascade,
    notes: dict[str, Any],
    escalate_flagged: bool,
    cache: Path,
    name: str | None,
) -> Candidate:
    """The candidate folder: `lean/` and `fallback/`, each a whole candidate."""
    settings = {"route": msgspec.to_builtins(route), "escalate_flagged": escalate_flagged}
    name = name or f"{lean.name}|{fallback.name}"
    key = value_sha256(["cascade", CODE_VERSION, lean.digest, fallback.digest, settings])
    folder = cache / key[:20]
    if (found := find_intact(folder)) is not None:
        return msgspec.structs.replace(found, name=name)
    started = time.perf_counter()
    with folder_atomic(folder) as partial:
        link_or_copy_folder(lean.path, partial / "lean")
        link_or_copy_folder(fallback.path, partial / "fallback")
        for arm in ARMS:
            _drop_clock_readings(partial / arm / MANIFEST)
        applied = AppliedStep(
            step="cascade",
            settings={
                "epsilon": route.certificate.epsilon if route.certificate else None,
                "delta": route.certificate.delta if route.certificate else None,
                "threshold": route.threshold,
                "escalate_flagged": escalate_flagged,
                "combine": route.combine,
                "escalate_below": route.escalate_below,
                "decline_below": route.decline_below,
            },
            seed=0,
            versions=library_versions("numpy", "scipy"),
            parents=(lean.digest, fallback.digest),
            data_digest=data.digest,
            duration_s=time.perf_counter() - started,
            notes=notes,
        )
        write_candidate(
            partial,
            name=name,
            backend="cascade",
            labels=lean.labels,
            out_of_scope=lean.out_of_scope,
            settings=settings,
            lineage=(*lean.lineage, applied),
            licence=_joint_licence(lean, fallback),
        )
    return Candidate.at(folder)


def _drop_clock_readings(manifest: Path) -> None:
    """Take out of an arm's lineage how long things took: its bytes are the cascade's, whose digest would
    otherwise differ from one run to the next of the same seed."""
    found = read_json(manifest, dict[str, Any])
    for applied in found["lineage"]:
        applied["duration_s"] = None
        applied["notes"] = {
            name: value
            for name, value in applied.get("notes", {}).items()
            if not (name.endswith("_s") or "_s_per_" in name)
        }
    write_json(manifest, found)


def _check(
    lean: Candidate,
    fallback: Candidate,
    lean_records: Sequence[Record],
    fallback_records: Sequence[Record],
    epsilon: float,
    delta: float,
) -> None:
    for what, share in (("epsilon", epsilon), ("delta", delta)):
        if not 0 < share < 1:
            raise InvalidInput(f"{what} must be in (0, 1), got {share}.")
    if lean.labels != fallback.labels:
        raise InvalidInput(
            "the arms of a cascade must have the same labels in the same order, got "
            f"{list(lean.labels[:5])}… and {list(fallback.labels[:5])}…."
        )
    for candidate, records in ((lean, lean_records), (fallback, fallback_records)):
        foreign = next((r for r in records if r.candidate != candidate.digest), None)
        if foreign is not None:
            raise InvalidInput(
                f"records of {candidate.name} must be of candidate {candidate.digest[:12]}…, "
                f"got {foreign.candidate[:12]}… at {foreign.example_id}."
            )


def _check_enough(n_examples: int, epsilon: float, delta: float) -> None:
    needed = examples_needed(epsilon, delta)
    if n_examples < needed:
        raise NotEnoughData(
            f"a cascade with epsilon {epsilon} and delta {delta} needs at least {needed} examples in the "
            f"certifying half of dev, got {n_examples}. Add about {2 * (needed - n_examples)} examples to "
            "dev, or allow a larger epsilon."
        )


def _nothing_certified(
    lean: Candidate, scores: np.ndarray, harmful: np.ndarray, epsilon: float, delta: float
) -> StepFailed:
    """Why there is no cascade, with what would help."""
    confident = scores >= np.quantile(scores, 0.9) if len(scores) else scores > 0
    n_harmful = int((harmful & confident & (scores > NEVER)).sum())
    alike = len(scores) > 1 and len(np.unique(scores)) == 1
    surest = (
        "its confidence is the same on all of them, and"
        if alike
        else f"among the {int(confident.sum())} it is surest of,"
    )
    return StepFailed(
        f"no threshold could be certified for {lean.name} at epsilon {epsilon} and delta {delta} on "
        f"{len(scores)} examples: {surest} it errs where the incumbent is right on {n_harmful}. "
        "Allow a larger epsilon, make the lean arm better, or add examples to dev."
    )


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """What decides besides confidence, as the cascade itself applies it."""

    out_of_scope: str | None
    escalate_flagged: bool
    escalate_below: float
    decline_below: float


def _score(record: Record, rules: _Rules) -> float:
    """The lean arm's confidence; NEVER or ALWAYS where a rule passes the input on or keeps it."""
    if record.error is not None or record.confidence is None:
        return NEVER
    rank = 1.0 if record.in_scope is None else record.in_scope
    if rank < rules.decline_below:
        return ALWAYS
    if rank < rules.escalate_below:
        return NEVER
    if rules.escalate_flagged and (
        record.flagged or (rules.out_of_scope is not None and record.output == rules.out_of_scope)
    ):
        return NEVER
    return record.confidence


def _grid(scores: Sequence[float]) -> np.ndarray | None:
    """Thresholds to try, strictest first; None leaves them to the test's default."""
    usable = np.array([score for score in scores if NEVER < score < ALWAYS])
    if len(usable) < GRID_SIZE // 5:
        return None
    return np.unique(np.append(np.quantile(usable, np.linspace(0, 1, GRID_SIZE)), 0.0))[::-1]


def _independent(examples: Sequence[Example]) -> tuple[Example, ...]:
    """One example of each group, by a draw on its id: the binomial tail counts independent ones."""
    chosen: dict[str, Example] = {}
    for example in examples:
        group = f"id {example.id}" if example.group is None else f"group {example.group}"
        if group not in chosen or _draw(example) < _draw(chosen[group]):
            chosen[group] = example
    return tuple(example for example in chosen.values() if example.is_judged)


def _draw(example: Example) -> bytes:
    return hashlib.blake2b(example.id.encode(), digest_size=8).digest()


def _by_id(records: Sequence[Record]) -> dict[str, Record]:
    return {record.example_id: record for record in records}


def _of(records: Mapping[str, Record], example: Example, whose: str) -> Record:
    if example.id not in records:
        raise InvalidInput(
            f"{whose}_records must cover the certifying half of dev, got none at {example.id}. "
            "Evaluate it on dev first."
        )
    return records[example.id]


def _worse(record: Record, incumbent: Record, scorer: str) -> bool:
    """Whether an answer is judged lower than the incumbent's; one that failed is judged zero."""
    before = 0.0 if incumbent.error is not None else _judged(incumbent, scorer)
    return (0.0 if record.error is not None else _judged(record, scorer)) < before


def _judged(record: Record, scorer: str) -> float:
    score = record.scores.get(scorer)
    if score is None and scorer == "label":
        return float(record.output == record.expected)
    if score is None:
        raise InvalidInput(
            f"records must be judged by {scorer!r} to certify a cascade, "
            f"got no score at {record.example_id}."
        )
    return score


def _joint_licence(lean: Candidate, fallback: Candidate) -> str | None:
    """Licence expression of both; None when either is unknown."""
    if lean.licence is None or fallback.licence is None:
        return None
    return lean.licence if lean.licence == fallback.licence else f"{lean.licence} AND {fallback.licence}"
