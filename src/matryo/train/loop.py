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
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, InitProcessGroupKwargs  # type: ignore[import-untyped]
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

from matryo import kernels
from matryo.checkpoint.atomic import alone, replace_text
from matryo.checkpoint.writing import room
from matryo.errors import ConfigError, TrainingError
from matryo.inputs.tokenizer import Tokenizer
from matryo.train import adapters, resume, rungs
from matryo.train.average import WeightMean
from matryo.train.data import Corpus
from matryo.train.export import Exported, export
from matryo.train.journal import CONTINUE, Journal, plot, read
from matryo.train.memory import keep_freed
from matryo.train.meter import Clock, Peak, measured_peak, operations
from matryo.train.mixture import Mixture
from matryo.train.nested import nest
from matryo.train.objective import LossWeights, NestedObjective
from matryo.train.optimizer import make_optimizers, set_rate
from matryo.train.recipe import Recipe, ScheduleRecipe
from matryo.train.shard import are_finite, assembled, clip_coefficients, shard, whole
from matryo.train.sources import make_encoders, make_teacher, open_data, probes_of
from matryo.train.start import make_model, make_schedule, prepare_towers
from matryo.train.step import accumulate, described, evaluate, prepare

CHECKPOINTS, ADAPTER = "checkpoints", "adapter"
# The first process prepares texts, writes checkpoints and exports while the others wait for it;
# launchers end all of them if one dies.
PATIENCE = timedelta(hours=12)
_DRAWN = 3  # apart from other draws of the same seed and step


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
    try:
        recipe.output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError(
            f"output: {error.filename} is or is in a file; expected a directory, or a new name"
        ) from error
    # An earlier run of this process may have had another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    # Without an accelerator it must be told, or it takes the processes of a launcher for one each.
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision="bf16" if recipe.precision == "bf16" else "no",
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if not accelerator.is_main_process:
        return _run(recipe, accelerator, _silent)
    with alone(recipe.output, wait=False), room(recipe.output, CONTINUE):
        try:
            return _run(recipe, accelerator, say)
        except KeyboardInterrupt:
            say(_stopped(resume.newest(recipe.output / CHECKPOINTS)))
            raise


def _stopped(saved: Path | None) -> str:
    """What to do after Ctrl-C."""
    if saved is None:
        return "stopped before a checkpoint was saved: run the same command to begin again"
    return f"stopped; {saved} is saved: run the same command to continue from it"


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
    checkpoints, step = recipe.output / CHECKPOINTS, 0
    last_good = resume.newest(checkpoints)
    if last_good is not None:  # before anything of that run is changed
        resume.check_recipe(last_good, recipe.to_json())

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
    measured = _measured(held_out, recipe)
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
    position: Sequence[int] = rows.start
    past: list[dict[str, Any]] = []
    if last_good is not None:
        progress = resume.restore(last_good, model, optimizers, recipe.to_json())
        step, position = progress["step"], progress["position"]
        mean.restore(progress["mean"])
        _check_mean(mean, step, recipe.schedule, say)
        past = [record for record in read(recipe.output) if record["step"] <= step]
        if mean.count != progress["mean"]["count"]:  # other weights are measured now
            past = [one for one in past if "losses" in one or one["step"] < step]
        if heads is not None:
            heads.load_state_dict(progress["heads"])
        if progress["texts"] != rows.digest:
            raise ConfigError(
                f"the texts or media have changed since step {step}, so that the run would be "
                "another: put them back, or choose another output"
            )
        say(f"continuing after step {step}")
    elif accelerator.is_main_process:
        replace_text(recipe.output / "recipe.json", json.dumps(recipe.to_json(), indent=1) + "\n")

    # Steps.
    dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
    peak = Peak(measured_peak(accelerator.device, dtype) * accelerator.num_processes)
    say(f"{peak.speed / 1e9:,.0f} GFLOP/s at most ({torch.get_num_threads()} threads, {dtype})")
    clock, losses = Clock(), dict[str, float]()
    for record in past:
        losses |= record.get("losses", {})
    last = next((r for r in reversed(past) if measured and r.get("texts") == measured), None)
    known, found = (-1, {}) if last is None else (last["step"], last["held_out"])
    accelerator.wait_for_everyone()  # all have read the journal, which is written from here on
    begin = step if last_good is not None else -1
    with _journal(recipe, accelerator, begin, say) as journal, ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(prepare, rows, step, position, recipe, accelerator)
        while True:
            if held_out is not None and known < step and _measures(recipe, step):
                with mean.in_place():
                    found = evaluate(objective, encoders, schedule.rungs, held_out, recipe)
                _check_held_out(found, step, last_good)
                journal.write({"step": step, "held_out": found, "texts": measured})
            if step >= recipe.schedule.steps:
                break
            clock.start()
            passes = schedule.passes(step) if o.decoder else ()
            taken = upcoming.result()
            # While this step is computed, the pictures and sounds of the next are read.
            upcoming = reader.submit(prepare, rows, step + 1, taken.after, recipe, accelerator)
            if sharded:
                clip_coefficients(model)
            torch.manual_seed(_drawn(recipe.seed, step, accelerator.process_index))
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
                    "peak_share": peak.share(work / seconds),
                    "seconds_left": clock.left(recipe.schedule.steps - step),
                }
            )
            if step == recipe.schedule.steps or step % recipe.save_every == 0:
                _check_state(optimizers, step, last_good)
                state = {
                    "step": step,
                    "position": list(position),
                    "texts": rows.digest,
                    "recipe": recipe.to_json(),
                    "heads": {} if heads is None else heads.state_dict(),
                    "mean": mean.state(write=accelerator.is_main_process),
                }
                last_good = resume.save(
                    checkpoints, model, optimizers, state, recipe.keep,
                    write=accelerator.is_main_process,
                )  # fmt: skip

    # Export.
    exported: list[Exported] = []
    mean.use()
    if sharded:
        model = assembled(model, keep=accelerator.is_main_process)
    if accelerator.is_main_process:
        plot(recipe.output)
        if measured is not None:
            _compare(recipe.output, found, measured, schedule.widest, say)
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


