"""How many parameters a plan has, counted from shapes.

In: a config and a plan. Out: the decoder's parameters and those of the two tables, which are only
gathered or, as the head, shared. Public figures for E2B and E4B are in the test.
"""

from __future__ import annotations

from dataclasses import dataclass

from matryo.config import NUM_STREAMS, TextConfig
from matryo.plan import Plan


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameters of a plan: `effective` without the two tables (the 2B of E2B), `total` with."""

    effective: int
    embedding: int
    ple: int

    @property
    def total(self) -> int:
        """All parameters of the text model."""
        return self.effective + self.embedding + self.ple


def count_parameters(config: TextConfig, plan: Plan) -> Sizes:
    """Parameters that a plan uses."""
    d = config.hidden_size
    slots = len(plan.layers) * config.ple_dim
    layers = sum(
        _layer(config, layer, width)
        for layer, width in zip(plan.layers, plan.ffn_width, strict=True)
    )
    streams = 2 * (NUM_STREAMS - 1) * d * d
    model_projection = slots * d + config.ple_dim
    return Sizes(
        effective=layers + streams + model_projection + d,
        embedding=config.vocab_size * d,
        ple=config.ple_vocab_size * slots,
    )


def _layer(config: TextConfig, layer: int, width: int) -> int:
    d, head_dim = config.hidden_size, config.head_dim
    queries = 2 * config.num_heads * head_dim * d + head_dim
    keys_values = 2 * config.num_kv_heads * head_dim * d + head_dim
    laurel = 2 * config.laurel_rank * d + d
    per_layer_input = 2 * config.ple_dim * d + d
    altup = NUM_STREAMS**3 + NUM_STREAMS**2 + NUM_STREAMS * d + 2 * d
    norms = 4 * d  # around attention and around the FFN; LAuReL's and PLE's are counted with them
    return (
        queries
        + (keys_values if layer < config.num_owners else 0)
        + laurel
        + per_layer_input
        + altup
        + norms
        + 3 * d * width
    )
