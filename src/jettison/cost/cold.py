"""Cold starts: fresh processes, the artifact's cached pages dropped before each, several times over.

Only the artifact's files are dropped (posix_fadvise, which needs no root); those of the libraries stay
cached, since other processes use them. Whether the pages went is looked up, not taken for granted.
"""

import ctypes
import mmap
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.cost.process import MeasuredProcess
from jettison.cost.protocol import candidate_message
from jettison.cost.ratio import median_interval
from jettison.cost.subject import forget_pages
from jettison.decision import ColdStart, Interval
from jettison.task import Input


def measure_cold_starts(
    candidates: Sequence[Candidate],
    inputs: Sequence[Input],
    n: int,
    *,
    threads: int,
    say: Callable[[str, float | None], None],
) -> list[ColdStart]:
    """Start each candidate n times, in turn.

    Args:
        candidates: To start.
        inputs: The first of them is asked.
        n: Starts of each; under 6 there are medians without intervals.
        threads: Threads of every numeric library.
        say: Told how far it is.

    Raises:
        JettisonError: One does not open.
    """
    found: list[list[_Start]] = [[] for _ in candidates]
    modules = [_modules_of(candidate, inputs, threads) for candidate in candidates]
    for number in range(n):
        say("cold starts", number / n)
        for candidate, names, starts in zip(candidates, modules, found, strict=True):
            forget_pages(candidate)
            cached = cached_share(candidate)
            told = candidate_message(candidate)
            with MeasuredProcess(candidate, threads=threads) as process:
                opened = process.ask("open", candidate=told, threads=threads, modules=names)
                first = process.ask("take", inputs=msgspec.to_builtins(list(inputs[:1])))
                starts.append(_Start(opened["import_s"], opened["load_s"], first["first_answer_s"], cached))
    return [_cold_start(starts) for starts in found]


class _Start(NamedTuple):
    """One start, in seconds."""

    import_s: float
    load_s: float
    """Import and opening."""
    first_answer_s: float
    cached_share: float | None


def _modules_of(candidate: Candidate, inputs: Sequence[Input], threads: int) -> list[str]:
    """What a start imports up to its first answer; that one is not counted."""
    with MeasuredProcess(candidate, threads=threads) as process:
        process.ask("open", candidate=candidate_message(candidate), threads=threads)
        process.ask("take", inputs=msgspec.to_builtins(list(inputs[:1])))
        names: list[str] = process.ask("modules")["modules"]
    return names


def cached_share(candidate: Candidate) -> float | None:
    """Share of the artifact's pages that are in memory, in 0-1; None where the system does not tell."""
    n_cached = n_pages = 0
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
        for entry in candidate.files:
            with (candidate.path / entry.path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if not size:
                    continue
                # A private, writable view: ctypes wants its address, and nothing is written.
                with mmap.mmap(
                    file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
                ) as view:
                    pages = -(-size // mmap.PAGESIZE)
                    told = (ctypes.c_ubyte * pages)()
                    start = (ctypes.c_char * size).from_buffer(view)
                    failed = mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), told)
                    del start
                    if failed:
                        return None
                n_cached += sum(page & 1 for page in bytes(told))
                n_pages += pages
    except (OSError, AttributeError):
        return None
    return n_cached / n_pages if n_pages else None


def _cold_start(starts: Sequence[_Start]) -> ColdStart:
    cached = [start.cached_share for start in starts]
    known = [share for share in cached if share is not None]
    return ColdStart(
        n_starts=len(starts),
        import_s=_middle([start.import_s for start in starts]),
        open_s=_middle([start.load_s - start.import_s for start in starts]),
        load_s=_middle([start.load_s for start in starts]),
        first_answer_s=_middle([start.first_answer_s for start in starts]),
        cached_share=max(known) if known and len(known) == len(cached) else None,
    )


def _middle(values: Sequence[float]) -> Interval:
    found = median_interval(values, method="median of fresh processes, ranks of them")
    if found is not None:
        return found
    value = float(np.median(values))
    return Interval(value=value, low=min(values), high=max(values), method="least to most: no interval")
