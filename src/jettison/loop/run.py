"""One turn of the loop offline: from the model a team runs to a decision, a release and a report."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from jettison.backends.answer_cache import answers_kept_in
from jettison.backends.machine import describe_machine
from jettison.compress.checkpoint_facts import WARNING, can_be_cut, loses_parts, parts_of_a_layer
from jettison.compress.incumbent import take_in
from jettison.compress.quantize import has_float_weights
from jettison.compress.recipe import (
    EXTRAS,
    Recipe,
    Surroundings,
    auto_recipes,
    check_recipe_applies,
    installed_extras,
    recipes_from,
)
from jettison.compress.settings import mean_tokens
from jettison.compress.teacher import keep_answers
from jettison.decide.report import rewrite_report
from jettison.decide.report_suites import calibration_warnings
from jettison.decide.report_types import write_report_content
from jettison.decision import Decision, Gate, NotShownWorse, NotWorse
from jettison.errors import InvalidInput, UnknownName
from jettison.evaluate.replay import DECODED
from jettison.evaluate.slices import Slicer
from jettison.evaluate.suites.safety import safety_probes
from jettison.files import write_json
from jettison.loop.cascades import add_cascades
from jettison.loop.checks import check_dev, check_scorers, check_slices
from jettison.loop.config import RunConfig
from jettison.loop.failures import check_incumbent_answers, failure_words
from jettison.loop.nominate import Ballot, nominate
from jettison.loop.on_test import decide_on_test, reads_logits
from jettison.loop.release_chosen import release_chosen
from jettison.loop.remote_words import why_no_money
from jettison.loop.safety import ON_PROBES, probes_of, safety_gates, with_scorer_errors
from jettison.loop.search import (
    Findings,
    first_contender,
    search,
    with_costs,
)
from jettison.loop.suite_evidence import suite_evidence
from jettison.loop.suite_run import gates_of, with_suites
from jettison.loop.telling import report_content
from jettison.loop.time_plan import decision_s, example_cpu_s, making_s
from jettison.loop.under_load import load_of
from jettison.loop.watcher import Clock, Silent, Watcher
from jettison.loop.workspace import Contender, Workspace
from jettison.task import Example
from jettison.task.read import read_task


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to, and where it lies."""

    decision: Decision
    folder: Path
    report: Path
    release: Path | None
    duration_s: float


def run(config: RunConfig, *, watcher: Watcher | None = None) -> Outcome:
    """Compress, evaluate, decide, release. Killed at any point, it goes on where it stopped.

    Args:
        config: Settings with resolved paths, as `read_config` gives.
        watcher: Hears of progress; None is silent.

    Raises:
        JettisonError: The task, the incumbent or a setting is unusable, or the disk is.
    """
    with answers_kept_in(Path(config.output) / "cache" / "answers"):
        return _run(config, watcher)


def _run(config: RunConfig, watcher: Watcher | None) -> Outcome:
    chosen = nomination(config, watcher=watcher)
    workspace, incumbent, measured, ballot, gates, findings = (
        chosen.workspace,
        chosen.incumbent,
        chosen.contenders,
        chosen.ballot,
        chosen.gates,
        chosen.findings,
    )
    finalists = _finalists(measured, ballot)
    if finalists:
        workspace.watcher.stage("cost of the finalists, thoroughly")
        left_s = workspace.clock.budget_left_s(reserve_s=decision_s(workspace, chosen.example_s))
        incumbent, finalists = with_costs(workspace, incumbent, finalists, thorough=True, wall_s=left_s)
    judged = decide_on_test(workspace, incumbent, finalists, ballot, gates, chosen.probes, findings)
    evidence = suite_evidence(workspace, [incumbent, *finalists], judged.answers, judged.examples)
    release = release_chosen(
        workspace,
        incumbent,
        finalists,
        decision=judged.decision,
        examples=judged.examples,
        keep_logits=reads_logits((incumbent, *finalists)),
        notes=calibration_warnings([c for c in evidence.curves if c.candidate == judged.decision.chosen]),
    )
    rivals = [c for c in finalists if c.name in (ballot.nominee, ballot.fallback)]
    load = load_of(workspace, [incumbent, *rivals])
    workspace.watcher.stage("writing the report")
    content = report_content(
        workspace,
        incumbent,
        finalists,
        findings,
        ballot,
        judged.decision,
        judged.answers,
        {example.id: example.input for example in (*judged.examples, *judged.probes)},
    )
    content = msgspec.structs.replace(content, load=load, suites=evidence)
    write_report_content(workspace.folder, content)
    pages = rewrite_report(workspace.folder)
    return Outcome(
        decision=judged.decision,
        folder=workspace.folder,
        report=pages.html,
        release=release.path if release is not None else None,
        duration_s=workspace.clock.spent_s(),
    )


