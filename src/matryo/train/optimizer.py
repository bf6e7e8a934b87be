"""AdamW, or Muon for matrices and filters and AdamW for the rest, over float32 weights.

In: a model and the recipe's rates. Out: optimisers whose groups know their peak rate. Tables and
vectors are never decayed: a row that is not looked up, row 0 of the per-layer table above all,
stays where it is.
Source of Muon: Keller Jordan, 2024 (orthogonalised momentum, five quintic Newton-Schulz steps).
torch's own Muon works in bf16, which processors without bf16 units emulate at a fortieth of the
speed; this one works in the weights' dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from matryo.train import exchange
from matryo.train.nested import LanguageModel
from matryo.train.recipe import OptimizerRecipe
from matryo.train.shard import part_of, whole

MOMENTUM = 0.95
_QUINTIC = (3.4445, -4.7750, 2.0315)
_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose singular values are all made about one; a filter counts as the matrix from
    what it sees to its channel.
    """

    def __init__(
        self, parameters: Iterable[torch.Tensor], rate: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves every weight that has a gradient; every process of a launcher must call it.

        Singular values are those of a whole matrix, and finding them is a sixth of a small model's
        step: each process does so for every n-th matrix, and all take over what it found.
        """
        split = torch.distributed.is_available() and torch.distributed.is_initialized()
        processes = torch.distributed.get_world_size() if split else 1
        mine = torch.distributed.get_rank() if split else 0
        for group in self.param_groups:
            # A layer that no plan of this step had is without one. By size, so that matrices that
            # are handled at the same time take the same time.
            moved = sorted((w for w in group["params"] if w.grad is not None), key=torch.numel)
            for together in exchange.messages(moved, processes):
                updates = [whole(self._ahead(weight)).contiguous() for weight in together]
                for ahead in updates[mine::processes]:
                    ahead.copy_(orthogonalised(ahead.reshape(len(ahead), -1)).view_as(ahead))
                for owner in range(processes if split else 0):
                    exchange.broadcast(updates[owner::processes], owner)
                for weight, update in zip(together, updates, strict=True):
                    rows, columns = len(update), update[0].numel()
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                    weight.add_(part_of(update, weight), alpha=-rate)

    def _ahead(self, weight: torch.Tensor) -> torch.Tensor:
        """Nesterov's momentum: the gradient after this step's momentum."""
        if weight.grad is None:
            raise ValueError("a weight without a gradient has no momentum to add to")
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].mul_(MOMENTUM).add_(weight.grad)
        return weight.grad.add(momentum, alpha=MOMENTUM)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """About the same singular vectors, all singular values between 0.7 and 1.2."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    result: torch.Tensor = x.T if tall else x
    return result


def make_optimizers(
    model: LanguageModel, recipe: OptimizerRecipe, heads: torch.nn.Module | None = None
) -> list[torch.optim.Optimizer]:
    """One or two optimisers; every trainable weight is in exactly one group.

    heads: of auxiliary losses, which learn at the rate of the tables
    """
    kinds: dict[str, list[torch.Tensor]] = {"matrix": [], "table": [], "vector": []}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            kinds[_kind(name, weight)].append(weight)
    kinds["table"] += [] if heads is None else heads.parameters()
    rates = {
        "matrix": recipe.rate,
        "table": recipe.rate if recipe.embedding_rate is None else recipe.embedding_rate,
        "vector": recipe.rate if recipe.vector_rate is None else recipe.vector_rate,
    }
    made: list[torch.optim.Optimizer] = []
    if recipe.name == "muon":
        # A depthwise filter sees one channel: nothing to make orthogonal.
        mixing = [weight for weight in kinds["matrix"] if weight.shape[1] > 1]
        if mixing:  # a run of vectors and tables alone has none
            made.append(Muon(mixing, recipe.rate, recipe.weight_decay))
        kinds["matrix"] = [weight for weight in kinds["matrix"] if weight.shape[1] == 1]
        rates["matrix"] = rates["vector"]  # an orthogonalised step is of another size than Adam's
    groups: list[dict[str, Any]] = [
        {
            "params": weights,
            "lr": rates[kind],
            "weight_decay": recipe.weight_decay if kind == "matrix" else 0.0,
        }
        for kind, weights in kinds.items()
        if weights
    ]
    if groups:  # all that an adapter trains are matrices
        made.append(torch.optim.AdamW(groups, betas=(recipe.beta1, recipe.beta2), fused=True))
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made


def set_rate(optimizers: Sequence[torch.optim.Optimizer], scale: float) -> None:
    """Sets every learning rate to `scale` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * scale


def _kind(name: str, weight: torch.Tensor) -> str:
    if "embed_tokens" in name or name.endswith("embedding.weight"):
        return "table"
    # AltUp's matrices mix four streams: they are coefficients.
    return "vector" if weight.ndim < 2 or ".altup." in name else "matrix"
