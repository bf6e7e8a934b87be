"""A short self-distillation that makes the prefixes of an ordered decoder good.

In: an ordered model, the FFN weights it had before anything was fitted, rows of text. Out: FFN
weights, trained in place; everything else stays. Each step draws one width and pulls the model at
that width towards the full model as it was: KL divergence of the next token, over the `vocabulary`
likeliest ids, and the distance of the final states. The full width is drawn like the others, so
that it stays what it was.

The teacher costs no memory but its FFNs: they are put in the model's place for its pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from matryo.errors import ConfigError, TrainingError
from matryo.train import resume
from matryo.train.data import Shuffled
from matryo.train.dense import at_width, ffns, full_width, hidden_states
from matryo.train.head import Head, capped, head_loss, softcap_of
from matryo.train.journal import Journal
from matryo.train.meter import Clock, Peak, measured_peak
from matryo.train.objective import relative_distance
from matryo.train.recipe import ScheduleRecipe
from matryo.train.shard import are_finite

Ffns = list[list[torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """steps: 0 = none · rows: of a step · rate: of AdamW, at its peak · hidden: weight of the
    distance of the final states · vocabulary: ids in the divergence, 0 = all · save_every: in steps
    """

    steps: int = 300
    rows: int = 4
    rate: float = 2e-4
    hidden: float = 0.1
    vocabulary: int = 16384
    save_every: int = 50

    def __post_init__(self) -> None:
        """Raises ConfigError for a number out of range."""
        for name, least in (("steps", 0), ("rows", 1), ("vocabulary", 0), ("save_every", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if not 0 < self.rate < math.inf:
            raise ConfigError(f"rate is {self.rate:g}; expected a number above 0, such as 2e-4")
        if not 0 <= self.hidden < math.inf:
            raise ConfigError(f"hidden is {self.hidden:g}; expected a number from 0")


def packed_rows(
    tokens: npt.NDArray[np.int32], rows: Sequence[int], sequence: int, begin: int | None
) -> torch.Tensor:
    """Rows (R, T + 1) of neighbouring ids, of which the first is replaced by `begin`, if there is
    one: models that were trained with it answer badly without.
    """
    parts = [tokens[n * sequence : (n + 1) * sequence + 1] for n in rows]
    found = torch.from_numpy(np.stack(parts).astype(np.int64))
    if begin is not None:
        found[:, 0] = begin
    return found


class Weights(torch.nn.Module):
    """The FFNs of a model as one module: what is trained and saved."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(ffns(model))


def ffn_weights(model: Any) -> Ffns:
    """Copies of the FFN weights, layer by layer."""
    return [[weight.detach().clone() for weight in ffn.parameters()] for ffn in ffns(model)]


@contextmanager
def with_weights(model: Any, weights: Ffns) -> Iterator[None]:
    """Inside the block the FFNs have other weights and their full width."""

    def exchange() -> None:
        for ffn, others in zip(ffns(model), weights, strict=True):
            for number, weight in enumerate(ffn.parameters()):
                weight.data, others[number] = others[number], weight.data

    exchange()
    try:
        with at_width(model, full_width(model)):
            yield
    finally:
        exchange()


