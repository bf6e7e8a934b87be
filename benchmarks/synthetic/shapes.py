"""Which tensors a Gemma 3n text checkpoint holds, how large they are and how their random values
are spread.

In: `Dimensions` of the widest model. Out: `tensors(dimensions)`, the list of `TensorSpec` in file
order, and for a `Size` nested in it the rows and columns of each tensor that belong to the smaller
model. Names are those of `Gemma3nForCausalLM` in `transformers`; the shapes follow its modules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Dimensions:
    """The widest model; the defaults are E4B's."""

    layers: int = 35
    owners: int = 20
    """Layers that store keys and values; the later ones read those of the last owner of their type.
    """
    sparse_layers: int = 10
    hidden: int = 2048
    ffn: int = 16384
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 256
    per_layer: int = 256
    laurel_rank: int = 64
    streams: int = 4
    vocabulary: int = 262400
    per_layer_vocabulary: int = 262144
    sliding_window: int = 512
    context: int = 32768


@dataclass(frozen=True)
class Size:
    """A model nested in the widest one: the layers it keeps, in order, and its FFN width."""

    name: str
    layers: tuple[int, ...]
    ffn: int


def nested_sizes(dimensions: Dimensions) -> dict[str, Size]:
    """E4B = everything; E2B skips the first five reader layers and uses half of each FFN."""
    layers = tuple(range(dimensions.layers))
    skipped = range(dimensions.owners, dimensions.owners + 5)
    kept = tuple(layer for layer in layers if layer not in skipped)
    return {
        "e4b": Size("e4b", layers, dimensions.ffn),
        "e2b": Size("e2b", kept, dimensions.ffn // 2),
    }


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of the widest model and how its values are drawn: mean + spread * N(0, 1)."""

    name: str
    shape: tuple[int, ...]
    mean: float
    spread: float
    layer: int | None = None
    ffn_axis: int | None = None
    """The axis that counts FFN units, which a narrower model cuts to a prefix."""
    slots_axis: int | None = None
    """The axis that counts per-layer slots, of which a shallower model keeps those of its layers.
    """

    @property
    def rows(self) -> int:
        return self.shape[0] if len(self.shape) == 2 else 1

    @property
    def columns(self) -> int:
        return self.shape[-1]

    def name_in(self, size: Size) -> str:
        """The name in the smaller model, where the kept layers are numbered without gaps."""
        if self.layer is None:
            return self.name
        return self.name.replace(
            f"layers.{self.layer}.", f"layers.{size.layers.index(self.layer)}."
        )

    def selection(self, size: Size, axis: int, dimensions: Dimensions) -> np.ndarray:
        """Boolean mask over `axis` (0 rows, 1 columns) of what the smaller model keeps."""
        extent = self.rows if axis == 0 else self.columns
        keep = np.ones(extent, dtype=bool)
        if self.ffn_axis == axis:
            keep[size.ffn :] = False
        if self.slots_axis == axis:
            slots = np.zeros(dimensions.layers, dtype=bool)
            slots[list(size.layers)] = True
            keep &= np.repeat(slots, dimensions.per_layer)
        return keep

    def shape_in(self, size: Size, dimensions: Dimensions) -> tuple[int, ...]:
        columns = int(self.selection(size, 1, dimensions).sum())
        if len(self.shape) == 1:
            return (columns,)
        return (int(self.selection(size, 0, dimensions).sum()), columns)


def matrix(
    name: str, rows: int, columns: int, gain: float = 1.0, **where: int | None
) -> TensorSpec:
    """A projection that keeps the magnitude of a normed input (times `gain`)."""
    return TensorSpec(name, (rows, columns), 0.0, gain / math.sqrt(columns), **where)


def norm(name: str, width: int, mean: float = 1.0, layer: int | None = None) -> TensorSpec:
    return TensorSpec(name, (width,), mean, 0.1 * mean, layer)


def layer_tensors(layer: int, dims: Dimensions) -> list[TensorSpec]:
    """One decoder layer. Readers carry dead k, v and k_norm, as in published checkpoints."""
    p = f"model.layers.{layer}."
    d, queries, keys = dims.hidden, dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim
    # q and k norms of 0.5 give attention scores a spread of 4, so that a query attends to a few
    # keys, not to one.
    return [
        matrix(p + "self_attn.q_proj.weight", queries, d, layer=layer),
        matrix(p + "self_attn.k_proj.weight", keys, d, layer=layer),
        matrix(p + "self_attn.v_proj.weight", keys, d, layer=layer),
        matrix(p + "self_attn.o_proj.weight", d, queries, layer=layer),
        norm(p + "self_attn.q_norm.weight", dims.head_dim, 0.5, layer),
        norm(p + "self_attn.k_norm.weight", dims.head_dim, 0.5, layer),
        matrix(p + "mlp.gate_proj.weight", dims.ffn, d, layer=layer, ffn_axis=0),
        matrix(p + "mlp.up_proj.weight", dims.ffn, d, layer=layer, ffn_axis=0),
        matrix(p + "mlp.down_proj.weight", d, dims.ffn, layer=layer, ffn_axis=1),
        norm(p + "input_layernorm.weight", d, 1.0, layer),
        norm(p + "post_attention_layernorm.weight", d, 0.3, layer),
        norm(p + "pre_feedforward_layernorm.weight", d, 1.0, layer),
        norm(p + "post_feedforward_layernorm.weight", d, 0.3, layer),
        TensorSpec(p + "altup.correct_output_scale", (d,), 1.0, 0.1, layer),
        TensorSpec(
            p + "altup.correction_coefs.weight", (dims.streams, dims.streams), 0.0, 0.05, layer
        ),
        TensorSpec(
            p + "altup.prediction_coefs.weight", (dims.streams**2, dims.streams), 0.0, 0.05, layer
        ),
        # The router sees its normed input divided by d; this gain brings its pre-activations to a
        # spread of 1.
        matrix(p + "altup.modality_router.weight", dims.streams, d, gain=float(d), layer=layer),
        norm(p + "altup.router_norm.weight", d, 1.0, layer),
        matrix(p + "laurel.linear_left.weight", dims.laurel_rank, d, layer=layer),
        matrix(p + "laurel.linear_right.weight", d, dims.laurel_rank, layer=layer),
        norm(p + "laurel.post_laurel_norm.weight", d, 0.3, layer),
        matrix(p + "per_layer_input_gate.weight", dims.per_layer, d, layer=layer),
        matrix(p + "per_layer_projection.weight", d, dims.per_layer, layer=layer),
        norm(p + "post_per_layer_input_norm.weight", d, 0.3, layer),
    ]


def tensors(dims: Dimensions) -> list[TensorSpec]:
    """Every tensor of the widest model in file order; the head is tied to `embed_tokens`."""
    d, slots = dims.hidden, dims.layers * dims.per_layer
    shared = [
        # Scaled by sqrt(d) on the way in, so that a token's embedding has magnitude 1.
        TensorSpec("model.embed_tokens.weight", (dims.vocabulary, d), 0.0, 1 / math.sqrt(d)),
        # Scaled by sqrt(per_layer) on the way in.
        TensorSpec(
            "model.embed_tokens_per_layer.weight",
            (dims.per_layer_vocabulary, slots),
            0.0,
            1 / math.sqrt(dims.per_layer),
            slots_axis=1,
        ),
        matrix("model.per_layer_model_projection.weight", slots, d, slots_axis=0),
        norm("model.per_layer_projection_norm.weight", dims.per_layer),
        # Logits get a spread of 4: the largest reach about 20, where the soft cap of 30 bites.
        norm("model.norm.weight", d, 4.0),
    ]
    for family in ("altup_projections", "altup_unembed_projections"):
        shared += [matrix(f"model.{family}.{i}.weight", d, d) for i in range(dims.streams - 1)]
    return shared + [spec for layer in range(dims.layers) for spec in layer_tensors(layer, dims)]
