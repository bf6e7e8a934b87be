"""One step: its rows as batches, the gradients of its passes; and the same rows measured.

In: a mixture of rows, plans, an objective. Out: gradients on the weights, losses by pass. The rows
of a step are sorted by length, so that little is padded, and every learned token, labelled picture
and letter counts the same however they are split.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch.distributed.tensor import DTensor

from matryo.errors import ConfigError
from matryo.plan import Plan
from matryo.train import exchange
from matryo.train.auxiliary import Auxiliary
from matryo.train.batch import Batch, make_batch
from matryo.train.data import Corpus
from matryo.train.decoder import Shared
from matryo.train.encoders import SoftEmbeddings, auxiliary_losses, encode, num_tokens
from matryo.train.features import EncoderTeacher
from matryo.train.mixture import Mixture
from matryo.train.objective import NestedObjective
from matryo.train.recipe import Recipe
from matryo.train.teachers import Teacher, expected
from matryo.train.widths import Pass

_CHANGES = 2  # apart from other draws of the same seed and step


@dataclass(frozen=True, slots=True)
class Encoders:
    """What the encoders learn from. frames_per_token: mel frames of one embedding of sound ·
    teacher: whose features are learned
    """

    auxiliary: Auxiliary
    soft: SoftEmbeddings
    frames_per_token: int
    teacher: EncoderTeacher | None = None


@dataclass(frozen=True, slots=True)
class StepRows:
    """What a step of this process takes.

    batches: of its share of the rows · num_labels, num_tokens: of all processes' · places: (source,
    row) of all · after: the position behind them
    """

    batches: Sequence[Batch]
    num_labels: int
    num_tokens: int
    places: Sequence[tuple[int, int]]
    after: Sequence[int]


def prepare(
    rows: Mixture, step: int, position: Sequence[int], recipe: Recipe, accelerator: Accelerator
) -> StepRows:
    """Reads the rows of a step, and its pictures and sounds."""
    places, after = rows.rows(step, position, recipe.rows * recipe.accumulate)
    samples = [rows.sample(place) for place in places]
    order = sorted(range(len(samples)), key=lambda n: -len(samples[n].ids))
    batches = []
    for part in range(recipe.accumulate):
        mine = order[part * recipe.rows : (part + 1) * recipe.rows]
        mine = mine[accelerator.process_index :: accelerator.num_processes]
        batches.append(
            make_batch(
                [(samples[n], rows.sources[places[n][0]].corpus) for n in mine],
                [np.random.default_rng([recipe.seed, step, _CHANGES, n]) for n in mine],
            )
        )
    num_labels = sum(int(sample.learned.sum()) for sample in samples)
    num_ids = sum(len(sample.ids) - 1 for sample in samples)
    return StepRows(batches, num_labels, num_ids, places, after)


def accumulate(
    objective: NestedObjective,
    encoders: Encoders | None,
    passes: Sequence[Pass],
    rows: StepRows,
    accelerator: Accelerator,
    teacher: Teacher | None = None,
) -> dict[str, dict[str, float]]:
    """Gradients of one step; returns its losses by pass, means over labels and processes, and over
    passes of one name.

    passes: none = the encoders learn alone · teacher: of the passes that the widest does not teach
    """
    learns = objective.weights.need_teacher
    sums = torch.zeros(max(1, len(passes)), 3, device=accelerator.device)
    amounts = [_amounts(encoders, batch) for batch in rows.batches]
    of_step = sum(amounts, Counter[str]())
    beside: dict[str, float] = {}  # losses of the encoders
    for cpu, amount in zip(rows.batches, amounts, strict=True):
        batch = cpu.to(accelerator.device)
        # As many processes as share the labels take the mean of their gradients.
        share = batch.num_labels / rows.num_labels * accelerator.num_processes
        shares = {name: amount[name] / of_step[name] for name in of_step}
        taught = encoders is None
        if encoders is not None and not passes:
            with accelerator.autocast():
                encode(objective.model, batch.media)
            loss = _beside(encoders, batch, shares, beside)
            if loss is not None:
                loss.backward()
        outside = None if teacher is None or not passes else expected(teacher, batch)
        states: torch.Tensor | None = None  # of the widest pass, for the narrower ones
        known, together = Shared() if objective.shares else None, list[torch.Tensor]()
        for number, one in enumerate(passes):
            with accelerator.autocast(), torch.set_grad_enabled(one.weight > 0):
                out = objective(
                    batch.input_ids,
                    batch.labels,
                    one.plan,
                    outside if states is None else states,
                    known,
                    **batch.media,
                )
            if one.weight > 0:
                loss = out.loss * (one.weight * share)
                if encoders is not None and not taught:
                    extra, taught = _beside(encoders, batch, shares, beside), True
                    loss = loss if extra is None else loss + extra
                if known is None:
                    loss.backward()
                else:
                    together.append(loss)
            found = torch.stack([out.cross_entropy, out.divergence, out.distance])
            sums[number] += found.detach() * share
            if learns and number == 0:
                states = out.hidden.detach()
        if together:
            torch.stack(together).sum().backward()
        if encoders is not None:
            encoders.soft.take()  # of passes that taught it nothing
    if accelerator.num_processes > 1:
        heads = [] if encoders is None else [*encoders.auxiliary.parameters()]
        _agree([*objective.parameters(), *heads], sums)
    return _reported(objective, passes, sums, beside, accelerator, teacher is not None)


def _agree(weights: Sequence[torch.Tensor], sums: torch.Tensor) -> None:
    """Gives every process the mean of all processes' gradients, and the sums of all: the only
    pictures of a step may have been another's.
    """
    there = torch.tensor(
        [weight.grad is not None for weight in weights], dtype=torch.int32, device=sums.device
    )
    torch.distributed.all_reduce(there, torch.distributed.ReduceOp.MAX)
    for weight, wanted in zip(weights, there.tolist(), strict=True):
        if wanted and weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    gradients = [weight.grad for weight in weights]
    # The same ones everywhere now; split ones were added up on their way.
    exchange.average([one for one in gradients if one is not None and not isinstance(one, DTensor)])
    torch.distributed.all_reduce(sums)


def _amounts(encoders: Encoders | None, batch: Batch) -> Counter[str]:
    """See `Auxiliary.amounts`."""
    if encoders is None:
        return Counter()
    clips = num_tokens(batch, encoders.frames_per_token) if batch.said else []
    return encoders.auxiliary.amounts(batch.shown, clips, batch.said)


def _beside(
    encoders: Encoders, batch: Batch, shares: Mapping[str, float], sums: dict[str, float]
) -> torch.Tensor | None:
    """The weighted auxiliary losses of the last pass; each is added to `sums`.

    shares: this batch's of what the step has for each loss to learn from
    """
    soft = encoders.soft.take()
    found = auxiliary_losses(encoders.auxiliary, soft, batch, encoders.frames_per_token)
    if encoders.teacher is not None and soft:
        counts = num_tokens(batch, encoders.frames_per_token) if "audio" in soft else []
        found |= encoders.auxiliary.regression.losses(soft, encoders.teacher(batch.media), counts)
    total: torch.Tensor | None = None
    for name, loss in found.items():
        sums[name] = sums.get(name, 0.0) + float(loss.detach()) * shares[name]
        weighted = loss * (encoders.auxiliary.weights[name] * shares[name])
        total = weighted if total is None else total + weighted
    return total


def _reported(
    objective: NestedObjective,
    passes: Sequence[Pass],
    sums: torch.Tensor,
    beside: Mapping[str, float],
    accelerator: Accelerator,
    has_teacher: bool,
) -> dict[str, dict[str, float]]:
    means = (sums / accelerator.num_processes).cpu().tolist()
    # A step may have several random plans, which share a name.
    found: dict[str, dict[str, list[float]]] = {"losses": {}, "divergences": {}, "distances": {}}
    for number, one in enumerate(passes):
        cross_entropy, divergence, distance = means[number]
        found["losses"].setdefault(one.name, []).append(cross_entropy)
        from_widest = objective.weights.need_teacher and number > 0
        if from_widest or has_teacher:
            found["divergences"].setdefault(one.name, []).append(divergence)
        if from_widest:
            found["distances"].setdefault(one.name, []).append(distance)
    values = {
        key: {name: float(np.mean(several)) for name, several in by_name.items()}
        for key, by_name in found.items()
    }
    values["losses"] |= beside
    return {key: value for key, value in values.items() if value}


@torch.no_grad()
def evaluate(
    objective: NestedObjective,
    encoders: Encoders | None,
    rungs: Mapping[str, Plan],
    corpus: Corpus,
    recipe: Recipe,
) -> dict[str, dict[str, float]]:
    """Each rung's loss on held-out rows: nats a learned token, bits a byte of text; of encoders the
    share of pictures that are recognised (`classes`) and nats a letter (`ctc`).
    """
    sequence = recipe.data.sequence
    count = min(corpus.num_rows(sequence), recipe.data.held_out_rows)
    if not count:
        raise ConfigError("data.held_out does not fill a row: add text or lower data.sequence")
    # Spread over all rows, which lie one kind after another.
    places = np.linspace(0, corpus.num_rows(sequence) - 1, count).round().astype(int)
    samples = [corpus.row(int(place), sequence) for place in places]
    samples.sort(key=lambda sample: -len(sample.ids))
    answers = {label for sample in samples for label in sample.labels}
    objective.eval()
    device = objective.model.device
    sums, total = dict.fromkeys(rungs, 0.0), 0
    right = known = 0
    spelled, letters = 0.0, 0
    for start in range(0, count, recipe.rows):
        part = samples[start : start + recipe.rows]
        batch = make_batch([(sample, corpus) for sample in part], [None] * len(part)).to(device)
        total += batch.num_labels
        if recipe.objective.decoder:
            for name, plan in rungs.items():
                out = objective(batch.input_ids, batch.labels, plan, **batch.media)
                sums[name] += out.cross_entropy.item() * batch.num_labels
        if encoders is not None:
            if not recipe.objective.decoder:
                encode(objective.model, batch.media)
            soft = encoders.soft.take()
            if "vision" in soft and encoders.auxiliary.labels:
                hits, of = encoders.auxiliary.right(soft["vision"], batch.shown, answers)
                right, known = right + hits, known + of
            if "audio" in soft:
                counts = num_tokens(batch, encoders.frames_per_token)
                loss = encoders.auxiliary.ctc(soft["audio"], counts, batch.said)
                if loss is not None:
                    amount = _amounts(encoders, batch)["ctc"]
                    spelled, letters = spelled + loss.item() * amount, letters + amount
    objective.train()
    found: dict[str, dict[str, float]] = {}
    if recipe.objective.decoder:
        # Over all rows a learned token stands for this many bytes.
        bits = corpus.num_learned / corpus.num_bytes / math.log(2)
        found = {
            name: {"loss": value / total, "bits_per_byte": value / total * bits}
            for name, value in sums.items()
        }
    if known:
        found["classes"] = {"right": right / known, "pictures": known}
    if letters:
        found["ctc"] = {"loss": spelled / letters}
    return found


def described(places: Sequence[tuple[int, int]]) -> str:
    """The rows of a step, for messages: source:number, or the number where one source is all."""
    one = all(source == 0 for source, _ in places)
    shown = [str(row) if one else f"{source}:{row}" for source, row in places[:16]]
    return ", ".join(shown) + (", …" if len(places) > 16 else "")
