"""Pages of weights that a plan does not use, given back to the system and taken again.

In: mapped weights and a plan. Out: nothing but fewer, or more, resident bytes. Only for weights
that are mapped from files: memory of this process's own would be lost.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy.typing as npt

from matryo.kernels.layer import MATRICES, Layer, Matrix
from matryo.plan import Plan
from matryo.weights import TextWeights

Array = npt.NDArray[Any]


def give_back(weights: TextWeights, plan: Plan) -> None:
    """Tell the system that what lies outside the plan, and the gathered tables, are not needed.

    They stay in their files, and are read again when they are used.
    """
    for array in _outside(weights, plan):
        _advise(array, getattr(mmap, "MADV_DONTNEED", None))
    for table in weights.ple:
        _advise(table.matrix.data, getattr(mmap, "MADV_DONTNEED", None))


def take_again(weights: TextWeights, plan: Plan, before: Plan) -> None:
    """Tell the system that what `plan` uses and `before` did not will be read now."""
    used = {id(array) for array in _outside(weights, plan)}
    for array in _outside(weights, before):
        if id(array) not in used:
            _advise(array, getattr(mmap, "MADV_WILLNEED", None))


def _outside(weights: TextWeights, plan: Plan) -> Iterator[Array]:
    width = dict(zip(plan.layers, plan.ffn_width, strict=True))
    for number, layer in enumerate(weights.layers):
        if layer is not None:
            yield from _outside_layer(layer, width.get(number, 0))


def _outside_layer(layer: Layer, width: int) -> Iterator[Array]:
    if width == 0:
        for name in MATRICES:
            matrix = getattr(layer, name)
            if matrix is not None:
                yield matrix.data
    first = 0
    for segment in layer.segments:
        used = min(max(width - first, 0), segment.num_units)
        first += segment.num_units
        for matrix in (segment.gate, segment.up, segment.down):
            if used == 0:
                yield matrix.data
            elif used < segment.num_units and matrix.rows == segment.num_units:
                yield matrix.data[_first_unused(matrix, used) :]


def _first_unused(matrix: Matrix, rows: int) -> int:
    """Where the entries of a matrix begin that `rows` of its rows do not touch."""
    per_entry = -(-matrix.rows // len(matrix.data))
    return -(-rows // per_entry)


def _advise(array: Array, advice: int | None) -> None:
    """On whole pages inside the array; nothing where the system has no such call."""
    libc = _libc()
    if libc is None or advice is None or not array.nbytes:
        return
    page = mmap.PAGESIZE
    start = -(-array.ctypes.data // page) * page
    end = (array.ctypes.data + array.nbytes) // page * page
    if end > start:
        # It is advice: a kernel that refuses it keeps the pages, and nothing is wrong.
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


@cache
def _libc() -> Any:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return libc if hasattr(libc, "madvise") else None
    except (OSError, TypeError):  # no C library of that kind, as on Windows
        return None
