"""Holds NumPy's matrix products to a number of threads.

OpenBLAS starts every core for products too small to gain from it: two cores then spend
more time on one short text than one core alone. Setting the environment is too late once
NumPy is loaded, so that the bundled library is told directly.
"""

import contextlib
import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_SETTERS = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads")


def limit_blas_threads(threads: int) -> bool:
    """Set how many threads NumPy's products may use in this process; False where it has no such switch."""
    setter = _setter()
    if setter is None:
        return False
    setter(ctypes.c_int(threads))
    return True


@cache
def _setter() -> Any:
    root = Path(np.__file__).parent
    for path in sorted([*root.parent.glob("numpy.libs/*openblas*"), *root.glob(".dylibs/*openblas*")]):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(path))
            for name in _SETTERS:
                if hasattr(library, name):
                    return getattr(library, name)
    return None
