"""`matryo train`: one run, from a recipe to an exported model.

In: a `Recipe`. Out: a `Report`, and in the output directory: checkpoints, log, plot, the model.
One line from top to bottom: model, data, objective, optimiser, resume, steps, export. What a step
does follows from the recipe and its number alone, so that a run that was killed continues with the
same numbers.

B rows · T tokens of a row
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]

from matryo.checkpoint.atomic import alone, replace_text
from matryo.errors import ConfigError, TrainingError
from matryo.inputs.tokenizer import Tokenizer
from matryo.plan import Plan
from matryo.train import resume
from matryo.train.data import Shuffled, open_corpus
from matryo.train.export import Exported, export
from matryo.train.journal import Journal, plot
from matryo.train.meter import Clock, measured_peak, operations
from matryo.train.nested import LanguageModel, nest
from matryo.train.objective import LossWeights, NestedObjective
from matryo.train.optimizer import make_optimizers, set_rate
from matryo.train.recipe import Recipe
from matryo.train.start import make_model, make_schedule
from matryo.train.widths import Pass

CHECKPOINTS, TOKENS, HELD_OUT = "checkpoints", "tokens", "held-out"


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended: the last losses by rung, on held-out text too if there is any."""

    steps: int
    losses: Mapping[str, float]
    held_out: Mapping[str, Mapping[str, float]]
    exported: Sequence[Exported]


def main(recipe: Recipe, *, say: Callable[[str], None] = print) -> Report:
    """Trains, or continues, and exports; `say` takes lines for people.

    Raises ConfigError, CheckpointError and InputError for what cannot be used, TrainingError if a
    loss is no number or the result differs, CapacityError if the disk is full.
    """
    recipe.output.mkdir(parents=True, exist_ok=True)
    # Without an accelerator it must be told, or it takes the processes of a launcher for one each.
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if recipe.precision == "bf16" else "no",
    )
    tell = say if accelerator.is_main_process else _silent
    if not accelerator.is_main_process:
        return _run(recipe, accelerator, tell)
    with alone(recipe.output, wait=False):
        return _run(recipe, accelerator, tell)


def _silent(message: str) -> None:
    """Only one process of a run speaks."""


