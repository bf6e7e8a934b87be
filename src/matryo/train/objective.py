"""The nested objective: the loss of one pass at one plan, taught by the widest.

In: a nested model, token ids and the ids that follow them, a plan, the widest pass' hidden states.
Out: the loss with gradients, its parts without. Cross-entropy, KL divergence from the widest rung's
distribution, squared distance from its final hidden states; weights say how much of each.
Source: arXiv 2310.07707 (joint loss over sub-models).

B batch · T tokens · d model
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from matryo.plan import Plan
from matryo.train.decoder import Shared
from matryo.train.head import IGNORED, LOGITS, Head, HeadLoss, head_loss, softcap_of
from matryo.train.nested import LanguageModel, hidden_states
from matryo.train.topk import TopTargets, topk_loss


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """How much of each loss a taught pass takes; one without a teacher has cross-entropy alone."""

    cross_entropy: float = 1.0
    divergence: float = 0.0
    hidden: float = 0.0
    temperature: float = 1.0

    @property
    def need_teacher(self) -> bool:
        return bool(self.divergence or self.hidden)


@dataclass(frozen=True, slots=True)
class PassLoss:
    """What one pass gave; only `loss` has gradients. In nats a token; `distance` is relative:
    0 = the teacher's states, 1 = as far from them as zero is.

    hidden (B, T, d): the pass' own final states, for passes that learn from it
    """

    loss: torch.Tensor
    cross_entropy: torch.Tensor
    divergence: torch.Tensor
    distance: torch.Tensor
    hidden: torch.Tensor


class NestedObjective(torch.nn.Module):
    """A nested model with its loss, as one module: what wraps it, to shard it, sees it all."""

    def __init__(
        self,
        model: LanguageModel,
        weights: LossWeights,
        logits: int = LOGITS,
        outside: LossWeights | None = None,
        *,
        shares: bool = False,
    ) -> None:
        """logits: how many are held at a time; a larger number needs memory and saves little ·
        outside: of passes that another model teaches · shares: passes over the same rows may have
        layers in common (`Shared`)
        """
        super().__init__()
        self.model, self.weights, self.logits, self.shares = model, weights, logits, shares
        self.outside = outside or LossWeights()

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        plan: Plan | None = None,
        teacher: torch.Tensor | Head | TopTargets | None = None,
        known: Shared | None = None,
        **media: torch.Tensor,
    ) -> PassLoss:
        """input_ids, labels (B, T): labels[t] is the id after input_ids[t], or IGNORED.

        media: pictures and sounds as the model's forward takes them
        teacher (B, T, d): final states of the widest plan on the same ids; None = learn from the
        text alone; or what another model expects after each id · known: what earlier passes over
        the same rows have computed
        """
        hidden = hidden_states(self.model, plan, known, input_ids=input_ids, **media)
        head, cap = self.model.lm_head.weight, softcap_of(self.model)
        if isinstance(teacher, (Head, TopTargets)):
            taught = self._taught_outside(Head(hidden, head, cap), labels, teacher)
            return PassLoss(
                taught.loss,
                taught.cross_entropy,
                taught.divergence,
                torch.zeros_like(taught.divergence),
                hidden,
            )
        weights = self.weights if teacher is not None else LossWeights()
        parts = head_loss(
            Head(hidden, head, cap),
            labels,
            teacher=None if teacher is None else Head(teacher, head, cap),
            cross_entropy=weights.cross_entropy,
            divergence=weights.divergence,
            temperature=weights.temperature,
            logits=self.logits,
        )
        loss, distance = parts.loss, torch.zeros_like(parts.loss.detach())
        if teacher is not None and weights.hidden:
            wanted = labels != IGNORED
            error = relative_distance(hidden[wanted], teacher.detach()[wanted])
            loss, distance = loss + weights.hidden * error, error.detach()
        return PassLoss(loss, parts.cross_entropy, parts.divergence, distance, hidden)

    def _taught_outside(
        self, student: Head, labels: torch.Tensor, teacher: Head | TopTargets
    ) -> HeadLoss:
        """Of a pass that another model teaches."""
        o = self.outside
        if isinstance(teacher, TopTargets):
            return topk_loss(
                student, labels, teacher,
                cross_entropy=o.cross_entropy, divergence=o.divergence, logits=self.logits,
            )  # fmt: skip
        return head_loss(
            student, labels, teacher=teacher, cross_entropy=o.cross_entropy,
            divergence=o.divergence, temperature=o.temperature, logits=self.logits,
        )  # fmt: skip


def relative_distance(hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared distance over the target's squared length, mean over tokens; in float32."""
    difference = (hidden.float() - target.float()).square().sum(-1)
    return (difference / target.float().square().sum(-1).clamp(min=1e-12)).mean()
