"""What the processes of a launcher tell each other: many tensors in few messages.

In: tensors of the same shapes, in the same order, in every process. Out: the same values in every
process, in place. A message of a small tensor takes as long to set up as to send, and a small model
has hundreds of them a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

MESSAGE = 1 << 22  # values, 16 MB: bounds the copies


def messages(tensors: Iterable[torch.Tensor], least: int = 1) -> Iterator[list[torch.Tensor]]:
    """The tensors in order, as many together as a message takes, or `least`."""
    part: list[torch.Tensor] = []
    size = 0
    for tensor in tensors:
        if len(part) >= least and size + tensor.numel() > MESSAGE:
            yield part
            part, size = [], 0
        part.append(tensor)
        size += tensor.numel()
    if part:
        yield part


@torch.no_grad()
def average(tensors: Iterable[torch.Tensor]) -> None:
    """Each becomes the mean of all processes'; tensors of one dtype."""
    processes = torch.distributed.get_world_size()
    for part in messages(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in part])
        torch.distributed.all_reduce(flat)
        _spread(flat / processes, part)


@torch.no_grad()
def broadcast(tensors: Sequence[torch.Tensor], owner: int) -> None:
    """Each becomes that of process `owner`."""
    for part in messages(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in part])
        torch.distributed.broadcast(flat, owner)
        _spread(flat, part)


def _spread(flat: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, values in zip(tensors, flat.split(sizes), strict=True):
        tensor.copy_(values.view_as(tensor))
