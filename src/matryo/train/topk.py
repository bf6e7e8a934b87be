"""Distillation from a teacher's likeliest ids alone, which fit into a file.

In: final hidden states and head of the student; for each token the teacher's K likeliest ids with
their log probabilities. Out: the mean loss, with gradients. What the teacher gives to all other ids
together is one more outcome, so that the student is not rewarded for moving mass among the K; with
K = V nothing is left out and the loss is the divergence from the whole distribution.

N tokens with a label · d model · V vocab · K ids kept
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from matryo.train.head import IGNORED, LOGITS, Head, HeadLoss, capped

_REST = 1e-6  # below this share of all, what is left of a distribution is rounding


@dataclass(frozen=True, slots=True)
class TopTargets:
    """What a teacher expects: ids (..., K) i64, their log probabilities (..., K) f32."""

    ids: torch.Tensor
    log_probabilities: torch.Tensor


def topk_loss(
    student: Head,
    labels: torch.Tensor,
    teacher: TopTargets,
    *,
    cross_entropy: float = 1.0,
    divergence: float = 1.0,
    logits: int = LOGITS,
) -> HeadLoss:
    """`cross_entropy` · CE + `divergence` · KL, over the tokens whose label is not IGNORED.

    student.hidden (..., d), labels (...) · logits: how many are held at a time; they are computed
    again in the backward pass
    """
    flat = labels.reshape(-1)
    wanted = (flat != IGNORED).nonzero().squeeze(1)
    hidden = student.hidden.reshape(-1, student.hidden.shape[-1]).index_select(0, wanted)
    ids = teacher.ids.reshape(-1, teacher.ids.shape[-1]).index_select(0, wanted)
    known = teacher.log_probabilities.reshape(-1, ids.shape[-1]).index_select(0, wanted)
    chosen = flat.index_select(0, wanted)
    rows = max(1, logits // student.weight.shape[0])
    sums = hidden.sum() * 0.0 + student.weight.sum() * 0.0, hidden.new_zeros(())
    parts = zip(*(t.split(rows) for t in (hidden, chosen, ids, known.detach())), strict=True)
    for part in parts:
        found = checkpoint(_sums, student.weight, student.softcap, *part, use_reentrant=False)
        sums = sums[0] + found[0], sums[1] + found[1]
    count = max(1, len(chosen))
    entropy, distance = sums[0] / count, sums[1] / count
    loss = cross_entropy * entropy + divergence * distance
    return HeadLoss(loss, entropy.detach(), distance.detach())


def _sums(
    weight: torch.Tensor,
    softcap: float,
    hidden: torch.Tensor,
    labels: torch.Tensor,
    ids: torch.Tensor,
    known: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy and divergence of some rows, in nats, summed."""
    found = functional.log_softmax(capped((hidden @ weight.T).float(), softcap), -1)
    entropy = -found.gather(1, labels[:, None]).sum()
    ours = found.gather(1, ids)
    distance = (known.exp() * (known - ours)).sum()
    rest = 1 - known.exp().sum(-1)
    left = rest > _REST
    if bool(left.any()):
        # Of what the student gives to the K, the complement; from its own sum where it is small.
        others = 1 - ours.exp().sum(-1)[left]
        log_others = others.clamp(min=_REST).log()
        distance = distance + (rest[left] * (rest[left].log() - log_others)).sum()
    return entropy, distance
