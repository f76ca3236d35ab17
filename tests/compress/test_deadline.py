"""A deadline ends what it must, changes nothing else, and what it changed is told from what it did not."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from clocks import clock_of
from jettison.candidate import CUT_NOTE, Candidate, write_candidate
from jettison.compress.deadline import Deadline
from jettison.compress.pace import Pace
from jettison.compress.recipe import lineage_words
from jettison.compress.step import Made, StepContext, apply_step
from jettison.errors import OutOfTime
from tiny import make_tiny_bert, tiny_candidate
from torch_steps import context_in, make, trained


def test_parts_of_a_deadline_end_with_it_and_tell_it_what_they_cut() -> None:
    """At 4 of 10 s: half of what is left ends at 7, two seconds earlier is 8; both are of the whole."""
    whole = Deadline(10.0, budget="3m", clock=clock_of(4.0))
    half, before = whole.share(0.5), whole.earlier(2.0)
    assert (half.at_s, before.at_s, half.budget) == (7.0, 8.0, "3m")
    assert not half.is_over()
    assert not whole.has_cut
    late = Deadline(10.0, clock=clock_of(11.0))
    part = late.share(0.5)
    assert part.at_s == 10.0  # not more time, the later it is
    assert part.is_over()
    assert late.has_cut


def test_a_training_goes_by_its_steps_until_these_would_end_too_late() -> None:
    """A hundred steps in 10 s. By 5 s of them 40 are done, which comes to 12.5 s for all."""
    now = 0.0
    deadline = Deadline(10.0, clock=lambda: now)
    pace = Pace(100, deadline)
    for now, step in ((0.0, 0), (4.9, 1), (5.0, 50), (6.0, 60)):  # noqa: B007  # the clock reads `now`
        assert pace.place(step) == step
    assert not deadline.has_cut
    now = 7.0
    assert pace.place(60) == 60  # what is done stays done
    assert deadline.has_cut
    now = 8.5  # half of the time that was left then: half of the 40 steps that were
    assert pace.place(65) == pytest.approx(80)
    assert pace.place(90) == 90
    now = 12.0
    assert pace.place(91) == 100


def test_without_a_deadline_places_are_steps() -> None:
    pace = Pace(3, None)
    assert [pace.place(step) for step in range(4)] == [0, 1, 2, 3]


class Counting(msgspec.Struct, frozen=True, kw_only=True):
    """A step that counts to ten, or to where its deadline is over."""

    name: ClassVar[str] = "counting"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        for number in range(10):
            if context.deadline is not None and context.deadline.is_over():
                return Made(settings={"reached": number})
        return Made(settings={"reached": 10})


@pytest.fixture
def counted(tmp_path: Path) -> Any:
    """Applies the step with a deadline, or without; gives how far it came."""
    (tmp_path / "large").mkdir()
    parent = write_candidate(tmp_path / "large", name="large", backend="fake", labels=["a", "b"])
    context = context_in(tmp_path, incumbent=parent)

    def apply(deadline: Deadline | None) -> Candidate:
        context_now = replace(context, deadline=deadline)
        return apply_step(Counting(), parent, context_now, cache=tmp_path / "cache")

    return apply


def over_after_four(budget: str) -> Deadline:
    """Asked once before the step begins, and at each of its numbers."""
    return Deadline(1.0, budget=budget, clock=clock_of(*[0.0] * 5, 2.0))


def test_what_was_cut_short_is_found_again_by_the_same_budget_alone(counted: Any) -> None:
    cut = counted(over_after_four("3m"))
    assert (cut.settings["reached"], cut.lineage[-1].notes) == (4, {CUT_NOTE: True})
    assert lineage_words(cut) == ("counting, cut short by the budget",)
    assert counted(Deadline(-1.0, budget="3m", clock=clock_of(0.0))).digest == cut.digest  # no time at all
    longer = counted(Deadline(1.0, budget="10m", clock=clock_of(*[0.0] * 8, 2.0)))
    assert longer.settings["reached"] == 7
    whole = counted(None)
    assert (whole.settings["reached"], whole.lineage[-1].notes) == (10, {})
    assert counted(over_after_four("3m")).digest == whole.digest  # there is a better one now


def test_what_a_deadline_of_nobodys_budget_cut_is_not_found_again(counted: Any) -> None:
    assert counted(over_after_four("")).settings["reached"] == 4
    later = Deadline(1.0, clock=clock_of(*[0.0] * 7, 2.0))
    assert counted(later).settings["reached"] == 6


def test_what_was_done_in_time_is_found_again_by_all(counted: Any, tmp_path: Path) -> None:
    early = counted(Deadline(1.0, budget="3m", clock=clock_of(0.0)))
    assert early.lineage[-1].notes == {}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [early.path.name]
    again = counted(Deadline(-1.0, budget="10m", clock=clock_of(0.0)))
    assert (again.path, counted(None).path) == (early.path, early.path)


def test_a_step_does_not_begin_after_its_deadline(counted: Any, tmp_path: Path) -> None:
    with pytest.raises(OutOfTime, match=r"'counting' must begin before the deadline, got no time left"):
        counted(Deadline(-1.0, budget="3m", clock=clock_of(0.0)))
    assert not (tmp_path / "cache").exists()


SLOW_AT_FIRST = (0.0, 0.0, 0.0, 0.29)
"""Of a second: whatever was done by then, it is less than the share of a teacher or of a training."""
STEPS = (
    {"step": "finetune", "epochs": 2, "batch_size": 16, "seeds": 2, "precision": "float32"},
    {"step": "distill", "epochs": 2, "batch_size": 16, "augment": 1.0, "precision": "float32"},
    {"step": "distill_static", "epochs": 2, "d": 8, "channels": 8, "hidden": 8, "augment": 40},
    {"step": "distill_linear", "epochs": 2, "augment": 40},
)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["step"])
def test_a_deadline_that_does_not_bite_changes_no_weight(tmp_path: Path, step: dict[str, Any]) -> None:
    incumbent, _ = trained()
    free = make(tmp_path / "free", incumbent, step)
    deadline = Deadline(1.0, clock=clock_of(*SLOW_AT_FIRST))
    held = make(tmp_path / "held", incumbent, step, deadline=deadline)
    assert held.digest == free.digest
    assert CUT_NOTE not in held.lineage[-1].notes


@pytest.mark.parametrize("step", STEPS[:3], ids=lambda step: step["step"])
def test_a_training_that_would_end_too_late_is_told_from_one_that_ends_in_time(
    tmp_path: Path, step: dict[str, Any]
) -> None:
    """Twenty batches or more, and a second goes by each time that somebody looks at the clock."""
    incumbent, _ = trained()
    free = make(tmp_path / "free", incumbent, step)
    seconds = count(0.0)
    held = make(tmp_path / "held", incumbent, step, deadline=Deadline(24.0, clock=lambda: next(seconds)))
    assert held.lineage[-1].notes[CUT_NOTE]
    assert held.digest != free.digest


def test_a_teacher_that_cannot_answer_in_time_makes_no_student_and_keeps_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    incumbent, development = trained()
    monkeypatch.setattr("jettison.compress.teacher.CHUNK", 40)
    deadline = Deadline(1.0, clock=clock_of(0.0, 0.0, 0.0, 2.0))
    n_texts = len(development.train) + len(development.unlabelled)
    with pytest.raises(OutOfTime, match=rf"answer {n_texts} texts before the deadline, got 80 answers"):
        make(tmp_path, incumbent, {"step": "distill_linear"}, deadline=deadline)
    assert len(list((tmp_path / "workspace").rglob("*.npz"))) == 2


def test_a_second_seed_that_there_is_no_time_for_is_left_out(tmp_path: Path) -> None:
    _, development = trained()
    start = tiny_candidate(make_tiny_bert(tmp_path / "random", development.labels), development)
    step = {"step": "finetune", "epochs": 50, "seeds": 2, "curve": [0.5], "precision": "float32"}
    over_at_first_batch = Deadline(1.0, clock=clock_of(*[0.0] * 5, 2.0))
    tuned = make(tmp_path, start, step, deadline=over_at_first_batch)
    notes = tuned.lineage[-1].notes
    assert notes["training"]["stopped"] == "deadline"
    assert [point["train_share"] for point in notes["curve"]] == [1.0]
