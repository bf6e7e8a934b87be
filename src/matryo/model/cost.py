"""What a plan costs: multiply-accumulates and bytes read per token, counted from shapes.

Used by benchmarks (share of the measured bandwidth), `info` and the choice of a size, so that nobody counts twice.
Activation sparsity is counted: a cut unit's up row and down row are not read. Vectors (norms) are left out, they are
below 0.1 % of the weights. Every weight that is read takes part in one multiply-accumulate a token.

d model · P per-layer dim · F ffn units · r laurel rank
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from matryo.config import NUM_STREAMS, TextConfig
from matryo.plan import Plan

KIND_BITS = {"f32": 32.0, "bf16": 16.0, "q8": 8.5, "q4": 4.5}
"""Bits a weight; the quantised kinds carry a 16-bit scale for every 32 weights."""
KV_BITS = {"f32": 32.0, "bf16": 16.0, "int8": 8.0}

PARTS = ("attention", "laurel", "ffn", "ple", "altup", "head")


def decode_macs(config: TextConfig, plan: Plan) -> dict[str, int]:
    """Multiply-accumulates with weights for one decoded token, by part. Attention over the cache is not included."""
    return _sum([_layer_macs(config, layer, width) for layer, width in _layers(plan)] + [_outer_macs(config)])


def prefill_macs(config: TextConfig, plan: Plan) -> dict[str, int]:
    """The same for a prompt token whose logits nobody wants: nothing above the K/V of the last owner."""
    below = [_layer_macs(config, layer, width) for layer, width in _layers(plan) if layer < config.last_owner]
    expansion = (NUM_STREAMS - 1) * config.hidden_size**2
    return _sum([*below, {"attention": _kv_macs(config), "altup": _router_macs(config) + expansion}])


def decode_bytes(config: TextConfig, plan: Plan, bits: Mapping[str, float]) -> int:
    """Bytes of weights read for one decoded token; `bits` a weight for each of PARTS (see KIND_BITS)."""
    macs = decode_macs(config, plan)
    return round(sum(macs[part] * bits[part] for part in PARTS) / 8.0)


def kv_bytes(config: TextConfig, plan: Plan, kind: str, length: int) -> int:
    """Bytes of K/V read to decode one token after `length` others; every kept layer reads its source once."""
    seen = (min(length + 1, window) if window else length + 1 for window in (config.window[n] for n in plan.layers))
    values = 2 * config.num_kv_heads * config.head_dim
    scales = 2 * config.num_kv_heads * 4 if kind == "int8" else 0
    return sum(seen) * (round(values * KV_BITS[kind] / 8.0) + scales)


def _layers(plan: Plan) -> Iterable[tuple[int, int]]:
    return zip(plan.layers, plan.ffn_width, strict=True)


def _layer_macs(config: TextConfig, layer: int, width: int) -> dict[str, int]:
    d = config.hidden_size
    queries = 2 * config.num_heads * config.head_dim * d
    kept = 1.0 - config.sparsity[layer]
    return {
        "attention": queries + (_kv_macs(config) if layer < config.num_owners else 0),
        "laurel": 2 * config.laurel_rank * d,
        "ffn": round(width * d * (1.0 + 2.0 * kept)),  # the gate is always whole: the cut depends on all of it
        "ple": 3 * config.ple_dim * d,  # gate, projection, and its share of the model projection
        "altup": 2 * _router_macs(config) + NUM_STREAMS**3 + NUM_STREAMS**2,
    }


def _kv_macs(config: TextConfig) -> int:
    return 2 * config.num_kv_heads * config.head_dim * config.hidden_size


def _router_macs(config: TextConfig) -> int:
    return NUM_STREAMS * config.hidden_size


def _outer_macs(config: TextConfig) -> dict[str, int]:
    """Expansion and merge of the streams, and the head; embedding rows are one row a token."""
    d = config.hidden_size
    return {"altup": 2 * (NUM_STREAMS - 1) * d * d, "head": config.vocab_size * d}


def _sum(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = dict.fromkeys(PARTS, 0)
    for part in parts:
        for name, macs in part.items():
            total[name] += macs
    return total
