"""What a plan costs: multiply-accumulates and bytes read per token.

In: a config and a plan, for planning ahead (counted from shapes), or with the weights at hand
(`plan_cost`: counted from the stored matrices, each as the kind it has). Used by benchmarks (share
of the measured bandwidth), `info` and the choice of a size, so that nobody counts twice. Activation
sparsity is counted: a cut unit's up row and down row are not read. Counts from shapes leave vectors
(norms) out, they are below 0.1 % of the weights of a real checkpoint; `plan_cost` has them. Every
matrix weight that is read takes part in one multiply-accumulate a token.

d model · P per-layer dim · F ffn units · r laurel rank
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from matryo.config import GROUP, NUM_STREAMS, TextConfig
from matryo.kernels.layer import MATRICES, VECTORS, Layer, Matrix, Segment
from matryo.model.parameters import count_parameters
from matryo.plan import Plan
from matryo.weights import PANEL, TextWeights

KIND_BITS = {"f32": 32.0, "bf16": 16.0, "q8": 8.5, "q4": 4.5}
"""Bits a weight; the quantised kinds carry a 16-bit scale for every 32 weights."""
KV_BITS = {"f32": 32.0, "bf16": 16.0, "int8": 8.0}

PARTS = ("attention", "laurel", "ffn", "ple", "altup", "head")
_PART_OF = {
    "q": "attention", "k": "attention", "v": "attention", "o": "attention",
    "input_norm": "attention", "post_attention_norm": "attention",
    "q_norm": "attention", "k_norm": "attention",
    "laurel_left": "laurel", "laurel_right": "laurel", "post_laurel_norm": "laurel",
    "pre_ffn_norm": "ffn", "post_ffn_norm": "ffn",
    "ple_gate": "ple", "ple_projection": "ple", "ple_model_projection": "ple",
    "post_ple_norm": "ple",
}  # fmt: skip
"""The part a layer's weight belongs to; what is not here is AltUp's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """A plan's figures. Bytes are of the weights at hand alone; `kv_bytes` has the cache's.

    parameters: all that the plan uses · effective_parameters: of these, without the two embedding
    tables
    stored_bytes: what the plan uses, in memory or in files · bytes: read to decode one token,
    sparsity counted, one row of each table · bytes_by_part: the same by PARTS · macs:
    multiply-accumulates with weights to decode one token
    prompt_macs: the same for a prompt token whose logits nobody wants
    """

    parameters: int
    effective_parameters: int
    stored_bytes: int
    bytes: int
    bytes_by_part: Mapping[str, int]
    macs: int
    prompt_macs: int


@dataclass(frozen=True, slots=True)
class _Use:
    """Some of one stored weight: its part, bytes stored, bytes read a decoded token."""

    part: str
    stored: int
    read: int


def plan_cost(config: TextConfig, weights: TextWeights, plan: Plan) -> Cost:
    """The figures of a plan that the weights at hand can run."""
    uses = [*_outer_uses(config, weights, plan)]
    for number, width in _layers(plan):
        layer = weights.layers[number]
        if layer is not None:
            uses += _layer_uses(layer, width, 1.0 - config.sparsity[number])
    parameters = count_parameters(config, plan)
    by_part = {part: sum(use.read for use in uses if use.part == part) for part in PARTS}
    return Cost(
        parameters=parameters.total,
        effective_parameters=parameters.effective,
        stored_bytes=sum(use.stored for use in uses),
        bytes=sum(by_part.values()),
        bytes_by_part=by_part,
        macs=sum(decode_macs(config, plan).values()),
        prompt_macs=sum(prefill_macs(config, plan).values()),
    )


def decode_macs(config: TextConfig, plan: Plan) -> dict[str, int]:
    """Multiply-accumulates with weights for one decoded token, by part.

    Attention over the cache is not included.
    """
    return _sum(
        [_layer_macs(config, layer, width) for layer, width in _layers(plan)]
        + [_outer_macs(config)]
    )


