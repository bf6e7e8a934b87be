"""The native module, found, started and given whole layers.

In: the environment, and layers of `layer.py`. Out: the process-wide settings, native handles.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from matryo.errors import KernelError
from matryo.kernels.layer import Layer

try:
    from matryo import _native
except ImportError as error:
    raise KernelError(
        f"the compiled kernels are missing or do not fit this Python ({error}); "
        "install matryo with pip"
    ) from error


@cache
def start() -> None:
    """Applies MATRYO_ISA and MATRYO_THREADS, once a process.

    Raises KernelError for a value that cannot be used.
    """
    name, count = os.environ.get("MATRYO_ISA"), os.environ.get("MATRYO_THREADS")
    if name is not None:
        if name not in _native.isas():
            raise KernelError(f"MATRYO_ISA is {name!r}; this CPU has {', '.join(_native.isas())}")
        _native.set_isa(name)
    if count is not None:
        try:
            _native.set_threads(int(count))
        except (ValueError, TypeError, OverflowError) as error:
            raise KernelError(
                f"MATRYO_THREADS is {count!r}; expected a number from 1 to 256"
            ) from error


def layer_handle(layer: Layer) -> _native.Layer:
    """The native form of a layer: references to its matrices, its vectors, no copies of weights."""
    weights: dict[str, Any] = {name: getattr(layer, name) for name in _native_fields()}
    segments: list[tuple[Any, Any, Any]] = [(s.gate, s.up, s.down) for s in layer.segments]
    return _native.Layer(**weights, segments=[_native.Segment(*parts) for parts in segments])


@cache
def _native_fields() -> tuple[str, ...]:
    """What `_native.Layer` takes as it is; `ple_model_projection` is used outside the blocks."""
    return tuple(
        name
        for name in Layer.__dataclass_fields__
        if name not in ("segments", "ple_model_projection")
    )
