"""What nesting costs: sizes trained together beside a size trained alone, and depth beside width.

In: CACHE with the rows and the tokenizer. Out: three decoders in OUTPUT, and a JSON document with
what each predicts of held-out texts, in bits a byte, and how they differ, with 95 % intervals.

    python -m scripts.nano.nesting CACHE OUTPUT docs/results/nano-nesting.json [--steps 600]

    width   the sizes of matryo-nano, one drawn a step with its chances; a tenth of the steps draw
            a random mix, of its own training a fifth
    alone   its `small`, on the same rows in the same order, and nothing else
    depth   the largest and its first five layers, about as large as `small`; both in one pass
            (`nesting: shared`), on the same rows for as many steps as cost what `width` costs

All start from the same random weights. A run that was stopped continues; one that is done is kept,
and refused if it was of another recipe.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.nano.evaluate import SEED, effective
from scripts.nano.shape import WIDTHS, config, plans
from scripts.nano.stages import RUNGS, TEXTS
from scripts.nano.tasks import BITS, REFERENCE_BITS, TASKS, Asked, Json, read

import matryo
from matryo.checkpoint.atomic import replace_text
from matryo.config import TextConfig
from matryo.evaluate.evaluator import Evaluator, Settings
from matryo.evaluate.intervals import F64, Bootstrap, Interval
from matryo.evaluate.metrics import Metric
from matryo.evaluate.store import Store
from matryo.loading.model import Model
from matryo.train import importable
from matryo.train.meter import operations
from matryo.train.recipe import Recipe

INNER, DEEP = "small", "five"
SEQUENCE = 256
BATCH = 16
COMMON = ("schedule", "rows", "accumulate", "objective", "optimizer")
"""Of a recipe: what makes a finished run another one"""
OBJECTIVES: Mapping[str, Json] = {
    "width": {"mode": "sample", "rungs": RUNGS, "mixes": 0.1},
    "alone": {"mode": "sample", "rungs": {INNER: 1.0}},
    "depth": {"mode": "sum", "nesting": "shared", "rungs": {DEEP: 0.5, "large": 0.5}},
}
COMPARED = (("width", INNER), ("alone", INNER), ("depth", DEEP), ("width", "large"),
            ("depth", "large"))  # fmt: skip
DIFFERENCES = (
    (("width", INNER), ("alone", INNER)), (("depth", DEEP), ("width", INNER)),
    (("depth", "large"), ("width", "large")),
)  # fmt: skip
"""Of `COMPARED`: by how many percent the first needs more bits than the second."""


def recipe(cache: Path, output: Path, name: str, steps: int, rows: int) -> Json:
    """One run, as JSON. rows: of a step, in batches of 16; exits if they do not fill them"""
    batch = min(rows, BATCH)
    if rows < 1 or rows % batch:
        raise SystemExit(f"error: --rows is {rows}; expected up to {BATCH}, or a multiple of it")
    text = config()["text_config"]
    return {
        "output": str(output / name),
        "model": {
            "config": text,
            "plans": {**plans(), DEEP: {"layers": list(range(5)), "ffn_width": WIDTHS["large"]}},
            "tokenizer": str(cache / "tokenizer"),
        },
        "data": {
            "mix": [
                {"files": [str(cache / "train" / f"{one}.jsonl")], "weight": weight}
                for one, weight in TEXTS.items()
            ],
            "sequence": SEQUENCE,
            "bad_rows": "skip",
            "cache": str(cache / "rows"),
        },
        "objective": OBJECTIVES[name],
        "optimizer": {
            "name": "muon", "rate": 0.02, "embedding_rate": 0.004, "vector_rate": 0.002,
        },
        "schedule": {"steps": steps, "warmup": min(40, steps // 4), "decay": 0.4},
        "export": {"dtype": "bf16", "packed": []},
        "rows": batch,
        "accumulate": rows // batch,
        "save_every": 50,
    }  # fmt: skip


def written(given: Json) -> Path:
    """The recipe as a file beside its output."""
    output = Path(given["output"])
    path = output.parent / f"{output.name}.json"
    replace_text(path, json.dumps(given, indent=1) + "\n")
    return path


def cost(given: Json) -> float:
    """Floating-point operations a token of all steps together."""
    importable.install()
    from matryo.train.start import make_schedule

    shape = TextConfig.from_json({"model_type": "gemma3n_text", **config()["text_config"]})
    made = Recipe.from_file(written(given))
    schedule, shares = make_schedule(made, shape), made.objective.nesting == "shared"
    return sum(
        operations(shape, schedule.passes(step), 1, SEQUENCE, shares)
        for step in range(made.schedule.steps)
    )


def train(given: Json, processes: int) -> Path:
    """Runs it, or what is left of it; returns the checkpoint. Exits if there is a finished one of
    another recipe.
    """
    place = Path(given["output"]) / "hf"
    if place.is_dir():
        before = json.loads((place.parent / "recipe.json").read_text("utf-8"))
        now = Recipe.from_file(written(given)).to_json()
        for key in COMMON:
            if before[key] != now[key]:
                raise SystemExit(
                    f"error: {place.parent} holds a finished run of another recipe: {key} was "
                    f"{before[key]}, is {now[key]}; delete it, or choose another OUTPUT"
                )
        return place
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes)]
    command += ["-m", "matryo", "train", str(written(given))]
    if processes > 1:
        command += ["--set", "threads=1"]
    subprocess.run(command, check=True)
    return place


def compared(asked: Asked, cache: Path, models: Mapping[str, Model], store: Store) -> Json:
    """One held-out file: what each predicts, and the differences."""
    questions = read(asked, cache)
    columns: dict[tuple[str, str], F64] = {}
    metric: Metric = BITS if asked.metrics[0] is BITS else REFERENCE_BITS
    for name, size in among(models, COMPARED):
        settings = Settings(limit=asked.limit, seed=SEED, likelihood=True)
        evaluator = Evaluator(models[name], settings, store=store)
        items, left_out = evaluator.items([question.row for question in questions])
        if left_out:
            raise SystemExit(f"error: {asked.name}: {left_out[0]}")
        found = evaluator.results(models[name].plan(size), items)
        columns[name, size] = metric.columns(items, [found[item.key] for item in items])
    bootstrap = Bootstrap(len(items), SEED)
    return {
        "items": len(items),
        "bits": [bootstrap.interval(one, metric.value).to_json() for one in columns.values()],
        "percent": [
            more_bits(bootstrap, metric, columns[ours], columns[theirs]).to_json()
            for ours, theirs in differences(models)
        ],
    }


def among(models: Iterable[str], pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those of the runs that were made."""
    there = set(models)
    return [pair for pair in pairs if pair[0] in there]


