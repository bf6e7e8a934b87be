"""Bytes one decoded token must read: the numerator of every share of the read bandwidth.

In: an open model, one of its plans, the number of cached tokens. Out: bytes, counted by
`matryo.model.cost` from the stored matrices: each of the plan once in the kind it is stored as (of
a sparse layer only the rows of units that are not cut), and the keys and values it attends to.
"""

from __future__ import annotations

from typing import Any


def needed_bytes(model: Any, plan: Any, context: int, kv: str = "") -> int:
    """`kv` is the kind of the cache; empty = what the model uses by itself."""
    from matryo.model.cost import kv_bytes

    kind = kv or ("f32" if model.weights == "f32" else "bf16")
    read: int = model.cost(plan).bytes
    return read + kv_bytes(model.config, model.plan(plan), kind, context)
