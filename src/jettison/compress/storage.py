"""Rounds a student's largest array for the disk; the backend takes it back to float32."""

import numpy as np


def stored(arrays: dict[str, np.ndarray], name: str, storage: str) -> dict[str, np.ndarray]:
    """The same arrays with one of them, shape (n_rows, width), at `float32`, `float16` or `int8`.

    int8 comes with `<name>_scale`, shape (n_rows,): code times scale is the value.
    """
    rows = arrays[name]
    if storage == "float16":
        return {**arrays, name: np.clip(rows, -65504, 65504).astype(np.float16)}
    if storage == "int8":
        scale = np.maximum(np.abs(rows).max(axis=1, initial=0.0), 1e-12) / 127
        rounded = np.rint(rows / scale[:, None]).astype(np.int8)
        return {**arrays, name: rounded, f"{name}_scale": scale.astype(np.float32)}
    return arrays
