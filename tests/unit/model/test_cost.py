"""The cost model against the counts of the released checkpoints."""

from __future__ import annotations

import pytest

from matryo.config import TextConfig
from matryo.model import cost
from matryo.plan import presets

E4B = TextConfig.from_json({"model_type": "gemma3n_text"})
PLANS = presets(E4B)


@pytest.mark.parametrize(
    ("name", "dense_weights"), [("e2b", 2_421_600_000), ("e4b", 4_486_000_000)]
)
def test_weights_read_without_sparsity(name: str, dense_weights: int) -> None:
    plan = PLANS[name]
    macs = cost.decode_macs(E4B, plan)
    cut = sum(
        round(2 * 0.95 * width * E4B.hidden_size)
        for layer, width in zip(plan.layers, plan.ffn_width, strict=True)
        if E4B.sparsity[layer]
    )
    assert sum(macs.values()) + cut == pytest.approx(dense_weights, rel=1e-3)


def test_parts_of_e2b_are_those_of_the_checkpoint() -> None:
    macs = cost.decode_macs(E4B, PLANS["e2b"])
    norms_of_queries_and_keys = 30 * 256 + 20 * 256
    assert macs["attention"] == 293_614_080 - norms_of_queries_and_keys
    assert macs["laurel"] == 7_925_760 - 30 * 2048  # without its norm
    assert macs["ple"] == 31_457_280 + 15_728_640
    assert macs["head"] == 537_395_200


@pytest.mark.parametrize(("name", "megabytes"), [("e2b", 1182), ("e4b", 2164)])
def test_bytes_at_four_and_a_half_bits(name: str, megabytes: float) -> None:
    bits = dict.fromkeys(cost.PARTS, cost.KIND_BITS["q4"])
    assert cost.decode_bytes(E4B, PLANS[name], bits) / 1e6 == pytest.approx(megabytes, rel=2e-3)


def test_prompt_tokens_skip_what_is_above_the_last_owner() -> None:
    e2b, e4b = (sum(cost.prefill_macs(E4B, PLANS[name]).values()) for name in ("e2b", "e4b"))
    # Layers 0..18 with sparsity, without their projections of per-layer inputs above: 0.887 G and
    # 1.525 G.
    assert e2b == pytest.approx(0.887e9, rel=0.01)
    assert e4b == pytest.approx(1.525e9, rel=0.01)


def test_kv_bytes_follow_windows_and_kind() -> None:
    plan = PLANS["e2b"]
    assert cost.kv_bytes(E4B, plan, "bf16", 0) == 30 * 2048
    # 24 sliding layers see 512 tokens, 6 full ones all of them.
    assert cost.kv_bytes(E4B, plan, "bf16", 2047) == (24 * 512 + 6 * 2048) * 2048
    assert cost.kv_bytes(E4B, plan, "int8", 0) == 30 * (1024 + 16)
