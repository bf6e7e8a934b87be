"""Weights, gradients and optimiser state split over the processes of a launcher (FSDP).

In: an objective on this process' device. Out: the same, every layer's weights split along their
first dimension; a pass gathers the layer it is in. Checkpoints and exports are those of one
process: `whole` puts the parts of a tensor together, `part_of` takes this process' part of one.
Source: torch.distributed.fsdp.fully_shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from matryo.train.nested import LanguageModel, nest, text_part


def shard(objective: torch.nn.Module, model: LanguageModel, device: torch.device) -> None:
    """Splits the weights of `objective`, in place; every process calls it, with the same values."""
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    text = text_part(model)
    # The per-layer table is a third of the weights and is read once a pass.
    for part in (*text.layers, text.embed_tokens_per_layer, objective):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, if it is split; every process must call it."""
    found = tensor.detach()
    return found.full_tensor() if isinstance(found, DTensor) else found


def part_of(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process' part of a whole tensor, split as `like` is; the tensor itself if it is not."""
    if not isinstance(like, DTensor):
        return value
    value = value.to(like.device)
    part = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return part.clone()  # a view would keep the whole tensor


@torch.no_grad()
def clip_coefficients(model: LanguageModel) -> None:
    """Clips the prediction coefficients where they are kept, once a step: what a layer clips in a
    pass is a copy that was put together for it.
    """
    text = text_part(model)
    limit = text.config.altup_coef_clip
    if limit is not None:
        for layer in text.layers:
            layer.altup.prediction_coefs.weight.clamp_(-limit, limit)


def are_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether every value is a number, in every process, each of which must call it."""
    parts = [part.to_local() if isinstance(part, DTensor) else part for part in tensors]
    # The least and the greatest value are none if one is; unlike a mask they take no memory.
    good = all(bool(torch.stack(part.aminmax()).isfinite().all()) for part in parts if part.numel())
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return good
    found = torch.tensor(int(good), device=parts[0].device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MIN)
    return bool(found)


def assembled(model: LanguageModel, *, keep: bool = True) -> LanguageModel:
    """A model of one process with the weights of a split one; every process must call it, and gets
    the split one back if it does not `keep` the other.
    """
    weights = dict(whole_tensors(model.named_parameters(), keep=keep))
    if not keep:
        return model
    kind: Any = type(model)
    made: LanguageModel = kind(model.config)
    nest(made)
    made.load_state_dict(weights, strict=False)  # without the names of tied weights
    made.train(model.training)
    return made


def whole_tensors(
    tensors: Iterable[tuple[str, torch.Tensor]], *, keep: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and whole tensors on the processor; every process must go through all of them, and gets
    none if it does not `keep` them: together they are as large as the model.
    """
    for name, tensor in tensors:
        value = whole(tensor)
        if keep:
            yield name, value.cpu()


def whole_state(optimizer: torch.optim.Optimizer, *, keep: bool = True) -> dict[str, Any]:
    """`optimizer.state_dict()` of one process; without tensors if it does not `keep` them."""
    state = optimizer.state_dict()
    values = {}
    for number, entry in state["state"].items():
        tensors = {key: one for key, one in entry.items() if isinstance(one, torch.Tensor)}
        values[number] = {**entry, **dict.fromkeys(tensors)}
        values[number].update(whole_tensors(tensors.items(), keep=keep))
    return {**state, "state": values}


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The reverse of `whole_state`, but for the rates, which the recipe may have changed."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    values = {
        number: {
            key: part_of(value, weights[number])
            if isinstance(value, torch.Tensor) and value.shape == weights[number].shape
            else value
            for key, value in entry.items()
        }
        for number, entry in state["state"].items()
    }
    groups = [
        {**saved, **{key: now[key] for key in ("lr", "peak") if key in now}}
        for saved, now in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": values, "param_groups": groups})
