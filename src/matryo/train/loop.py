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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

from matryo import kernels
from matryo.checkpoint.atomic import alone, replace_text
from matryo.errors import ConfigError, TrainingError
from matryo.inputs.tokenizer import Tokenizer
from matryo.train import adapters, resume, rungs
from matryo.train.average import WeightMean
from matryo.train.export import Exported, export
from matryo.train.journal import Journal, plot, read
from matryo.train.memory import keep_freed
from matryo.train.meter import Clock, measured_peak, operations
from matryo.train.mixture import Mixture
from matryo.train.nested import nest
from matryo.train.objective import LossWeights, NestedObjective
from matryo.train.optimizer import make_optimizers, set_rate
from matryo.train.recipe import Recipe
from matryo.train.shard import assembled, clip_coefficients, shard, whole
from matryo.train.sources import make_encoders, make_teacher, open_data, probes_of
from matryo.train.start import make_model, make_schedule, prepare_towers
from matryo.train.step import accumulate, described, evaluate, prepare

CHECKPOINTS, ADAPTER = "checkpoints", "adapter"


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
    # An earlier run of this process may have had another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
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
    kernels.set_threads(torch.get_num_threads())
    keep_freed()
    torch.use_deterministic_algorithms(recipe.deterministic)
    if recipe.rows % accelerator.num_processes:
        raise ConfigError(
            f"rows is {recipe.rows}; expected a multiple of the {accelerator.num_processes} "
            "processes that share them"
        )

    # Model.
    start = make_model(recipe.model, recipe.seed)
    model, directory = start.model, start.directory
    config = nest(model)
    if recipe.adapter is not None:
        torch.manual_seed(recipe.seed)
        adapters.attach(model, recipe.adapter)
    if recipe.recompute:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.to(accelerator.device)
    prepare_towers(model)
    schedule = make_schedule(recipe, config)

    # Data.
    tokenizer = Tokenizer.from_file(directory / "tokenizer.json", bos_id=config.bos_id)
    if len(tokenizer) > config.vocab_size or not config.eos_ids:
        raise ConfigError(
            f"the tokenizer has {len(tokenizer)} tokens, the model {config.vocab_size}, and ends a "
            f"text with {config.eos_ids}; it must fit, and end texts"
        )
    with accelerator.main_process_first():
        corpora, held_out = open_data(recipe, start, config, tokenizer, say)
    sequence = recipe.data.sequence
    rows = Mixture(corpora, [s.weight for s in recipe.data.sources], sequence, recipe.seed)
    say(
        f"{rows.num_tokens:,} tokens in {sum(c.num_documents for c in corpora):,} documents: "
        f"{rows.num_rows:,} rows of at most {sequence}, {recipe.rows * recipe.accumulate} a step"
    )

    # Objective and optimisers.
    o = recipe.objective
    weights = LossWeights(
        cross_entropy=o.cross_entropy,
        divergence=o.divergence,
        hidden=o.hidden,
        temperature=o.temperature,
    )
    t = recipe.teacher
    outside = LossWeights() if t is None else LossWeights(
        cross_entropy=t.cross_entropy, divergence=t.divergence, temperature=t.temperature
    )  # fmt: skip
    with accelerator.main_process_first():
        teacher = make_teacher(recipe, tokenizer, corpora, say)
    objective = NestedObjective(model, weights, outside=outside, shares=o.nesting == "shared")
    objective.train()
    encoders = make_encoders(recipe, start, config, corpora)
    heads = None if encoders is None else encoders.auxiliary.to(accelerator.device)
    sharded = recipe.shard and accelerator.num_processes > 1
    if sharded:
        if encoders is not None:
            raise ConfigError("shard: true trains the decoder alone: leave the encoders frozen")
        shard(objective, model, accelerator.device)
    optimizers = make_optimizers(model, recipe.optimizer, heads)
    mean = WeightMean(model, recipe.schedule.first_averaged)

    # Resume.
    checkpoints, step = recipe.output / CHECKPOINTS, 0
    position: Sequence[int] = rows.start
    last_good = resume.newest(checkpoints)
    if last_good is not None:
        progress = resume.restore(last_good, model, optimizers, recipe.to_json())
        step, position = progress["step"], progress["position"]
        mean.restore(progress["mean"])
        if heads is not None:
            heads.load_state_dict(progress["heads"])
        if progress["texts"] != rows.digest:
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
    with _journal(recipe, accelerator, step, say) as journal, ThreadPoolExecutor(1) as reader:
        if held_out is not None and step == 0 and recipe.model.start is not None:
            found = evaluate(objective, encoders, schedule.rungs, held_out, recipe)
            journal.write({"step": 0, "held_out": found})
        upcoming = reader.submit(prepare, rows, step, position, recipe, accelerator)
        while step < recipe.schedule.steps:
            clock.start()
            passes = schedule.passes(step) if o.decoder else ()
            taken = upcoming.result()
            # While this step is computed, the pictures and sounds of the next are read.
            upcoming = reader.submit(prepare, rows, step + 1, taken.after, recipe, accelerator)
            if sharded:
                clip_coefficients(model)
            values = accumulate(objective, encoders, passes, taken, accelerator, teacher)
            norm = _gradient_norm(objective, heads, recipe.optimizer.clip)
            _check(values, norm, step, described(taken.places), last_good)
            scale = recipe.schedule.scale(step)
            set_rate(optimizers, scale)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step, position = step + 1, taken.after
            mean.update(step)
            seconds = clock.stop()
            losses |= values["losses"]
            work = operations(config, passes, taken.num_tokens, sequence, objective.shares)
            journal.write(
                {
                    "step": step,
                    "steps": recipe.schedule.steps,
                    **values,
                    "rate": recipe.optimizer.rate * scale,
                    "gradient_norm": norm,
                    "tokens_per_second": taken.num_tokens / seconds,
                    "peak_share": work / seconds / peak,
                    "seconds_left": clock.left(recipe.schedule.steps - step),
                }
            )
            ended = step == recipe.schedule.steps
            if held_out is not None and (ended or step % recipe.evaluate_every == 0):
                with mean.in_place():
                    found = evaluate(objective, encoders, schedule.rungs, held_out, recipe)
                journal.write({"step": step, "held_out": found})
            if ended or step % recipe.save_every == 0:
                state = {
                    "step": step,
                    "position": list(position),
                    "texts": rows.digest,
                    "recipe": recipe.to_json(),
                    "heads": {} if heads is None else heads.state_dict(),
                    "mean": mean.state(),
                }
                last_good = resume.save(
                    checkpoints, model, optimizers, state, recipe.keep,
                    write=accelerator.is_main_process,
                )  # fmt: skip

    # Export.
    exported: list[Exported] = []
    mean.use()
    if sharded:
        model = assembled(model)
    if accelerator.is_main_process:
        plot(recipe.output)
        _compare(recipe.output, found, schedule.widest, say)
        if recipe.adapter is not None:
            adapters.save(model, recipe.output / ADAPTER, str(recipe.model.start))
            adapters.merge(model)
    if accelerator.is_main_process and (recipe.adapter is None or recipe.adapter.merge):
        exported = export(
            model,
            schedule.rungs,
            recipe.output,
            probes_of(corpora if held_out is None else [held_out, *corpora], recipe),
            start=recipe.model.start,
            document=start.document,
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


def _compare(output: Path, after: rungs.Measured, widest: str, say: Callable[[str], None]) -> None:
    """Says what training did to every rung, if they were measured before it."""
    before = next((r["held_out"] for r in read(output) if r["step"] == 0), None)
    if before is None:
        return
    found = rungs.changes(before, after)
    for line in rungs.table(found):
        say(line)
    for warning in rungs.warnings(found, widest):
        say(f"warning: {warning}")


def _gradient_norm(
    objective: torch.nn.Module, heads: torch.nn.Module | None, clip: float | None
) -> float:
    """The length of all gradients together, which are shortened to `clip`."""
    limit = math.inf if clip is None else clip
    weights = [*objective.parameters(), *(() if heads is None else heads.parameters())]
    return float(whole(torch.nn.utils.clip_grad_norm_(weights, limit)))


def _check(
    values: Mapping[str, Mapping[str, float]],
    norm: float,
    step: int,
    shown: str,
    last_good: Path | None,
) -> None:
    """Raises TrainingError before a step would spoil the weights."""
    bad = [name for name, value in values["losses"].items() if not math.isfinite(value)]
    if not bad and math.isfinite(norm):
        return
    what = f"the loss of {', '.join(bad)}" if bad else "the gradient"
    where = "none was saved yet" if last_good is None else f"the last good one is {last_good}"
    raise TrainingError(
        f"{what} is not a number at step {step + 1}, rows {shown}; no weight was changed, "
        f"checkpoint: {where}; lower the rates or look at these rows, then run the same command"
    )


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
