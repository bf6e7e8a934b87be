"""Typed front of the native module: the same operations as `reference.py`, compiled.

In: C-contiguous arrays of the exact dtype (anything else is a TypeError or ValueError; nothing is
converted or copied). `start()` reads MATRYO_ISA and MATRYO_THREADS once, before the first model is
built; nothing happens at import. The thread pool and the instruction set belong to the process.
The native module is loaded when a name of it is first used, so that `reference` runs without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matryo._native import (
        Matrix,
        PageTable,
        advise_rows,
        altup_correct,
        altup_expand,
        altup_merge,
        altup_predict,
        argmax,
        attend,
        attention,
        feed_forward,
        gather,
        isa,
        isas,
        logits,
        matmul,
        matmul_group,
        pack,
        ple_combine,
        read_bandwidth,
        rms_norm,
        set_isa,
        set_threads,
        threads,
        top_k,
        unpack,
        write_kv,
    )
    from matryo.kernels.compiled import layer_handle, start

__all__ = [
    "Matrix", "PageTable", "advise_rows", "altup_correct", "altup_expand", "altup_merge",
    "altup_predict", "argmax", "attend", "attention", "feed_forward", "gather", "isa", "isas",
    "layer_handle", "logits", "matmul", "matmul_group", "pack", "ple_combine", "read_bandwidth",
    "rms_norm", "set_isa", "set_threads", "start", "threads", "top_k", "unpack", "write_kv",
]  # fmt: skip

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A name of `__all__`, at its first use. Raises KernelError if nothing was compiled."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from matryo.kernels import compiled

        value = getattr(compiled if hasattr(compiled, name) else compiled._native, name)
        globals()[name] = value
        return value
