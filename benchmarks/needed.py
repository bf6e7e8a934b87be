"""Bytes one decoded token must read: the numerator of every share of the read bandwidth.

In: an open model, one of its plans, the number of cached tokens. Out: bytes, counted from shapes by
`matryo.model.cost`: each weight of the plan once in the kind it is stored as (of a sparse layer only
the rows and columns of units that are not cut), and the keys and values the token attends to.
"""

from __future__ import annotations

from typing import Any

FAMILIES = {
    "attention": "q",
    "laurel": "laurel_left",
    "ffn": "gate",
    "ple": "ple_gate",
    "altup": "altup_projection",
    "head": "embed",
}
"""A tensor family that says how each part of the cost is stored."""


def needed_bytes(model: Any, plan: Any, context: int, kv: str = "") -> int:
    """`kv` is the kind of the cache; empty = what the model uses by itself."""
    from matryo.model.cost import KIND_BITS, decode_bytes, kv_bytes
    from matryo.quantize import KIND_POLICY

    policy = KIND_POLICY[model.weights]
    bits = {part: KIND_BITS[policy[family]] for part, family in FAMILIES.items()}
    kind = kv or ("f32" if model.weights == "f32" else "bf16")
    chosen = model.plan(plan)
    return decode_bytes(model.config, chosen, bits) + kv_bytes(model.config, chosen, kind, context)