def _measured(held_out: Corpus | None, recipe: Recipe) -> str | None:
    """What is measured, to compare like with like; None if nothing is.

    Raises ConfigError if it does not fill a row, which a run would else find out long after.
    """
    if held_out is None:
        return None
    count = held_out.num_rows(recipe.data.sequence)
    if not count:
        raise ConfigError(
            f"data.held_out has {len(held_out.tokens)} tokens; one row needs "
            f"{recipe.data.sequence + 1}: add text or lower data.sequence"
        )
    return f"{min(count, recipe.data.held_out_rows)} rows of {held_out.digest}"


def _measures(recipe: Recipe, step: int) -> bool:
    """Whether held-out texts are measured after `step` steps."""
    if step == 0:
        return recipe.model.start is not None
    return step >= recipe.schedule.steps or step % recipe.evaluate_every == 0


def _compare(
    output: Path,
    after: rungs.Measured,
    measured: str,
    widest: str,
    say: Callable[[str], None],
) -> None:
    """Says what training did to every rung, if they were measured before it on the same texts."""
    before = next((record for record in read(output) if record["step"] == 0), None)
    if before is None:
        return
    if before.get("texts") != measured:
        say("before and after are not compared: data.held_out has changed since step 0")
        return
    found = rungs.changes(before["held_out"], after)
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


def _drawn(seed: int, step: int, process: int) -> int:
    """The seed of what a process draws in a step, dropout above all: the same in a run that was
    stopped before it, another in every process.
    """
    return int(np.random.SeedSequence([seed, step, _DRAWN, process]).generate_state(1, "u8")[0])


def _check_mean(
    mean: WeightMean, step: int, schedule: ScheduleRecipe, say: Callable[[str], None]
) -> None:
    """Says which steps the mean lacks; raises ConfigError if it lacks all, and none will follow."""
    missed = mean.missed(step)
    if not missed:
        return
    what = (
        f"schedule.average asks for the mean from step {schedule.first_averaged} on, and "
        f"{missed} steps were taken without it"
    )
    if step >= schedule.steps and not mean.count:
        raise ConfigError(f"{what}, the last one too: set it to 0, or raise schedule.steps")
    say(f"{what}: it is over the others")


def _check(
    values: Mapping[str, Mapping[str, float]],
    norm: float,
    step: int,
    shown: str,
    last_good: Path | None,
) -> None:
    """Raises TrainingError before a step would spoil the weights."""
    bad = _not_numbers(values.values())
    if bad or not math.isfinite(norm):
        what = f"the loss of {bad}" if bad else "the gradient"
        what += f" is not a number at step {step + 1}, rows {shown}; no weight was changed"
        raise TrainingError(f"{what}; {_help(last_good)}")


def _check_held_out(found: rungs.Measured, step: int, last_good: Path | None) -> None:
    """Raises TrainingError if a held-out loss is no number."""
    bad = _not_numbers([{name: sum(values.values())} for name, values in found.items()])
    if bad:
        what = f"the held-out loss of {bad} is not a number after step {step}"
        raise TrainingError(f"{what}; {_help(last_good)}")


def _check_state(
    optimizers: Sequence[torch.optim.Optimizer], step: int, last_good: Path | None
) -> None:
    """Raises TrainingError before a checkpoint is saved that no step could follow."""
    tensors: list[torch.Tensor] = []
    for optimizer in optimizers:
        tensors += [weight for group in optimizer.param_groups for weight in group["params"]]
        for state in optimizer.state.values():
            tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    if not are_finite(tensors):
        what = f"a weight, or what its optimiser keeps of it, is not a number after step {step}"
        raise TrainingError(f"{what}, which is not saved; {_help(last_good)}")


def _not_numbers(values: Iterable[Mapping[str, float]]) -> str:
    """The names of those that are none."""
    bad = [name for found in values for name, value in found.items() if not math.isfinite(value)]
    return ", ".join(dict.fromkeys(bad))


def _help(last_good: Path | None) -> str:
    """What to do where a number is none: what is named may change between the parts of a run."""
    rates = "lower optimizer.rate, embedding_rate and vector_rate, or optimizer.clip"
    if last_good is None:
        return f"checkpoint: none was saved yet; {rates}, and run the same command to begin again"
    return (
        f"checkpoint: the last good one is {last_good}; {rates}, and run the same command to "
        "continue from it; if that stops, too, delete it to continue from the one before"
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
