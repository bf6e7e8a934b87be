"""Our native products at one shape, beside numpy: the kernel cases of `ours`.

In: a case such as "q4 16384x2048" with T tokens. Out: seconds of one product, GB/s of its weights
or operations a second. Products of one token go round a set of equal matrices larger than the
caches, as decoding does.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..case import Case, Result
from ..processes import memory_of
from . import Unsupported

SET_BYTES = 256 << 20
"""More than any cache; the set is read once per repetition."""


@dataclass
class Product:
    """Equal matrices in one native layout, all of the same values, and their float32 original for
    numpy.
    """

    matrices: list[Any]
    bytes_each: int
    dense: np.ndarray


def empty_panel(kind: str, rows: int, columns: int) -> np.ndarray:
    """Room for a panel matrix, as docs/architecture.md section 2 lays it out; extents are multiples
    of 16 and 32.
    """
    panels, groups = rows // 16, columns // 32
    match kind:
        case "f32":
            return np.empty((panels, columns, 16), np.float32)
        case "bf16":
            return np.empty((panels, columns // 2, 16, 2), np.uint16)
        case "q8":
            return np.empty((panels, groups, 544), np.uint8)
        case "q4":
            return np.empty((panels, groups, 288), np.uint8)
    raise Unsupported(f"no panel layout for {kind}")


def make(note: str) -> Product:
    """`KIND ROWSxCOLUMNS` -> packed matrices."""
    from matryo import kernels

    kind, shape = note.split()
    rows, columns = (int(extent) for extent in shape.split("x"))
    dense = np.random.default_rng(0).standard_normal((rows, columns), dtype=np.float32)
    packed = empty_panel(kind, rows, columns)
    kernels.pack(kind, "panel", dense, packed)
    count = max(3, SET_BYTES // packed.nbytes)
    matrices = [kernels.Matrix(kind, "panel", rows, columns, packed.copy()) for _ in range(count)]
    return Product(matrices, packed.nbytes, dense)


def run(products: dict[str, Product], case: Case, threads: int) -> Result:
    """One pass over the set for one token, a few products for many; numpy's time once beside it."""
    from matryo import kernels

    kernels.set_threads(threads)
    if case.note not in products:
        products.clear()
        products[case.note] = make(case.note)
    product = products[case.note]
    rows, columns = product.dense.shape
    x = np.random.default_rng(1).standard_normal((case.prompt, columns), dtype=np.float32)
    out = np.empty((case.prompt, rows), np.float32)
    matrices = product.matrices if case.prompt == 1 else product.matrices[:3]
    started = time.perf_counter()
    for matrix in matrices:
        kernels.matmul(matrix, x, out)
    seconds = (time.perf_counter() - started) / len(matrices)
    numpy_seconds = seconds_of_numpy(product.dense, x)
    resident, peak = memory_of(os.getpid())
    details: dict[str, float | str] = {
        "milliseconds": 1e3 * seconds,
        "weights_GB_per_second": product.bytes_each / seconds / 1e9,
        "GOPS": 2.0 * rows * columns * case.prompt / seconds / 1e9,
        "times_numpy_f32": numpy_seconds / seconds,
        "isa": kernels.isa(),
    }
    if case.prompt == 1:
        details["needed_bytes"] = float(product.bytes_each)
    return Result(seconds, 1, resident, peak, details)


def seconds_of_numpy(dense: np.ndarray, x: np.ndarray) -> float:
    """Median of three float32 products of the same shape."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        x @ dense.T
        times.append(time.perf_counter() - started)
    return statistics.median(times)
