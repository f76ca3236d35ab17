"""One candidate under measurement: its process, opened cold and warmed up, and what it has shown."""

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.cost.joules import Spent
from jettison.cost.memory import MemoryUse
from jettison.cost.process import MeasuredProcess
from jettison.decision import PhaseMemory
from jettison.errors import JettisonError
from jettison.task import Input

Progress = Callable[[str, float | None], None]


@dataclass
class Subject:
    """One open process and what it has shown so far."""

    candidate: Candidate
    process: MeasuredProcess
    load_s: float
    first_answer_s: float
    task_s: float = 0.0
    is_steady: bool = True
    died: str | None = None
    """Why it stopped in the middle, where what it had shown is kept."""
    cpu_s: list[float] = field(default_factory=list)
    """CPU-seconds per task, one figure a round."""
    held_s: list[float] = field(default_factory=list)
    """Wall seconds per task, less those in which other work had the CPU, one figure a round."""
    spent: Spent = field(default_factory=Spent)
    """What the machine's meters saw of its blocks."""
    latencies_s: list[float] = field(default_factory=list)
    throughput_per_s: float | None = None
    phases: list[MemoryUse] = field(default_factory=list)
    """Memory of loading, warm-up, and what was measured."""

    def end_phase(self) -> None:
        """Keep the memory of the phase that ends here."""
        self.phases.append(ask_memory(self.process))


def open_subjects(
    candidates: Sequence[Candidate],
    inputs: Sequence[Input],
    threads: int,
    stack: contextlib.ExitStack,
    say: Progress,
) -> list[Subject]:
    """Start one process a candidate, the files' cached pages dropped first where that is allowed."""
    subjects = []
    for candidate in candidates:
        say(f"opening {candidate.name}", None)
        forget_pages(candidate)
        process = stack.enter_context(MeasuredProcess(candidate, threads=threads))
        opened = process.ask("open", path=str(candidate.path), threads=threads)
        loaded = ask_memory(process)
        first = process.ask("take", inputs=msgspec.to_builtins(list(inputs)))
        if first["error"]:
            raise JettisonError(
                f"{candidate.name!r} must answer to be measured, but its first answer failed: "
                f"{first['error']}"
            )
        subjects.append(
            Subject(
                candidate=candidate,
                process=process,
                load_s=opened["load_s"],
                first_answer_s=first["first_answer_s"],
                phases=[loaded],
            )
        )
    return subjects


def warm_up(subject: Subject, rows: list[int], budget_s: float | None) -> None:
    """Answer until the medians of the last 3 windows agree within 10 %, in at most 20 windows or 2 s.

    Args:
        subject: Its `task_s` and `is_steady` are set.
        rows: Inputs of one window.
        budget_s: Of the whole run; one subject may warm up for a tenth of it.

    Source: the rule of Triton's perf analyzer.
    """
    cap_s = 2.0 if budget_s is None else min(2.0, 0.1 * budget_s)
    first = subject.process.ask("block", rows=rows[:4], repeats=1)["latencies_ns"]
    rows = rows if np.mean(first) * len(rows) < cap_s * 1e9 else rows[:4]
    repeats = max(1, int(2e7 / (float(np.mean(first)) * len(rows))))
    medians: list[float] = []
    spent_s = 0.0
    while True:
        window = subject.process.ask("block", rows=rows, repeats=repeats)["latencies_ns"]
        medians.append(float(np.median(window)) / 1e9)
        spent_s += sum(window) / 1e9
        last = medians[-3:]
        subject.is_steady = len(last) == 3 and max(last) <= 1.1 * min(last)
        if subject.is_steady or len(medians) == 20 or spent_s > cap_s:
            break
    subject.task_s = float(np.median(medians[-3:]))
    subject.end_phase()


def ask_memory(process: MeasuredProcess) -> MemoryUse:
    """Memory of the phase of a measuring process that ends here."""
    return msgspec.convert(process.ask("memory"), MemoryUse)


def phase_memory(phases: Sequence[MemoryUse]) -> PhaseMemory:
    """Loading, warm-up and steady phase as one record; phases that were not reached are None."""
    peaks = [use.peak_bytes for use in phases] + [None] * 3
    last = phases[-1] if len(phases) > 2 else MemoryUse(peak_bytes=None)
    return PhaseMemory(
        load_peak_bytes=peaks[0],
        warm_up_peak_bytes=peaks[1],
        steady_peak_bytes=peaks[2],
        steady_pss_bytes=last.pss_bytes,
        steady_uss_bytes=last.uss_bytes,
        n_children=last.n_children,
    )


def most_bytes(phases: Sequence[MemoryUse]) -> int | None:
    """The most of all phases; None where none was told."""
    return max((use.peak_bytes for use in phases if use.peak_bytes is not None), default=None)


def forget_pages(candidate: Candidate) -> None:
    """Let the system drop the files from its cache, so that loading is cold; harmless where refused."""
    for entry in candidate.files:
        with contextlib.suppress(OSError, AttributeError):
            handle = os.open(candidate.path / entry.path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
