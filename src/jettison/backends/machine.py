"""What this machine is: the same model file may answer, and cost, differently on another.

Nothing heavy is imported: the processor speaks through the operating system, and
libraries through their package metadata.
"""

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FEATURES = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
)
"""Instruction sets that change what a quantized or bfloat16 model costs or answers."""
RUNTIMES = ("onnxruntime", "openvino", "torch", "transformers", "tokenizers", "numpy")


def describe_machine() -> dict[str, str]:
    """Processor, instruction sets, cores, memory, system and runtime versions, for a release's record.

    Returns:
        Name to value, all text. What cannot be found out is left out; a runtime that is
        not installed is left out too.
    """
    found = {
        "cpu": _cpu_model(),
        "features": " ".join(sorted(cpu_features())),
        "architecture": platform.machine(),
        "cores": str(os.cpu_count() or ""),
        "usable_cores": str(usable_cores()),
        "memory_bytes": _memory_bytes(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", ""),
        "os": f"{platform.system()} {platform.release()}",
        "jettison": _installed("jettison"),
        "python": platform.python_version(),
        **{name: _installed(name) for name in RUNTIMES},
    }
    return {name: value for name, value in found.items() if value}


@cache
def answering_machine() -> tuple[tuple[str, str], ...]:
    """What of this machine may change an answer or its cost: processor, runtimes, threads.

    What was answered or measured under other values is evidence of another machine.
    """
    found = describe_machine()
    names = ("architecture", "cpu", "features", "omp_num_threads", "python", *RUNTIMES)
    return tuple((name, found.get(name, "")) for name in names)


@cache
def cpu_features() -> frozenset[str]:
    """Those of `FEATURES` that this processor reports; empty where the system does not tell."""
    for line in _cpuinfo():
        name, _, value = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            return frozenset(FEATURES) & frozenset(value.split())
    return frozenset()


def has_vnni() -> bool:
    """Whether 8-bit products add up in 32 bits, so that full-range int8 weights cannot saturate.

    Without it (AVX2 and AVX-512 before VNNI) two products share a 16-bit sum, and
    weights must keep to 7 bits. Processors other than x86 do not have that pitfall.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686", "x86"):
        return True
    return bool(cpu_features() & {"avx512_vnni", "avx_vnni", "amx_int8"})


def has_bfloat16() -> bool:
    """Whether bfloat16 products run in hardware."""
    return bool(cpu_features() & {"avx512_bf16", "amx_bf16", "bf16"})


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_model() -> str:
    for line in _cpuinfo():
        name, _, value = line.partition(":")
        if name.strip().lower() == "model name":
            return value.strip()
    return platform.processor()


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return []


def _memory_bytes() -> str:
    try:
        return str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return ""


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
