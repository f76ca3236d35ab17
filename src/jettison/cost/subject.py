"""One candidate under measurement: its processes, opened and warmed up, and what they have shown."""

import contextlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.cost.joules import Spent
from jettison.cost.memory import MemoryUse
from jettison.cost.moved import Traffic
from jettison.cost.process import MeasuredProcess
from jettison.cost.protocol import candidate_message
from jettison.cost.ratio import openings_interval
from jettison.decision import Interval, PhaseMemory
from jettison.errors import JettisonError
from jettison.task import Input

Progress = Callable[[str, float | None], None]


class Opened(NamedTuple):
    """What opening a candidate in a fresh process took."""

    load_s: float
    first_answer_s: float
    loaded: MemoryUse


@dataclass
class Subject:
    """The process that is open now, and what it and those before it have shown so far."""

    candidate: Candidate
    process: MeasuredProcess
    load_s: float
    first_answer_s: float
    task_s: float = 0.0
    is_steady: bool = True
    died: str | None = None
    """Why it stopped in the middle, where what it had shown is kept."""
    cpu_s: list[list[float]] = field(default_factory=list)
    """CPU-seconds per task, one figure a round, opening by opening."""
    held_s: list[float] = field(default_factory=list)
    """Wall seconds per task, less those in which other work had the CPU, one figure a round."""
    spent: Spent = field(default_factory=Spent)
    """What the machine's meters saw of its blocks."""
    opening_latencies_s: list[list[float]] = field(default_factory=list)
    """Of its calls in the order of time, opening by opening."""
    rates_per_s: list[float] = field(default_factory=list)
    """Tasks per second in its best batches, one figure a pass."""
    batches: dict[str, Any] | None = None
    """What is asked for such a pass: chosen in the first opening."""
    traffic: list[Traffic] = field(default_factory=list)
    """What its answers were like, one figure a round."""
    correct: list[float] = field(default_factory=list)
    """Scores of the answers that were judged."""
    phases: list[list[MemoryUse]] = field(default_factory=list)
    """Memory of loading, warm-up, and what was measured, opening by opening."""

    @property
    def latencies_s(self) -> list[float]:
        """Of all openings together."""
        return [value for calls in self.opening_latencies_s for value in calls]

    @property
    def throughput_per_s(self) -> float | None:
        """The middle of its passes."""
        return float(np.median(self.rates_per_s)) if self.rates_per_s else None

    @property
    def mean_traffic(self) -> Traffic:
        """Of all rounds; what was never told is None."""

        def mean(values: Sequence[float | None]) -> float | None:
            known = [value for value in values if value is not None]
            return float(np.mean(known)) if known else None

        return Traffic(
            prompt_tokens=mean([one.prompt_tokens for one in self.traffic]),
            completion_tokens=mean([one.completion_tokens for one in self.traffic]),
            escalated_share=mean([one.escalated_share for one in self.traffic]),
            escalated_twice_share=mean([one.escalated_twice_share for one in self.traffic]),
        )

    def begin_opening(self, process: MeasuredProcess, opened: Opened) -> None:
        """Go on in a fresh process."""
        self.process = process
        self.phases.append([opened.loaded])
        self.cpu_s.append([])
        self.opening_latencies_s.append([])

    def end_phase(self) -> None:
        """Keep the memory of the phase that ends here."""
        self.phases[-1].append(ask_memory(self.process))


def open_subjects(
    candidates: Sequence[Candidate],
    inputs: Sequence[Input],
    threads: int,
    stack: contextlib.ExitStack,
    say: Progress,
) -> list[Subject]:
    """Start one process a candidate, one after another: the time to load is of a machine at rest.

    The files' cached pages are dropped first where that is allowed.
    """
    subjects = []
    for candidate in candidates:
        say(f"opening {candidate.name}", None)
        forget_pages(candidate)
        process = stack.enter_context(MeasuredProcess(candidate, threads=threads))
        opened = open_process(process, candidate, inputs, threads)
        subject = Subject(candidate, process, opened.load_s, opened.first_answer_s)
        subject.begin_opening(process, opened)
        subjects.append(subject)
    return subjects


def open_again(
    candidates: Sequence[Candidate],
    inputs: Sequence[Input],
    threads: int,
    stack: contextlib.ExitStack,
) -> list[tuple[MeasuredProcess, Opened | JettisonError]]:
    """Start another process a candidate, all at once: how long that takes is not asked."""
    processes = [
        stack.enter_context(MeasuredProcess(candidate, threads=threads)) for candidate in candidates
    ]

    def opened(process: MeasuredProcess, candidate: Candidate) -> Opened | JettisonError:
        try:
            return open_process(process, candidate, inputs, threads)
        except JettisonError as error:
            return error

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(zip(processes, pool.map(opened, processes, candidates), strict=True))


def open_process(
    process: MeasuredProcess, candidate: Candidate, inputs: Sequence[Input], threads: int
) -> Opened:
    """Have a process open the candidate and answer the first of the inputs.

    Raises:
        JettisonError: It does not open, or does not answer.
    """
    load_s = process.ask("open", candidate=candidate_message(candidate), threads=threads)["load_s"]
    loaded = ask_memory(process)
    first = process.ask("take", inputs=msgspec.to_builtins(list(inputs)))
    if first["error"]:
        raise JettisonError(
            f"{candidate.name!r} must answer to be measured, but its first answer failed: {first['error']}"
        )
    return Opened(load_s, first["first_answer_s"], loaded)


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


def phase_memory(openings: Sequence[Sequence[MemoryUse]]) -> PhaseMemory:
    """Loading, warm-up and steady phase as one record; phases that were not reached are None.

    Args:
        openings: Phases of each opening; of each phase the one that took most counts.
    """
    most = [_most_of(openings, phase) for phase in range(3)]
    load, warm, steady = (use or MemoryUse(peak_bytes=None) for use in most)
    return PhaseMemory(
        load_peak_bytes=load.peak_bytes,
        warm_up_peak_bytes=warm.peak_bytes,
        steady_peak_bytes=steady.peak_bytes,
        steady_pss_bytes=steady.pss_bytes,
        steady_uss_bytes=steady.uss_bytes,
        n_children=steady.n_children,
    )


def most_bytes(openings: Sequence[Sequence[MemoryUse]]) -> int | None:
    """The most of all phases of all openings; None where none was told."""
    peaks = [use.peak_bytes for phases in openings for use in phases if use.peak_bytes is not None]
    return max(peaks, default=None)


def peak_interval(openings: Sequence[Sequence[MemoryUse]]) -> Interval | None:
    """The most of all openings, with a t interval over each one's most around it; None with one."""
    told = [[use.peak_bytes for use in phases if use.peak_bytes is not None] for phases in openings]
    peaks = [[float(max(phases))] for phases in told if phases]
    found = openings_interval(peaks, of="peaks") if len(peaks) > 1 else None
    if found is None:
        return None
    most = max(peak for (peak,) in peaks)
    return Interval(
        value=most,
        low=min(found.low, most),
        high=max(found.high, most),
        method=found.method.replace("mean of", "most of"),
    )


def _most_of(openings: Sequence[Sequence[MemoryUse]], phase: int) -> MemoryUse | None:
    found = [phases[phase] for phases in openings if len(phases) > phase]
    return max(found, key=lambda use: use.peak_bytes or -1, default=None)


def forget_pages(candidate: Candidate) -> None:
    """Let the system drop the files from its cache, so that loading is cold; harmless where refused."""
    for entry in candidate.files:
        with contextlib.suppress(OSError, AttributeError):
            handle = os.open(candidate.path / entry.path, os.O_RDONLY)
            try:
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)
