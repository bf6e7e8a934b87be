"""Cross-entropy and distillation over a large vocabulary, without its logits in memory.

In: final hidden states (N, d) and the head's weight (V, d). Out: the mean loss, with gradients for
both. Logits exist for a few rows at a time: their gradients are formed in the same pass, so that
nothing of size N·V is held or computed twice. A 262 k vocabulary costs some 400 MB whatever the
batch, instead of a few times 1 MB for every token of it.

N tokens with a label · d model · V vocab
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from matryo.train.native import fused_operations

IGNORED = -100  # the label of a token that is not to be predicted, as everywhere in transformers
LOGITS = 1 << 25  # at a time: 128 MB in float32, about three times that while in use
ROWS = 512  # at a time at most: enough for a product, and few enough for the caches


@dataclass(frozen=True, slots=True)
class Head:
    """What turns hidden states into logits: `cap·tanh(h Wᵀ / cap)`; cap 0 = no cap."""

    hidden: torch.Tensor
    weight: torch.Tensor
    softcap: float

    def logits(self) -> torch.Tensor:
        """All of them at once, (..., V)."""
        return capped(self.hidden @ self.weight.T, self.softcap)


def softcap_of(model: Any) -> float:
    """The cap of a model's logits, 0 = none."""
    text = model.config.get_text_config()
    return float(getattr(text, "final_logit_softcapping", None) or 0.0)


def capped(logits: torch.Tensor, softcap: float) -> torch.Tensor:
    """Of the same shape; 0 = no cap."""
    return softcap * torch.tanh(logits / softcap) if softcap else logits


@dataclass(frozen=True, slots=True)
class HeadLoss:
    """Means over the labelled tokens, in nats.

    loss: the weighted sum, which has gradients · cross_entropy, divergence: its parts, without;
    divergence is KL(teacher || student) at the temperature, times its square
    """

    loss: torch.Tensor
    cross_entropy: torch.Tensor
    divergence: torch.Tensor


def head_loss(
    student: Head,
    labels: torch.Tensor,
    *,
    teacher: Head | None = None,
    cross_entropy: float = 1.0,
    divergence: float = 0.0,
    temperature: float = 1.0,
    logits: int = LOGITS,
) -> HeadLoss:
    """`cross_entropy` · CE + `divergence` · KL, over the tokens whose label is not IGNORED.

    student.hidden (..., d), labels (...): the id that follows each · teacher.hidden (..., d') is
    taken as it is · logits: how many are held at a time
    With no labelled token at all the loss is 0, with gradients of 0.
    """
    flat = labels.reshape(-1)
    wanted = (flat != IGNORED).nonzero().squeeze(1)
    whole = wanted.numel() == flat.numel()

    def rows(hidden: torch.Tensor) -> torch.Tensor:
        every = hidden.reshape(-1, hidden.shape[-1])
        return every if whole else every.index_select(0, wanted)

    if teacher is not None:
        teacher = Head(rows(teacher.hidden).detach(), teacher.weight.detach(), teacher.softcap)
    options = _Options(
        teacher if divergence else None,
        student.softcap,
        cross_entropy,
        divergence,
        temperature,
        max(1, min(ROWS, logits // student.weight.shape[0])),
        torch.is_grad_enabled(),
    )
    chosen = flat if whole else flat.index_select(0, wanted)
    hidden = rows(student.hidden)
    return HeadLoss(
        *_HeadLoss.apply(hidden, student.weight, chosen, options)  # type: ignore[no-untyped-call]
    )


@dataclass(frozen=True, slots=True)
class _Options:
    teacher: Head | None
    softcap: float
    cross_entropy: float
    divergence: float
    temperature: float
    rows: int
    with_gradients: bool


class _HeadLoss(torch.autograd.Function):
    """Forward: the loss and, in the same pass over the rows, its gradients."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, o: _Options
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sums = torch.zeros(2, dtype=torch.float64, device=hidden.device)
        hidden_grad = torch.empty_like(hidden) if o.with_gradients else None
        # Summed in float32 whatever the weight is: hundreds of small parts in bf16 lose the last.
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if o.with_gradients else None
        count, wide = max(1, labels.numel()), weight.float()
        shares = (o.cross_entropy / count, o.divergence * o.temperature / count)
        native = fused_operations() if hidden.device.type == "cpu" else None
        losses_of = _plain_rows if native is None else native.head_rows
        for start in range(0, labels.numel(), o.rows):
            part = slice(start, start + o.rows)
            logits = (hidden[part] @ weight.T).float()
            theirs = None
            if o.teacher is not None:
                theirs = (o.teacher.hidden[part] @ o.teacher.weight.T).float()
            losses, logits_grad = losses_of(logits, theirs, labels[part], o, *shares)
            sums += losses
            if hidden_grad is not None and weight_grad is not None:
                hidden_grad[part] = logits_grad @ wide
                rows = hidden[part].to(logits_grad.dtype)
                if hidden.dtype == torch.float32:
                    weight_grad.addmm_(logits_grad.T, rows)
                else:  # a product in the dtype of the pass, summed in float32
                    weight_grad += logits_grad.T @ rows
        if hidden_grad is not None and weight_grad is not None:
            ctx.save_for_backward(hidden_grad, weight_grad.to(weight.dtype))
        cross_entropy, divergence = (sums / count).float().unbind()
        total = o.cross_entropy * cross_entropy + o.divergence * divergence
        ctx.mark_non_differentiable(cross_entropy, divergence)
        return total, cross_entropy, divergence

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * grads[0], weight_grad * grads[0], None, None


def _plain_rows(
    logits: torch.Tensor,
    theirs: torch.Tensor | None,
    labels: torch.Tensor,
    o: _Options,
    entropy: float,
    divergence: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses (2,) of some rows, summed, and the gradient of their products `logits` (n, V).

    theirs: the teacher's products · entropy, divergence: what the parts of the gradient weigh
    """
    bent, slope = _capped(logits, o.softcap)
    index = torch.arange(labels.numel(), device=labels.device)
    ours = functional.log_softmax(bent, -1)
    losses = torch.zeros(2, dtype=torch.float64, device=logits.device)
    losses[0] = -ours[index, labels].sum()
    gradient = ours.exp()
    gradient[index, labels] -= 1
    gradient *= entropy
    if o.teacher is not None and theirs is not None:
        wanted = _capped(theirs, o.teacher.softcap)[0]
        warm = functional.log_softmax(bent / o.temperature, -1)
        theirs = functional.log_softmax(wanted / o.temperature, -1)
        probabilities = theirs.exp()
        losses[1] = (probabilities * (theirs - warm)).sum() * o.temperature**2
        gradient += divergence * (warm.exp() - probabilities)
    return losses, gradient if slope is None else gradient * slope


def _capped(logits: torch.Tensor, softcap: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """cap tanh(logits / cap) and its slope; None where there is no cap."""
    if not softcap:
        return logits, None
    bent = torch.tanh(logits / softcap)
    return bent * softcap, 1 - bent * bent
