"""Parameter counts equal the published ones."""

from __future__ import annotations

import pytest

from matryo.config import TextConfig
from matryo.model.parameters import count_parameters
from matryo.plan import full_plan, presets


@pytest.mark.parametrize(
    ("name", "effective", "total"),
    [
        ("e4b", 3_949_030_128, 6_835_235_568),
        ("e2b", 1_884_521_568, 4_435_182_688),
    ],
)
def test_e4b_and_the_e2b_inside_it(name: str, effective: int, total: int) -> None:
    config = TextConfig.from_json({"model_type": "gemma3n_text"})
    sizes = count_parameters(config, presets(config)[name])
    assert (sizes.effective, sizes.total) == (effective, total)


def test_the_two_tables_of_e4b() -> None:
    config = TextConfig.from_json({"model_type": "gemma3n_text"})
    sizes = count_parameters(config, full_plan(config))
    assert (sizes.embedding, sizes.ple) == (537_395_200, 2_348_810_240)
