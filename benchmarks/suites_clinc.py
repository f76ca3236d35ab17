"""Where do lean models of CLINC150 fail, and do their confidences mean the same?

One `jettison run` with `[suites]`: students are trained on the imbalanced training set, the incumbent (the
shared fine-tuned MiniLM) has seen the balanced one. Incumbent, int8, static and linear student and their
cascades answer the test split's in-scope, rare and out-of-scope queries, sentences of other domains and
perturbed copies, and each stands an attack of its own. Confidences are calibrated on dev and checked on
test. Prints one JSON object a figure; finished work in `--work` is used again.

    python benchmarks/suites_clinc.py [--work DIR] [--attacked 100]
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np

from beside import SHARED
from jettison.cli.progress import Screen
from jettison.decide.report_evidence import ConfidenceCurves
from jettison.decide.report_types import ReportContent, read_report_content
from jettison.loop.config import RunConfig, read_config
from jettison.loop.run import run
from jettison.model import softmax
from jettison.record import Record
from jettison.stats.binomial import clopper_pearson
from jettison.stats.calibration_check import check_calibration
from jettison.stats.ranking import auroc, recall_at_false_alarm_share
from planted_slice import line, records_on_test, write_task

SETTINGS = """\
format = 1
task = "task.toml"
incumbent = "{incumbent}"
output = "run"
seed = 0
training_threads = 1
cost_s = 1.0
cost_openings = 1
n_cost_tasks = 40
n_shown = 4

[[recipes]]
name = "onnx-int8"
steps = [
  {{step = "export", target = "onnx"}},
  {{step = "quantize", method = "dynamic"}},
  {{step = "settings", max_tokens = "data"}},
]
[[recipes]]
name = "linear"
steps = [{{step = "distill_linear"}}]
[[recipes]]
name = "static"
steps = [{{step = "distill_static", augment = 10000, epochs = 10}}]

[[gates]]
type = "not_worse"
margin = 0.01
slices = ["scope=in"]
[[gates]]
type = "not_worse"
scorer = "out_of_scope"
margin = 0.02
slices = ["scope=out"]

