"""Distillation from K ids: all of them is the whole divergence, fewer bound it from below."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from matryo.train.head import IGNORED, Head, head_loss
from matryo.train.topk import TopTargets, topk_loss

V, D = 90, 16


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Student's states and head, labels, teacher's logits."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(2, 7, D, generator=g).requires_grad_(True)
    weight = torch.randn(V, D, generator=g).requires_grad_(True)
    labels = torch.randint(0, V, (2, 7), generator=g)
    labels[0, 2] = IGNORED
    return hidden, weight, labels, 2 * torch.randn(2, 7, V, generator=g)


def top(logits: torch.Tensor, count: int) -> TopTargets:
    best = torch.log_softmax(logits, -1).topk(count)
    return TopTargets(best.indices, best.values)


@pytest.mark.parametrize("softcap", [0.0, 4.0])
@pytest.mark.parametrize("logits", [V, 3 * V, 1 << 20])
def test_all_ids_are_the_whole_distribution(softcap: float, logits: int) -> None:
    hidden, weight, labels, teacher = case()
    found = topk_loss(
        Head(hidden, weight, softcap), labels, top(teacher, V),
        cross_entropy=0.3, divergence=0.7, logits=logits,
    )  # fmt: skip
    found.loss.backward()
    grads = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    # The teacher as states and head: the identity turns its logits into themselves.
    online = head_loss(
        Head(hidden, weight, softcap), labels, teacher=Head(teacher, torch.eye(V), 0.0),
        cross_entropy=0.3, divergence=0.7,
    )  # fmt: skip
    online.loss.backward()
    assert found.loss.item() == pytest.approx(online.loss.item(), rel=1e-5)
    assert found.divergence.item() == pytest.approx(online.divergence.item(), rel=1e-5)
    assert found.cross_entropy.item() == pytest.approx(online.cross_entropy.item(), rel=1e-5)
    for ours, theirs in zip(grads, (hidden.grad, weight.grad), strict=True):
        assert ours is not None and theirs is not None
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_few_ids_are_a_plain_computation_and_a_lower_bound() -> None:
    hidden, weight, labels, teacher = case(1)
    targets = top(teacher, 5)
    found = topk_loss(Head(hidden, weight, 0.0), labels, targets, cross_entropy=0.0)
    total, whole, count = 0.0, 0.0, 0
    for b in range(2):
        for t in range(7):
            if labels[b, t] == IGNORED:
                continue
            ours = torch.log_softmax(hidden[b, t] @ weight.T, -1).double()
            theirs = torch.log_softmax(teacher[b, t], -1).double()
            kept = targets.ids[b, t]
            p, q = theirs[kept].exp(), ours[kept].exp()
            rest_p, rest_q = 1 - p.sum(), 1 - q.sum()
            total += ((p * (p / q).log()).sum() + rest_p * (rest_p / rest_q).log()).item()
            whole += functional.kl_div(ours, theirs, log_target=True, reduction="sum").item()
            count += 1
    assert found.loss.item() == pytest.approx(total / count, rel=1e-4)
    assert total < whole


def test_a_student_that_agrees_has_no_gradient() -> None:
    hidden, weight, labels, _ = case(2)
    teacher = (hidden @ weight.T).detach()
    found = topk_loss(Head(hidden, weight, 0.0), labels, top(teacher, 6), cross_entropy=0.0)
    found.loss.backward()
    assert abs(found.loss.item()) < 1e-5
    assert hidden.grad is not None and float(hidden.grad.abs().max()) < 1e-5


def test_no_label_is_no_loss() -> None:
    hidden, weight, labels, teacher = case(3)
    labels = torch.full_like(labels, IGNORED)
    found = topk_loss(Head(hidden, weight, 0.0), labels, top(teacher, 6))
    found.loss.backward()
    assert found.loss.item() == 0.0 and weight.grad is not None and not weight.grad.any()