def prefill_macs(config: TextConfig, plan: Plan) -> dict[str, int]:
    """The same for a prompt token without logits: nothing above the K/V of the last owner."""
    below = [
        _layer_macs(config, layer, width)
        for layer, width in _layers(plan)
        if layer < config.last_owner
    ]
    expansion = (NUM_STREAMS - 1) * config.hidden_size**2
    return _sum(
        [*below, {"attention": _kv_macs(config), "altup": _router_macs(config) + expansion}]
    )


def decode_bytes(config: TextConfig, plan: Plan, bits: Mapping[str, float]) -> int:
    """Bytes of weights read for one decoded token.

    `bits` a weight for each of PARTS (see KIND_BITS).
    """
    macs = decode_macs(config, plan)
    return round(sum(macs[part] * bits[part] for part in PARTS) / 8.0)


def kv_bytes(config: TextConfig, plan: Plan, kind: str, length: int) -> int:
    """Bytes of K/V read to decode one token after `length` others.

    Every kept layer reads its source once.
    """
    seen = (
        min(length + 1, window) if window else length + 1
        for window in (config.window[n] for n in plan.layers)
    )
    values = 2 * config.num_kv_heads * config.head_dim
    scales = 2 * config.num_kv_heads * 4 if kind == "int8" else 0
    return sum(seen) * (round(values * KV_BITS[kind] / 8.0) + scales)


def _outer_uses(config: TextConfig, weights: TextWeights, plan: Plan) -> Iterator[_Use]:
    """What lies outside the layers.

    The embedding is read whole, as the head, and one row more as the embedding.
    """
    embed = weights.embed
    row = embed.data.nbytes // (-(-embed.rows // PANEL) * PANEL)
    yield _Use("head", embed.data.nbytes, embed.data.nbytes + row)
    for matrix in (*weights.altup_projection, *weights.altup_unembed):
        yield _whole("altup", matrix)
    kept = set(plan.layers)
    for table in weights.ple:
        slots, matrix = len(kept.intersection(table.layers)), table.matrix
        stored = matrix.data.nbytes * slots // len(table.layers)
        yield _Use("ple", stored, stored // matrix.rows)
    for part, vector in (("ple", weights.ple_projection_norm), ("head", weights.final_norm)):
        yield _Use(part, vector.nbytes, vector.nbytes)


def _layer_uses(layer: Layer, width: int, kept: float) -> Iterator[_Use]:
    """A layer at an FFN width; `kept` is the share of units that are not cut."""
    for name in MATRICES:
        matrix = getattr(layer, name)
        if matrix is not None:
            yield _whole(_PART_OF[name], matrix)
    for name in VECTORS:
        vector = getattr(layer, name)
        if vector is not None:
            yield _Use(_PART_OF.get(name, "altup"), vector.nbytes, vector.nbytes)
    for segment, units in layer.units(width):
        yield from _segment_uses(segment, units, kept)


def _segment_uses(segment: Segment, units: int, kept: float) -> Iterator[_Use]:
    """The first `units` of a segment.

    The gate is read whole: which units are cut depends on all of it.
    """
    for matrix, share in ((segment.gate, 1.0), (segment.up, kept), (segment.down, kept)):
        # Units are the rows of all but the dense down matrix, which has them along its columns.
        along_rows = matrix is not segment.down or matrix.layout == "rows"
        all_units = matrix.rows if along_rows else matrix.cols
        step = GROUP if not along_rows else PANEL if matrix.layout == "panel" else 1
        stored = matrix.data.nbytes * -(-units // step) // -(-all_units // step)
        yield _Use("ffn", stored, round(stored * share))


def _whole(part: str, matrix: Matrix) -> _Use:
    return _Use(part, matrix.data.nbytes, matrix.data.nbytes)


def _layers(plan: Plan) -> Iterable[tuple[int, int]]:
    return zip(plan.layers, plan.ffn_width, strict=True)


def _layer_macs(config: TextConfig, layer: int, width: int) -> dict[str, int]:
    d = config.hidden_size
    queries = 2 * config.num_heads * config.head_dim * d
    kept = 1.0 - config.sparsity[layer]
    return {
        "attention": queries + (_kv_macs(config) if layer < config.num_owners else 0),
        "laurel": 2 * config.laurel_rank * d,
        "ffn": round(
            width * d * (1.0 + 2.0 * kept)
        ),  # the gate is always whole: the cut depends on all of it
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
