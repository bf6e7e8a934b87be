"""Packs a checkpoint's tensors for `build_weights` in the plainest way, by the table of
docs/architecture.md section 3.

An oracle beside `matryo.checkpoint.pack`, which does the same for files, layer by layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.config import TextConfig
from matryo.kernels import reference
from matryo.plan import Plan
from matryo.weights import rungs

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]

VECTORS = {
    "router_norm": "altup.router_norm.weight",
    "router": "altup.modality_router.weight",
    "prediction_coefs": "altup.prediction_coefs.weight",
    "correction_coefs": "altup.correction_coefs.weight",
    "correct_output_scale": "altup.correct_output_scale",
    "input_norm": "input_layernorm.weight",
    "post_attention_norm": "post_attention_layernorm.weight",
    "pre_ffn_norm": "pre_feedforward_layernorm.weight",
    "post_ffn_norm": "post_feedforward_layernorm.weight",
    "post_ple_norm": "post_per_layer_input_norm.weight",
    "post_laurel_norm": "laurel.post_laurel_norm.weight",
    "q_norm": "self_attn.q_norm.weight",
    "k_norm": "self_attn.k_norm.weight",
}
PANELS = {
    "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight",
    "v": "self_attn.v_proj.weight",
    "o": "self_attn.o_proj.weight",
    "laurel_left": "laurel.linear_left.weight",
    "laurel_right": "laurel.linear_right.weight",
    "ple_gate": "per_layer_input_gate.weight",
    "ple_projection": "per_layer_projection.weight",
}


@dataclass(frozen=True)
class PlainMatrix:
    """A packed matrix without native code."""

    kind: str
    layout: str
    rows: int
    cols: int
    data: Array


def empty(kind: str, layout: str, rows: int, cols: int) -> Array:
    """An array of the shape docs/architecture.md section 2 gives for a matrix."""
    panels, groups = -(-rows // 16), -(-cols // 32)
    if layout == "panel":
        shapes: dict[str, tuple[int, ...]] = {
            "f32": (panels, groups * 32, 16),
            "bf16": (panels, groups * 16, 16, 2),
            "q8": (panels, groups, 544),
            "q4": (panels, groups, 288),
        }
    else:
        sizes = {"f32": groups * 32, "bf16": groups * 32, "q8": groups * 34, "q4": groups * 18}
        shapes = {name: (rows, size) for name, size in sizes.items()}
    dtypes: dict[str, Any] = {"f32": np.float32, "bf16": np.uint16}
    return np.zeros(shapes[kind], dtypes.get(kind, np.uint8))


def packed(kind: str, layout: str, dense: F32) -> Array:
    out = empty(kind, layout, *dense.shape)
    reference.pack(kind, layout, np.ascontiguousarray(dense), out)
    return out


def packed_tensors(
    source: Mapping[str, F32], config: TextConfig, shells: Sequence[Plan], kind: str = "f32"
) -> dict[str, Array]:
    """Every tensor the shells need, from a checkpoint's tensors without the prefix of their
    names.
    """
    tensors = _shared(source, config, shells, kind)
    for number in shells[-1].layers:
        tensors.update(_layer(source, config, number, shells, kind))
    return tensors


def _shared(
    source: Mapping[str, F32], config: TextConfig, shells: Sequence[Plan], kind: str
) -> dict[str, Array]:
    tensors = {
        "embed": packed(kind, "panel", source["embed_tokens.weight"]),
        "ple_projection_norm": source["per_layer_projection_norm.weight"],
        "final_norm": source["norm.weight"],
    }
    for stream in range(3):
        for name in ("projection", "unembed"):
            theirs = "altup_projections" if name == "projection" else "altup_unembed_projections"
            tensors[f"altup_{name}.{stream}"] = packed(
                kind, "panel", source[f"{theirs}.{stream}.weight"]
            )
    seen: set[int] = set()
    for number, shell in enumerate(shells):
        added = [layer for layer in shell.layers if layer not in seen]
        seen.update(added)
        if added:
            slots = np.concatenate([_slot(layer, config) for layer in added])
            table = source["embed_tokens_per_layer.weight"][:, slots]
            tensors[f"ple.{number}"] = packed(kind, "rows", table)
    return tensors


def _slot(layer: int, config: TextConfig) -> npt.NDArray[np.intp]:
    return np.arange(layer * config.ple_dim, (layer + 1) * config.ple_dim)


def _layer(
    source: Mapping[str, F32], config: TextConfig, number: int, shells: Sequence[Plan], kind: str
) -> dict[str, Array]:
    prefix = f"layers.{number}."
    reader = number >= config.num_owners
    tensors: dict[str, Array] = {
        prefix + ours: source[prefix + theirs]
        for ours, theirs in VECTORS.items()
        if not (reader and ours == "k_norm")
    }
    for ours, theirs in PANELS.items():
        if not (reader and ours in ("k", "v")):
            tensors[prefix + ours] = packed(kind, "panel", source[prefix + theirs])
    projection = source["per_layer_model_projection.weight"][_slot(number, config)]
    tensors[prefix + "ple_model_projection"] = packed(kind, "panel", projection)
    start = 0
    for index, end in enumerate(rungs(shells, number)):
        gate, up, down = (
            source[f"{prefix}mlp.{part}_proj.weight"] for part in ("gate", "up", "down")
        )
        segment = f"{prefix}ffn.{index}."
        tensors[segment + "gate"] = packed(kind, "panel", gate[start:end])
        if config.sparsity[number]:
            tensors[segment + "up"] = packed(kind, "rows", up[start:end])
            tensors[segment + "down"] = packed(kind, "rows", down[:, start:end].T)
        else:
            tensors[segment + "up"] = packed(kind, "panel", up[start:end])
            tensors[segment + "down"] = packed(kind, "panel", down[:, start:end])
        start = end
    return tensors