def recover(
    model: Any,
    original: Ffns,
    texts: Shuffled,
    widths: Mapping[str, int],
    recovery: Recovery,
    output: Path,
    *,
    begin: int | None,
    key: Mapping[str, Any],
    say: Callable[[str], None] = lambda message: None,
) -> None:
    """Trains, or continues from what an earlier call left in `output/checkpoints`.

    begin: the id that begins a text · key: what the run depends on, compared when it continues
    Raises ConfigError for a run of another key, TrainingError if a loss is no number, CapacityError
    if the disk is full.
    """
    model.requires_grad_(False)
    trained = Weights(model).requires_grad_(True)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=recovery.rate, weight_decay=0.0)
    schedule = ScheduleRecipe(steps=recovery.steps, warmup=max(1, recovery.steps // 20), decay=0.8)
    kept = likely_ids(model, original, texts, recovery.vocabulary, recovery.rows, begin)
    checkpoints, step = output / "checkpoints", 0
    last = resume.newest(checkpoints)
    if last is not None:
        step = resume.restore(last, trained, [optimizer], key)["step"]  # type: ignore[arg-type]
        say(f"continuing after step {step}")
    names, clock = list(widths), Clock()
    tokens = recovery.rows * texts.sequence
    peak = Peak(measured_peak(torch.device("cpu"), torch.float32))
    with Journal(output, step, say) as journal:
        while step < recovery.steps:
            clock.start()
            name = names[int(np.random.default_rng([texts.seed, step]).integers(len(names)))]
            taken = texts.indices(step * recovery.rows, recovery.rows)
            ids = packed_rows(texts.corpus.tokens, taken, texts.sequence, begin)[:, :-1]
            loss, divergence = _loss(model, original, ids, widths[name], kept, recovery.hidden)
            loss.backward()
            norm = float(torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0))
            if not (math.isfinite(float(loss.detach())) and math.isfinite(norm)):
                shown = ", ".join(map(str, taken[:16]))
                raise TrainingError(
                    f"the loss at {name} is not a number at step {step + 1}, rows {shown}; no "
                    f"weight was changed; lower the rate ({recovery.rate:g}) and begin again"
                )
            for group in optimizer.param_groups:
                group["lr"] = recovery.rate * schedule.scale(step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            seconds = clock.stop()
            journal.write(
                {
                    "step": step,
                    "steps": recovery.steps,
                    "losses": {name: divergence},
                    "rate": recovery.rate * schedule.scale(step - 1),
                    "gradient_norm": norm,
                    "tokens_per_second": tokens / seconds,
                    "peak_share": peak.share(
                        _operations(model, widths[name], len(kept)) * tokens / seconds
                    ),
                    "seconds_left": clock.left(recovery.steps - step),
                }
            )  # fmt: skip
            if step == recovery.steps or step % recovery.save_every == 0:
                if not are_finite(trained.parameters()):
                    raise TrainingError(
                        f"a weight is not a number after step {step}, which is not saved; lower "
                        f"the rate ({recovery.rate:g}) and begin again"
                    )
                progress = {"step": step, "recipe": dict(key)}
                resume.save(checkpoints, trained, [optimizer], progress, 1)  # type: ignore[arg-type]


def _loss(
    model: Any, original: Ffns, ids: torch.Tensor, width: int, kept: torch.Tensor, hidden: float
) -> tuple[torch.Tensor, float]:
    """The loss at a width, with gradients, and its divergence alone in nats a token."""
    with torch.no_grad(), with_weights(model, original):
        wanted = hidden_states(model, ids)
    with at_width(model, width):
        got = hidden_states(model, ids)
    head, cap = model.get_output_embeddings().weight.detach()[kept], softcap_of(model)
    parts = head_loss(
        Head(got, head, cap),
        torch.zeros_like(ids),  # the text itself teaches nothing here
        teacher=Head(wanted, head, cap),
        cross_entropy=0.0,
        divergence=1.0,
    )
    return parts.loss + hidden * relative_distance(got, wanted), float(parts.divergence)


@torch.no_grad()
def likely_ids(
    model: Any, original: Ffns, texts: Shuffled, count: int, rows: int, begin: int | None
) -> torch.Tensor:
    """The `count` ids that the full model expects most over some rows; ascending; 0 = all.

    A divergence over them instead of all of a large vocabulary costs a fraction: a head of 262,144
    ids takes more time than the layers of a small model.
    """
    head, cap = model.get_output_embeddings().weight, softcap_of(model)
    if not 0 < count < head.shape[0]:
        return torch.arange(head.shape[0])
    expected = torch.zeros(head.shape[0])
    with with_weights(model, original):
        for index in texts.indices(0, min(texts.num_rows, max(rows, 8))):
            ids = packed_rows(texts.corpus.tokens, [index], texts.sequence, begin)
            for states in hidden_states(model, ids)[0].split(64):
                expected += capped(states @ head.T, cap).softmax(-1).sum(0)
    return expected.topk(count).indices.sort().values


def _operations(model: Any, width: int, vocabulary: int) -> float:
    """Floating-point operations a token of a step: three passes of the student, one of the teacher,
    attention scores left out.
    """
    layers: Sequence[Any] = model.get_decoder().layers
    whole = sum(weight.numel() for layer in layers for weight in layer.parameters())
    head = vocabulary * model.get_output_embeddings().weight.shape[1]
    cut = sum(w.numel() for layer in layers for w in layer.mlp.parameters())
    narrow = whole - cut * (1 - width / full_width(model))
    return float(2 * (3 * narrow + whole + 4 * head))