[suites]
gates = ["perturbed", "long_tail"]
per_example = 1
out_of_domain = ["sentences.jsonl"]
attacked = {attacked}
budget = 40
"""
N_OTHER = 500
N_DRAWS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("bench-runs") / "suites_clinc")
    parser.add_argument("--attacked", type=int, default=100)
    given = parser.parse_args()
    if not SHARED.exists():
        raise SystemExit(f"the shared data must stand in {SHARED}; set JETTISON_SHARED.")
    config = prepare(given.work.resolve(), attacked=given.attacked)
    with Screen() as screen:
        outcome = run(config, watcher=screen)
    content = read_report_content(outcome.folder)
    records = records_on_test(outcome.folder)
    for candidate in content.decision.candidates:
        print("\n".join(of_candidate(candidate.name, records[candidate.digest])))
    print("\n".join([*of_suites(content), *of_confidences(content.suites.curves)]))


def prepare(folder: Path, *, attacked: int) -> RunConfig:
    """The task, sentences of other domains, and a run's settings, as files that anybody can run again."""
    write_task(folder)
    source = SHARED / "data" / "sentiment_domains" / "sentiment_domains.jsonl"
    rows = [json.loads(text) for text in source.read_text().splitlines()]
    drawn = np.random.default_rng(0).choice(len(rows), N_OTHER, replace=False)
    kept = [{"text": rows[i]["text"]} for i in sorted(drawn.tolist())]
    (folder / "sentences.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    incumbent = (SHARED / "models" / "clinc-minilm").as_posix()
    (folder / "jettison.toml").write_text(SETTINGS.format(incumbent=incumbent, attacked=attacked))
    return read_config(folder / "jettison.toml")


def of_candidate(name: str, records: Sequence[Record]) -> Iterator[str]:
    """What one candidate does by itself."""
    inside = [r for r in records if r.slices.get("tier") == "in_domain"]
    outside = [r for r in records if r.slices.get("ood") == "task"]
    other = [r for r in records if r.slices.get("ood") == "sentences"]
    for word, strange in (("out of scope", outside), ("other domains", other)):
        ranks = [np.array([r.in_scope for r in side], float) for side in (inside, strange)]
        of = f"in_scope ranks of {len(inside):,} in scope and {len(strange):,} of {word}; bootstrap"
        yield line(f"AUROC of {word}, {name}", *bootstrap(*ranks, auroc), "share", of)
        recall = bootstrap(ranks[0], ranks[1], recall_at_5)
        yield line(f"recall of {word} at 5 % false alarms, {name}", *recall, "share", "threshold from test")
        flagged = [bool(r.flagged) for r in strange]
        yield share(f"flagged of {word}, {name}", flagged, "threshold for 5 % calibrated on dev")
    yield share(f"false alarms, {name}", [bool(r.flagged) for r in inside], "calibrated to 5 % on dev")
    yield share(f"right in scope, {name}", rights(inside), f"n = {len(inside):,}")
    yield from uncalibrated(name, inside)
    for column in ("long_tail", "tail_class", "tail_density", "tail_tokens", "tail_length"):
        members = [r for r in inside if r.slices.get(column) == "yes"]
        yield share(f"right on {column}, {name}", rights(members), f"n = {len(members):,}")
    changed = [r for r in records if r.slices.get("tier") == "perturbed"]
    # One copy of each text: all are independent.
    yield share(f"right on perturbed, {name}", rights(changed), f"n = {len(changed):,}")
    for kind in sorted({r.slices["perturbation"] for r in changed}):
        members = [r for r in changed if r.slices["perturbation"] == kind]
        yield share(f"right on {kind}, {name}", rights(members), f"n = {len(members):,}")


def uncalibrated(name: str, records: Sequence[Record]) -> Iterator[str]:
    """The error of the plain softmax, where the records hold logits."""
    if any(r.logits is None for r in records):
        return
    rows = softmax(np.array([r.logits for r in records], float))
    e = check_calibration(rows.max(axis=1), rights(records)).ece
    yield line(f"ECE on test before calibration, {name}", e.value, e.low, e.high, "share", "plain softmax")


def of_suites(content: ReportContent) -> Iterator[str]:
    """Differences to the incumbent, attacks and found slices, as the report has them."""
    for one in content.suites.comparisons:
        if (d := one.difference) is not None:
            name = f"difference on {one.slice} ({one.scorer}), {one.candidate}"
            yield line(name, d.value, d.low, d.high, "share", f"incumbent, paired, n = {one.n:,}")
    for attack in content.suites.attacks:
        if (s := attack.success) is not None:
            asked = f"budget {attack.budget}, {attack.mean_queries:.1f} asked"
            against = f"{attack.n_right} right of {attack.n}, {asked}"
            yield line(f"attack success, {attack.candidate}", s.value, s.low, s.high, "share", against)
        if (d := attack.robust_difference) is not None:
            name = f"right under attack, difference, {attack.candidate}"
            yield line(name, d.value, d.low, d.high, "share", "incumbent, each under its own attack")
    for search in content.suites.searches:
        for found in search.found:
            name = f"found on test: {found.name}, {search.candidate}"
            against = f"elsewhere {found.rest_loss:.4f}, n = {found.n}, p = {found.p_value:.2g}"
            yield line(name, found.loss, found.low, found.high, "share", against)


def of_confidences(curves: Sequence[ConfidenceCurves]) -> Iterator[str]:
    """Error of calibration on dev and on test, answers near 0.9, and differences to the incumbent."""
    for curve in curves:
        for check in (curve.dev, curve.test):
            if check is None:
                continue
            e, g, at = check.ece, check.gap, f"{check.split}, {curve.candidate}"
            refuted = "refuted" if curve.refuted and check.split == "test" else "not refuted"
            said = f"n = {check.n:,}, p = {check.p_value:.3f}, {refuted}"
            yield line(f"ECE on {at}", e.value, e.low, e.high, "share", said)
            yield line(f"confidence minus right on {at}", g.value, g.low, g.high, "share", said)
            if (near := check.near) is not None:
                said = f"n = {near.n:,}, mean confidence {near.confidence:.3f}"
                yield line(f"right near 0.9 on {at}", near.right_share, near.low, near.high, "share", said)
        for word, d in (("ECE", curve.ece_difference), ("gap", curve.gap_difference)):
            if d is not None:
                name = f"{word} difference, {curve.candidate}"
                yield line(name, d.value, d.low, d.high, "share", "incumbent, paired on test")


def recall_at_5(inside: np.ndarray, outside: np.ndarray) -> float:
    """Share of what is outside under the 5 % quantile of what is inside."""
    return recall_at_false_alarm_share(-outside, -inside, 0.05)


def rights(records: Sequence[Record]) -> list[bool]:
    return [r.scores["label"] == 1.0 for r in records]


def bootstrap(
    one: np.ndarray, other: np.ndarray, statistic: Callable[[np.ndarray, np.ndarray], float]
) -> tuple[float, float, float]:
    """The statistic of two samples with its 95 % percentile interval."""
    rng = np.random.default_rng(0)
    draws = [statistic(rng.choice(one, len(one)), rng.choice(other, len(other))) for _ in range(N_DRAWS)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return statistic(one, other), float(low), float(high)


def share(name: str, hits: Sequence[bool], against: str) -> str:
    """A share with its exact interval; null where there is nothing to count."""
    if not hits:
        return line(name, None, None, None, "share", "no such example")
    seen = clopper_pearson(sum(hits), len(hits))
    return line(name, seen.value, seen.low, seen.high, "share", against)


if __name__ == "__main__":
    main()
