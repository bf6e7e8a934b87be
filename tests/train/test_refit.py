"""One down matrix for all widths: the best there is, and closer at every narrow one."""

from __future__ import annotations

import torch

from helpers.dense import dense_model
from matryo.train.dense import at_width, ffns, hidden_states, make_narrowable
from matryo.train.importance import order_of, reorder, unit_scores
from matryo.train.refit import nested_fit, refit, second_moments

ROWS = torch.randint(1, 4096, (6, 64), generator=torch.Generator().manual_seed(5))


def loss(matrix: torch.Tensor, units: torch.Tensor, down: torch.Tensor, ridge: float) -> float:
    wanted, total = units @ down.T, 0.0
    for width, weight in {16: 0.1, 32: 0.2, 64: 0.7}.items():
        error = wanted - units[:, :width] @ matrix[:, :width].T
        total += weight * float(error.square().sum()) / len(units)
    return total + ridge * float((matrix - down).square().sum())


def test_the_closed_form_is_the_minimum() -> None:
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(64, 64, generator=generator).double()
    units = torch.randn(200, 64, generator=generator).double() @ mix
    down = torch.randn(8, 64, generator=generator).double()
    moment = units.T @ units / 200
    found = nested_fit(moment.float(), down, {16: 0.1, 32: 0.2, 64: 0.7}).double()
    ridge = 1e-3 * float(moment.diagonal().mean())
    best = loss(found, units, down, ridge)
    assert best < 0.9 * loss(down, units, down, ridge)
    for seed in range(5):
        step = 1e-2 * torch.randn(8, 64, generator=torch.Generator().manual_seed(seed))
        assert loss(found + step, units, down, ridge) > best


def test_moments_are_of_what_the_down_matrix_reads() -> None:
    model = dense_model("llama")
    make_narrowable(model)
    seen: list[torch.Tensor] = []
    part = ffns(model)[2:]
    found = second_moments(model, part, ROWS)[0]

    def watch(units: torch.Tensor) -> torch.Tensor:
        seen.append(units.flatten(0, -2))
        return units

    part[0].watch = watch
    with torch.no_grad():
        hidden_states(model, ROWS)
    flat = torch.cat(seen)
    assert torch.allclose(found, flat.T @ flat / len(flat), rtol=1e-3, atol=1e-5)


def test_narrow_widths_come_closer_to_the_full_model() -> None:
    model, plain = dense_model("gemma3_text"), dense_model("gemma3_text")
    make_narrowable(model)
    reorder(model, order_of(unit_scores(model, ROWS, "activation")))

    def distance(width: int) -> float:
        with torch.no_grad(), at_width(model, width):
            wanted, got = hidden_states(plain, ROWS), hidden_states(model, ROWS)
        return float((wanted - got).square().mean())

    before = {width: distance(width) for width in (32, 64, 96, 128)}
    refit(model, ROWS, [32, 64, 96, 128])
    assert before[128] < 1e-9
    for width in (32, 64, 96):
        assert distance(width) < before[width]
    assert 0 < distance(128) < 0.5 * distance(96)