def differences(models: Iterable[str]) -> list[tuple[tuple[str, str], ...]]:
    """Those of which both runs were made."""
    there = set(models)
    return [pairs for pairs in DIFFERENCES if all(name in there for name, _ in pairs)]


def more_bits(bootstrap: Bootstrap, metric: Metric, ours: F64, theirs: F64) -> Interval:
    """How many percent more bits we need, over the same resampled rows."""

    def value(sums: Sequence[F64]) -> F64:
        own, other = (metric.value(one) for one in sums)
        percent: F64 = 100.0 * (own / other - 1.0)
        return percent

    return bootstrap.combined([ours, theirs], value)


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("document", type=Path)
    parser.add_argument("--steps", type=int, default=600, help="of `width` and `alone`")
    parser.add_argument("--rows", type=int, default=64, help="of a step")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--runs", nargs="+", choices=list(OBJECTIVES), default=list(OBJECTIVES))
    arguments = parser.parse_args()
    cache, output = arguments.cache.resolve(), arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    width = recipe(cache, output, "width", arguments.steps, arguments.rows)
    a_step = cost(recipe(cache, output, "depth", 1, arguments.rows))
    depth = round(cost(width) / a_step)
    runs = {
        "width": width,
        "alone": recipe(cache, output, "alone", arguments.steps, arguments.rows),
        "depth": recipe(cache, output, "depth", depth, arguments.rows),
    }
    runs = {name: given for name, given in runs.items() if name in arguments.runs}
    places = {name: train(given, arguments.processes) for name, given in runs.items()}
    models = {name: matryo.load(place) for name, place in places.items()}
    with Store(cache / "evaluation.sqlite") as store:
        tasks = {
            asked.name: compared(asked, cache, models, store)
            for asked in TASKS
            if asked.name in TEXTS
        }
    document: dict[str, Any] = {
        "format": "matryo-nano-nesting",
        "version": 1,
        "rows_a_step": arguments.rows,
        "runs": {
            name: {
                "steps": given["schedule"]["steps"],
                "operations_a_token": cost(given),
                "effective_parameters": effective(
                    models[name],
                    {size: models[name].plan(size) for run, size in COMPARED if run == name},
                ),
            }
            for name, given in runs.items()
        },
        "compared": [f"{size} of {name}" for name, size in among(runs, COMPARED)],
        "differences": [" beside ".join(f"{size} of {name}" for name, size in pairs)
                        for pairs in differences(runs)],
        "tasks": tasks,
    }  # fmt: skip
    text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
    replace_text(arguments.document, text + "\n")


if __name__ == "__main__":
    main()