def _run(recipe: Recipe, accelerator: Accelerator, say: Callable[[str], None]) -> Report:
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    torch.use_deterministic_algorithms(recipe.deterministic)
    if recipe.rows % accelerator.num_processes:
        raise ConfigError(
            f"rows is {recipe.rows}; expected a multiple of the {accelerator.num_processes} "
            "processes that share them"
        )

    # Model.
    model, directory = make_model(recipe.model, recipe.seed)
    config = nest(model)
    if recipe.recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.to(accelerator.device)
    schedule = make_schedule(recipe, config)

    # Data.
    tokenizer = Tokenizer.from_file(directory / "tokenizer.json", bos_id=config.bos_id)
    if len(tokenizer) > config.vocab_size or not config.eos_ids:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size}, and ends a "
            f"text with {config.eos_ids}; it must fit, and end texts"
        )
    read: dict[str, Any] = {
        "end_id": config.eos_ids[0],
        "field": recipe.data.field,
        "bad_rows": recipe.data.bad_rows,
        "note": say,
    }
    with accelerator.main_process_first():
        corpus = open_corpus(recipe.data.files, tokenizer, recipe.output / TOKENS, **read)
        rest = recipe.data.held_out
        held_out = open_corpus(rest, tokenizer, recipe.output / HELD_OUT, **read) if rest else None
    sequence = recipe.data.sequence
    rows = Shuffled(corpus, sequence, recipe.seed)
    say(
        f"{len(corpus.tokens):,} tokens in {corpus.num_documents:,} documents: {rows.num_rows:,} "
        f"rows of {sequence}, {recipe.rows * recipe.accumulate} a step"
    )

    # Objective and optimisers.
    o = recipe.objective
    weights = LossWeights(
        cross_entropy=o.cross_entropy,
        divergence=o.divergence,
        hidden=o.hidden,
        temperature=o.temperature,
    )
    objective = NestedObjective(model, weights)
    objective.train()
    optimizers = make_optimizers(model, recipe.optimizer)

    # Resume.
    checkpoints, step, position = recipe.output / CHECKPOINTS, 0, 0
    last_good = resume.newest(checkpoints)
    if last_good is not None:
        progress = resume.restore(last_good, model, optimizers, recipe.to_json())
        step, position = progress["step"], progress["position"]
        if progress["texts"] != corpus.digest:
            raise ConfigError(
                f"the texts have changed since step {step}, so that the run would be another: "
                "put them back, or choose another output"
            )
        say(f"continuing after step {step}")
    elif accelerator.is_main_process:
        replace_text(recipe.output / "recipe.json", json.dumps(recipe.to_json(), indent=1) + "\n")

    # Steps.
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    peak = measured_peak(accelerator.device, dtype) * accelerator.num_processes
    say(f"{peak / 1e9:,.0f} GFLOP/s at most ({torch.get_num_threads()} threads, {dtype})")
    clock, losses, found = Clock(), dict[str, float](), dict[str, dict[str, float]]()
    tokens = recipe.rows * recipe.accumulate * sequence
    with _journal(recipe, accelerator, step, say) as journal:
        while step < recipe.schedule.steps:
            clock.start()
            passes = schedule.passes(step)
            taken = rows.indices(position, recipe.rows * recipe.accumulate)
            values = _accumulate(objective, passes, rows, taken, recipe, accelerator)
            norm = _gradient_norm(model, accelerator, recipe.optimizer.clip)
            _check(values, norm, step, taken, last_good)
            scale = recipe.schedule.scale(step)
            set_rate(optimizers, scale)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step, position = step + 1, position + len(taken)
            seconds = clock.stop()
            losses |= values["losses"]
            work = operations(config, passes, tokens, sequence)
            journal.write(
                {
                    "step": step,
                    "steps": recipe.schedule.steps,
                    **values,
                    "rate": recipe.optimizer.rate * scale,
                    "gradient_norm": norm,
                    "tokens_per_second": tokens / seconds,
                    "peak_share": work / seconds / peak,
                    "seconds_left": clock.left(recipe.schedule.steps - step),
                }
            )
            ended = step == recipe.schedule.steps
            if held_out is not None and (ended or step % recipe.evaluate_every == 0):
                found = evaluate(objective, schedule.rungs, held_out, recipe)
                journal.write({"step": step, "held_out": found})
            if (ended or step % recipe.save_every == 0) and accelerator.is_main_process:
                state = {
                    "step": step,
                    "position": position,
                    "texts": corpus.digest,
                    "recipe": recipe.to_json(),
                }
                last_good = resume.save(checkpoints, model, optimizers, state, recipe.keep)

    # Export.
    exported: list[Exported] = []
    if accelerator.is_main_process:
        plot(recipe.output)
        sample = (corpus if held_out is None else held_out).tokens[: recipe.export.tokens]
        exported = export(
            model,
            schedule.rungs,
            recipe.output,
            [int(token) for token in sample],
            start=recipe.model.start,
            tokenizer=directory,
            dtype=recipe.export.dtype,
            packed=recipe.export.packed,
        )
        for one in exported:
            say(
                f"{one.path}: logits within {one.logits:.2g}, {one.divergence:.2g} nats of the "
                "trained model's"
            )
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return Report(step, losses, found, exported)