@dataclass(frozen=True, kw_only=True)
class Nomination:
    """What dev alone came to: who would be put to the test, and all that was found on the way."""

    workspace: Workspace
    incumbent: Contender
    contenders: Sequence[Contender]
    ballot: Ballot
    gates: Sequence[Gate]
    findings: Findings
    example_s: float
    """CPU-seconds of the incumbent for one input in a batch."""
    probes: Sequence[Example] = ()


def nomination(config: RunConfig, *, watcher: Watcher | None = None) -> Nomination:
    """Everything of a run that comes before the test split is read; finished work is reused.

    Args:
        config: Settings with resolved paths, as `read_config` gives.
        watcher: Hears of progress; None is silent.

    Raises:
        JettisonError: The task, the incumbent or a setting is unusable, or the disk is.
    """
    workspace = _open_workspace(config, watcher or Silent())
    recipes_given = None if isinstance(config.recipes, str) else recipes_from(config.recipes)
    for recipe in recipes_given or ():
        check_recipe_applies(recipe)
    task = workspace.task
    gates = gates_of(config, task, workspace.scorer)
    on_task = [gate for gate in gates if not _on_probes(gate, workspace)]
    check_scorers(on_task, workspace)
    check_slices(on_task, workspace)
    check_dev(task.development)
    safety_probes([Path(name) for name in config.safety_probes])  # a broken file is told now, not in hours
    gates = with_scorer_errors(gates, scorers=workspace.scorers, labelled=config.scorer_labels)
    write_json(workspace.folder / "run.json", config)
    incumbent, example_s = _incumbent(workspace)
    probes = probes_of(workspace, incumbent.candidate)
    of_probes = {name: file for name, file in config.scorer_labels.items() if name in ON_PROBES}
    asked_of_probes = safety_gates(probes, gates)
    gates = (
        *gates,
        *with_scorer_errors(asked_of_probes, scorers=workspace.scorers, labelled=of_probes),
    )
    recipes = recipes_given or _auto(workspace, incumbent, example_s)
    findings = search(
        workspace,
        incumbent,
        recipes,
        training_threads=training_threads(config),
        example_s=example_s,
    )
    add_cascades(workspace, incumbent, findings)
    incumbent, measured = _all_measured(workspace, incumbent, findings.contenders, example_s)
    ballot = nominate(
        measured,
        incumbent,
        on_task,
        n_test=workspace.task.slice_counts,
        nominate_at=config.nominate_at,
        n_shown=config.n_shown,
        seed=config.seed,
    )
    return Nomination(
        workspace=workspace,
        incumbent=incumbent,
        contenders=measured,
        ballot=ballot,
        gates=gates,
        findings=findings,
        example_s=example_s,
        probes=probes,
    )


def _on_probes(gate: Gate, workspace: Workspace) -> bool:
    """Whether a gate asks how probes were answered, which dev cannot foretell."""
    return (
        isinstance(gate, NotWorse | NotShownWorse)
        and gate.scorer in ON_PROBES
        and gate.scorer not in workspace.scorers
    )


def _all_measured(
    workspace: Workspace, incumbent: Contender, contenders: Sequence[Contender], example_s: float
) -> tuple[Contender, list[Contender]]:
    """All with costs: what the search measured beside the incumbent keeps them, cascades get theirs."""
    new = [c for c in contenders if c.cost is None]
    if not new:
        return incumbent, list(contenders)
    workspace.watcher.stage(f"cost of {len(new)} cascades, interleaved")
    left_s = workspace.clock.budget_left_s(reserve_s=decision_s(workspace, example_s))
    wall_s = None if left_s is None else left_s / 2
    incumbent, measured = with_costs(workspace, incumbent, new, thorough=False, wall_s=wall_s)
    costs = {contender.name: contender.cost for contender in measured}
    return incumbent, [replace(c, cost=c.cost or costs[c.name]) for c in contenders]


def training_threads(config: RunConfig) -> int:
    """Threads for making candidates: as set, or all cores."""
    return config.training_threads or os.cpu_count() or 1


def _open_workspace(config: RunConfig, watcher: Watcher) -> Workspace:
    clock = Clock(config.budget_s)
    watcher.stage("reading the task")
    whole = read_task(config.task)
    if config.suites is not None:
        watcher.stage("building the suites")
    task, suite = with_suites(config, whole)
    for finding in task.findings:
        if finding.severity != "note":
            watcher.found(f"{finding.severity}: {finding.message}")
    if config.when_out_of_scope is not None and task.out_of_scope is None:
        raise InvalidInput(
            f"when_out_of_scope must be left out of a run on a task without an out-of-scope label, got "
            f"{config.when_out_of_scope!r}. Name the label: `out_of_scope` under [labels] in {config.task}."
        )
    slicer = Slicer.fit(task.development)
    dev = slicer.apply(task.dev)
    return Workspace(
        config=config,
        task=task,
        slicer=slicer,
        dev=dev,
        watcher=watcher,
        clock=clock,
        suite=suite,
        whole=None if suite is None else whole,
    )


