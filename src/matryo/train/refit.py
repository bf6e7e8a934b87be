"""Down matrices refitted so that every prefix of an FFN comes close to the whole of it.

In: an ordered model, calibration rows, widths. Out: down matrices, changed in place. For each layer
the columns D minimise, in closed form,

    sum over widths w of a_w · |H D₀ᵀ − H_w D_wᵀ|²  +  ridge · |D − D₀|²

with H the activations (N, F) of the layer, D₀ the matrix as it was, and index w the first w units:
one matrix for all widths at once, as it is used. Only the units' second moments HᵀH are needed.
The full width counts `FULL_SHARE` so that it hardly moves. Layers are fitted to their own
activations in the full model; what narrow layers before them do is left to the distillation.

N tokens · F units · d model
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from matryo.train.dense import ffns, hidden_states

FULL_SHARE = 0.7
RIDGE = 1e-3  # of the mean second moment of a unit
MOMENT_BYTES = 512 << 20  # of layers that are measured in one pass over the rows


@torch.no_grad()
def refit(
    model: Any,
    rows: torch.Tensor,
    widths: Sequence[int],
    *,
    full_share: float = FULL_SHARE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """rows (R, T) of token ids; widths in units, the full one among them."""
    every = ffns(model)
    full = every[0].down_proj.in_features
    together = max(1, MOMENT_BYTES // (4 * full * full))
    narrow = [width for width in widths if width < full]
    if not narrow:
        return
    weights = {width: (1 - full_share) / len(narrow) for width in narrow} | {full: full_share}
    passes = range(0, len(every), together)
    fitted: list[torch.Tensor] = []
    for number, first in enumerate(passes):
        part = every[first : first + together]
        show = _part(progress, number, len(passes))
        moments = second_moments(model, part, rows, show)
        fitted += [
            nested_fit(moment, ffn.down_proj.weight, weights)
            for moment, ffn in zip(moments, part, strict=True)
        ]
    for ffn, matrix in zip(every, fitted, strict=True):
        ffn.down_proj.weight.copy_(matrix)


def _part(
    progress: Callable[[int, int], None], number: int, count: int
) -> Callable[[int, int], None]:
    return lambda done, total: progress(number * total + done, count * total)


@torch.no_grad()
def second_moments(
    model: Any,
    part: Sequence[Any],
    rows: torch.Tensor,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[torch.Tensor]:
    """HᵀH / N (F, F) of some FFNs over the rows."""
    full = part[0].down_proj.in_features
    sums = [torch.zeros(full, full) for _ in part]

    def watch(total: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        def add(units: torch.Tensor) -> torch.Tensor:
            flat = units.flatten(0, -2).float()
            total.addmm_(flat.T, flat, alpha=1.0 / rows.numel())
            return units

        return add

    for ffn, total in zip(part, sums, strict=True):
        ffn.watch = watch(total)
    try:
        for number, row in enumerate(rows):
            hidden_states(model, row[None])
            progress(number + 1, len(rows))
    finally:
        for ffn in part:
            ffn.watch = None
    return sums


def nested_fit(
    moment: torch.Tensor, down: torch.Tensor, weights: dict[int, float], ridge: float = RIDGE
) -> torch.Tensor:
    """The matrix (d, F) that serves all widths; moment (F, F), down (d, F), weights by width."""
    moment, down = moment.double(), down.double()
    system, target = torch.zeros_like(moment), torch.zeros_like(down.T)
    whole = moment @ down.T
    for width, weight in weights.items():
        system[:width, :width] += weight * moment[:width, :width]
        target[:width] += weight * whole[:width]
    strength = ridge * float(moment.diagonal().mean())
    system.diagonal().add_(strength)
    target += strength * down.T
    factor = torch.linalg.cholesky(system)
    return torch.cholesky_solve(target, factor).T.float()