def _accumulate(
    objective: NestedObjective,
    passes: Sequence[Pass],
    rows: Shuffled,
    taken: Sequence[int],
    recipe: Recipe,
    accelerator: Accelerator,
) -> dict[str, dict[str, float]]:
    """Gradients of one step; returns its losses by pass, means over rows and processes."""
    parts = recipe.accumulate
    learns = objective.weights.need_teacher
    sums = torch.zeros(len(passes), 3, device=accelerator.device)
    for part in range(parts):
        mine = taken[part * recipe.rows : (part + 1) * recipe.rows]
        mine = mine[accelerator.process_index :: accelerator.num_processes]
        tokens = torch.from_numpy(rows.corpus.rows(mine, rows.sequence)).to(accelerator.device)
        teacher: torch.Tensor | None = None
        for number, one in enumerate(passes):
            with accelerator.autocast(), torch.set_grad_enabled(one.weight > 0):
                out = objective(tokens[:, :-1], tokens[:, 1:], one.plan, teacher)
            if one.weight > 0:
                (out.loss * (one.weight / parts)).backward()
            sums[number] += torch.stack([out.cross_entropy, out.divergence, out.distance]).detach()
            if learns and number == 0:
                teacher = out.hidden.detach()
    if accelerator.num_processes > 1:
        torch.distributed.all_reduce(sums)
        for weight in objective.parameters():
            if weight.grad is not None:  # the same ones everywhere: the plans are
                torch.distributed.all_reduce(weight.grad)
                weight.grad /= accelerator.num_processes
    means = (sums / (parts * accelerator.num_processes)).cpu().tolist()
    values: dict[str, dict[str, float]] = {"losses": {}, "divergences": {}, "distances": {}}
    for one, (cross_entropy, divergence, distance) in zip(passes, means, strict=True):
        values["losses"][one.name] = cross_entropy
        if learns and one is not passes[0]:
            values["divergences"][one.name] = divergence
            values["distances"][one.name] = distance
    return {key: value for key, value in values.items() if value}


def _gradient_norm(model: LanguageModel, accelerator: Accelerator, clip: float | None) -> float:
    """The length of all gradients together, which are shortened to `clip`."""
    limit = math.inf if clip is None else clip
    return float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit))


def _check(
    values: Mapping[str, Mapping[str, float]],
    norm: float,
    step: int,
    taken: Sequence[int],
    last_good: Path | None,
) -> None:
    """Raises TrainingError before a step would spoil the weights."""
    bad = [name for name, value in values["losses"].items() if not math.isfinite(value)]
    if not bad and math.isfinite(norm):
        return
    what = f"the loss of {', '.join(bad)}" if bad else "the gradient"
    shown = ", ".join(map(str, taken[:16])) + (", …" if len(taken) > 16 else "")
    where = "none was saved yet" if last_good is None else f"the last good one is {last_good}"
    raise TrainingError(
        f"{what} is not a number at step {step + 1}, rows {shown}; no weight was changed, "
        f"checkpoint: {where}; lower the rates or look at these rows, then run the same command"
    )


@torch.no_grad()
def evaluate(
    objective: NestedObjective, rungs: Mapping[str, Plan], corpus: Any, recipe: Recipe
) -> dict[str, dict[str, float]]:
    """Each rung's loss on held-out rows: nats a token, bits a byte of text."""
    sequence = recipe.data.sequence
    count = min(corpus.num_rows(sequence), recipe.data.held_out_rows)
    if not count:
        raise ConfigError("data.held_out does not fill a row: add text or lower data.sequence")
    device = objective.model.device
    objective.eval()
    found = {}
    for name, plan in rungs.items():
        total = 0.0
        for start in range(0, count, recipe.rows):
            chosen = np.arange(start, min(count, start + recipe.rows))
            tokens = torch.from_numpy(corpus.rows(chosen, sequence)).to(device)
            out = objective(tokens[:, :-1], tokens[:, 1:], plan)
            total += out.cross_entropy.item() * len(chosen)
        loss = total / count
        # Over the whole text a token stands for this many bytes.
        per_byte = loss * len(corpus.tokens) / corpus.num_bytes / math.log(2)
        found[name] = {"loss": loss, "bits_per_byte": per_byte}
    objective.train()
    return found


def _journal(
    recipe: Recipe, accelerator: Accelerator, step: int, say: Callable[[str], None]
) -> Any:
    return Journal(recipe.output, step, say) if accelerator.is_main_process else _Mute()


class _Mute:
    """The journal of processes that write nothing."""

    def __enter__(self) -> _Mute:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def write(self, record: Mapping[str, Any]) -> None:
        return None