def _incumbent(workspace: Workspace) -> tuple[Contender, float]:
    """The model that runs today, and its CPU-seconds for one input in a batch."""
    config, task = workspace.config, workspace.task
    workspace.watcher.stage("taking in the incumbent")
    candidate = take_in(
        config.incumbent,
        labels=task.labels,
        out_of_scope=task.out_of_scope,
        cache=workspace.cache / "incumbent",
        seed=config.seed,
        data=task.development,
        threads=training_threads(config),
        progress=workspace.watcher.progress,
        endpoint=config.endpoint,
        workspace=workspace.shared,
    )
    if warning := candidate.lineage[0].notes.get(WARNING) if candidate.lineage else None:
        workspace.watcher.found(f"warning: incumbent: {warning}")
    # The incumbent is judged as it is used today: by its largest probability.
    candidate = workspace.calibrated(candidate, scope_rule="max_probability", as_today=True)
    candidate = msgspec.structs.replace(candidate, name="incumbent")
    started = time.process_time()
    recipe = Recipe(name="incumbent", steps=(), family="incumbent", why="what runs today")
    contender = first_contender(workspace, candidate, recipe)
    took_s = time.process_time() - started
    check_incumbent_answers(contender)
    _tell_students(workspace, contender)
    score = "not scored" if contender.dev_score is None else f"{contender.dev_score:.1%}"
    workspace.watcher.found(f"incumbent: {score} on {len(workspace.dev)} dev examples")
    if failed := failure_words(contender.records):
        workspace.watcher.found(f"warning: incumbent: {failed}")
    if no_money := why_no_money(contender, config.usd_per_hour):
        workspace.watcher.found(f"warning: {no_money}")
    return contender, example_cpu_s(contender.records, took_s=took_s)


def _tell_students(workspace: Workspace, incumbent: Contender) -> None:
    """Keep what the incumbent answered to dev for students that will be compared with it there."""
    if incumbent.candidate.backend not in DECODED:
        return
    answered = [record for record in incumbent.records if record.logits is not None]
    texts = {example.id: example.input for example in workspace.dev}
    keep_answers(
        workspace.shared,
        incumbent.candidate,
        [texts[record.example_id] for record in answered],
        np.array([record.logits for record in answered], np.float32),
    )


def _auto(workspace: Workspace, incumbent: Contender, example_s: float) -> tuple[Recipe, ...]:
    data = workspace.task.development
    n_texts = len(data.train) + len(data.unlabelled)
    around = Surroundings(
        installed=installed_extras(),
        n_train=n_texts,
        n_dev=len(data.dev),
        tokens_per_text=mean_tokens(incumbent.candidate, data),
        n_layers=incumbent.candidate.settings.get("n_layers"),
        can_be_cut=can_be_cut(incumbent.candidate),
        **parts_of_a_layer(incumbent.candidate),
        loses_parts=loses_parts(incumbent.candidate),
        example_s=example_s,
        has_float_weights=has_float_weights(incumbent.candidate),
        has_bfloat16="avx512_bf16" in describe_machine().get("features", ""),
        kind=data.kind,
        student=workspace.config.student,
        budget_s=workspace.config.budget_s,
        making_s=making_s(workspace, example_s, n_texts),
        n_workers=training_threads(workspace.config),
    )
    recipes = auto_recipes(incumbent.candidate, around)
    everywhere = msgspec.structs.replace(
        around,
        installed=frozenset(EXTRAS),
        has_bfloat16=True,
        has_float_weights=True,
        can_be_cut=True,
        n_neurons=None,
        n_heads=None,
        loses_parts=True,
    )
    known = {recipe.name for recipe in (*recipes, *auto_recipes(incumbent.candidate, everywhere))}
    unknown = next((name for name in workspace.config.skip if name not in known), None)
    if unknown is not None:
        raise UnknownName(f"skip must name automatic recipes among {sorted(known)}, got {unknown!r}.")
    return tuple(recipe for recipe in recipes if recipe.name not in workspace.config.skip)


def _finalists(measured: Sequence[Contender], ballot: Ballot) -> list[Contender]:
    """Those put to the test, nominee first."""
    by_name = {contender.name: contender for contender in measured}
    names = [ballot.nominee, ballot.fallback, *ballot.shown]
    return [by_name[name] for name in names if name is not None]
