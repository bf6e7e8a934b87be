"""Operations are counted as they are done; time left follows the last steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from matryo.plan import full_plan, presets
from matryo.train.meter import Clock, Peak, macs_per_token, measured_peak, operations
from matryo.train.nested import hidden_states, shape_of
from matryo.train.widths import Pass


@pytest.mark.parametrize("name", ["full", "e2b"])
def test_products_are_counted_as_torch_counts_them(nested_model: Any, name: str) -> None:
    """But for attention, which torch computes over the keys that are masked, too, and the slots
    of skipped layers, which transformers projects for nothing.
    """
    config, tokens = shape_of(nested_model.config), 16
    plan = presets(config)[name] if name == "e2b" else full_plan(config)
    rows = torch.ones(1, tokens, dtype=torch.long)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        nested_model.lm_head(hidden_states(nested_model, plan, input_ids=rows))
    counted = counter.get_total_flops() / 2 / tokens
    assert macs_per_token(config, plan, tokens) == pytest.approx(counted, rel=0.06)


def test_gradients_cost_twice_the_pass(nested_model: Any) -> None:
    config = shape_of(nested_model.config)
    plan = full_plan(config)
    alone = operations(config, [Pass("a", plan, 0.0)], 32, 16)
    assert operations(config, [Pass("a", plan, 1.0)], 32, 16) == pytest.approx(3 * alone)
    assert alone == pytest.approx(2 * 32 * macs_per_token(config, plan, 16))


def test_the_peak_is_of_this_machine() -> None:
    before = torch.get_rng_state()
    assert 1e8 < measured_peak(torch.device("cpu"), torch.float32, seconds=0.01) < 1e15
    assert torch.equal(torch.get_rng_state(), before)  # what a run draws next stays the same


def test_time_left_is_that_of_the_last_steps() -> None:
    clock = Clock(steps=2)
    assert clock.left(10) == 0.0
    for _ in range(3):
        clock.start()
        assert clock.stop() >= 0.0
    clock._recent.extend([1.0, 3.0])
    assert clock.left(10) == 20.0


def test_no_step_is_faster_than_the_peak() -> None:
    peak = Peak(100.0)
    assert peak.share(50.0) == 0.5
    assert peak.share(200.0) == 1.0  # something else was busy when it was measured
    assert peak.share(50.0) == 0.25
