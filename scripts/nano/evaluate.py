"""Measure matryo-nano on everything that was held out, at every size.

In: CACHE with the held-out rows, a packed or Hugging Face directory. Out: a JSON document with
figures, 95 % intervals, what can be had without a model, sample answers and the cost of each size.

    python -m scripts.nano.evaluate CACHE MODEL docs/results/nano.json [--tasks emoji,prose]

A run that was stopped goes on where it was: results of rows are kept in CACHE/evaluation.sqlite,
and the document is written anew after each task. `--tasks` measures some tasks anew and keeps the
others, if they are of the same weights; `device` is where the costs were measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scripts.nano.corpus.finish import count
from scripts.nano.tasks import TASKS, Asked, Json, read, without_a_model

import matryo
from matryo.checkpoint.atomic import replace_text
from matryo.evaluate.evaluator import Evaluator, Settings
from matryo.evaluate.intervals import F64, Bootstrap, Interval
from matryo.evaluate.items import Item
from matryo.evaluate.metrics import Metric
from matryo.evaluate.rows import digest_of
from matryo.evaluate.store import Store
from matryo.loading.model import Model
from matryo.model.parameters import count_parameters
from matryo.plan import Plan
from matryo.search.measure import Meter, device

RUNGS = ("tiny", "small", "medium", "large")
MIXES = ("mixed", "steep")
"""Plans that are no rungs. mixed: the widths of the two middle rungs by turns · steep: the layers
that others read are the widest, those that read the narrowest
"""
SAMPLES = 3
SEED = 0


def sizes(model: Model) -> dict[str, Plan]:
    """The rungs, smallest first, and the mixed plans."""
    found = {name: model.plan(name) for name in RUNGS}
    wide, narrow = found[RUNGS[-1]].ffn_width, found[RUNGS[0]].ffn_width[-1]
    pairs = enumerate(zip(found["small"].ffn_width, found["medium"].ffn_width, strict=True))
    owners = model.config.num_owners
    mixes = ([pair[n % 2] for n, pair in pairs],
             [*wide[:owners], *[narrow] * (len(wide) - owners)])  # fmt: skip
    for name, widths in zip(MIXES, mixes, strict=True):
        found[name] = Plan.from_json({"ffn_width": widths}, model.config)
    return found


def measure(
    asked: Asked, cache: Path, model: Model, plans: Mapping[str, Plan], store: Store
) -> Json:
    """All figures of one task."""
    questions = read(asked, cache)
    settings = Settings(
        limit=asked.limit, seed=SEED, likelihood=asked.likelihood, max_tokens=asked.max_tokens
    )
    evaluator = Evaluator(model, settings, store=store)
    items, left_out = evaluator.items([question.row for question in questions])
    results = {}
    for name, plan in plans.items():
        found = evaluator.results(plan, items)
        failed = [result["error"] for result in found.values() if "error" in result]
        if failed or left_out:
            raise SystemExit(f"error: {asked.name}: {(failed or left_out)[0]}")
        results[name] = [found[item.key] for item in items]
        print(f"{asked.name} {name}: {len(items)} items", file=sys.stderr, flush=True)
    documents = {question.row.digest: question.json for question in questions}
    kept = [documents[item.row.digest] for item in items]
    return {
        "about": asked.about,
        "items": len(items),
        "rows": len(questions),
        "digest": digest_of([item.key for item in items]),
        "metrics": figures(asked, items, results, kept, effective(model, plans)),
        "samples": samples(items, results, kept),
    }


def figures(
    asked: Asked,
    items: Sequence[Item],
    results: Mapping[str, Sequence[Json]],
    documents: Sequence[Json],
    parameters: Mapping[str, int],
) -> Json:
    """For each metric every size, of all items and of each part; and how much better mixed plans
    are than the straight line, over effective parameters, between the rungs beside them.
    """
    blind = without_a_model(asked, items, documents)
    parts: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        parts.setdefault(item.row.part, []).append(index)
    found: Json = {}
    for metric in asked.metrics:
        columns = {size: metric.columns(items, given) for size, given in results.items()}
        places = {"": list(range(len(items))), **dict(sorted(parts.items()))}
        intervals = {
            part: {
                size: Bootstrap(len(chosen), SEED).interval(all_[chosen], metric.value).to_json()
                for size, all_ in columns.items()
            }
            for part, chosen in places.items()
        }
        name, value = blind[metric.name]
        found[metric.name] = {
            "higher_is_better": metric.higher_is_better,
            "unit": metric.unit,
            "without_a_model": {"how": name, "value": value},
            "sizes": intervals.pop(""),
            "above_the_line": {
                mix: above_the_line(metric, columns, parameters, mix).to_json() for mix in MIXES
            },
            "parts": {
                part: {"items": len(places[part]), "sizes": one} for part, one in intervals.items()
            },
        }
    return found


def above_the_line(
    metric: Metric, columns: Mapping[str, F64], parameters: Mapping[str, int], mix: str
) -> Interval:
    """Positive where the mixed plan is better; over the same resamples for all three plans."""
    mixed = parameters[mix]
    below = max((one for one in RUNGS if parameters[one] <= mixed), key=lambda one: parameters[one])
    above = min((one for one in RUNGS if parameters[one] > mixed), key=lambda one: parameters[one])
    share = (mixed - parameters[below]) / (parameters[above] - parameters[below])
    sign = 1.0 if metric.higher_is_better else -1.0

    def value(sums: Sequence[F64]) -> F64:
        own, lower, upper = (metric.value(one) for one in sums)
        better: F64 = sign * (own - (1.0 - share) * lower - share * upper)
        return better

    of_all = [columns[name] for name in (mix, below, above)]
    return Bootstrap(len(of_all[0]), SEED).combined(of_all, value)


def effective(model: Model, plans: Mapping[str, Plan]) -> dict[str, int]:
    """Parameters without the two tables."""
    return {name: count_parameters(model.config, plan).effective for name, plan in plans.items()}


def samples(
    items: Sequence[Item], results: Mapping[str, Sequence[Json]], documents: Sequence[Json]
) -> list[Json]:
    """A few items, chosen by a hash, with what each rung answered; texts alone have none."""
    order = sorted(range(len(items)), key=lambda index: digest_of(SEED, "sample", items[index].key))
    found = []
    for index in order[:SAMPLES]:
        if "messages" not in documents[index] or "text" not in results[RUNGS[0]][index]:
            continue
        *turns, reply = documents[index]["messages"]
        found.append(
            {
                "asks": [next(value for key, value in part.items() if key != "type")
                         for part in turns[-1]["content"]],
                "right": reply["content"][0]["text"],
                "answers": {size: results[size][index]["text"] for size in RUNGS},
            }
        )  # fmt: skip
    return found


def costs(model: Model, directory: Path, plans: Mapping[str, Plan]) -> Json:
    """Parameters, bytes, speed and memory of every size."""
    meter = Meter(model, plans[RUNGS[-1]], model.kv_kind)
    meter.calibrate()
    parameters, found = effective(model, plans), {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plans.json"
        path.write_text(json.dumps({name: plan.to_json() for name, plan in plans.items()}))
        for name, plan in plans.items():
            speed, cost = meter.speed(plan), model.cost(plan)
            found[name] = {
                "plan": plan.to_json(),
                "effective_parameters": parameters[name],
                "parameters": cost.parameters,
                "stored_bytes": cost.stored_bytes,
                "bytes_a_token": cost.bytes,
                "prompt_tokens_per_s": 1e3 / speed.prefill_ms,
                "tokens_per_s": 1e3 / speed.decode_ms,
                "resident_weight_bytes": meter.resident_bytes(plan),
                "process_bytes": _process_bytes(directory, f"{path}:{name}"),
            }
    return found


def _process_bytes(directory: Path, size: str) -> int:
    """Resident bytes of a new process that has answered once at this size."""
    command = [
        sys.executable, "-m", "matryo", "run", "Hello", "-m", str(directory), "--size", size,
        "-n", "8", "--threads", "1", "--temperature", "0", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(done.stdout.splitlines()[-1])["resident_bytes"])


def heading(model: Model, directory: Path, cache: Path) -> Json:
    """What was measured, and what it was trained on."""
    files = sorted(
        path for split in ("train", "heldout") for path in (cache / split).glob("*.jsonl")
    )
    return {
        "format": "matryo-nano-evaluation",
        "version": 1,
        "model": {
            "name": "matryo-nano",
            "weights": model.weights,
            "identity": model.identity["checkpoint"],
            "files": {file.name: file.stat().st_size for file in sorted(directory.iterdir())},
        },
        "settings": {"seed": SEED, "kv": model.kv_kind, "numpy": np.__version__},
        "device": _device(),
        "data": {f"{path.parent.name}/{path.stem}": count(path) for path in files},
    }


def _device() -> Json:
    """What the costs depend on beside the model."""
    return {key: value for key, value in device().items() if key != "host"}


def begun(document: Json, path: Path) -> Json:
    """The document with what an earlier one measured of the same weights, and where its costs were
    measured.
    """
    document = {**document, "sizes": {}, "tasks": {}}
    if path.exists():
        before = json.loads(path.read_text("utf-8"))
        if before["model"]["identity"] == document["model"]["identity"]:
            document |= {key: before[key] for key in ("sizes", "tasks")}
            if before["sizes"]:
                document["device"] = before["device"]
    return document


def main() -> None:
    """Measure what is asked for and write the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--tasks", help="some of them, with commas; `costs` is one too")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    names = ["costs", *(asked.name for asked in TASKS)]
    wanted = arguments.tasks.split(",") if arguments.tasks else names
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"--tasks: {', '.join(unknown)}: there are {', '.join(names)}")
    cache = arguments.cache.resolve()
    with (
        matryo.load(arguments.model, threads=arguments.threads) as model,
        Store(cache / "evaluation.sqlite") as store,
    ):
        document = begun(heading(model, arguments.model, cache), arguments.output)
        plans = sizes(model)
        for name in wanted:
            if name == "costs":
                document |= {"sizes": costs(model, arguments.model, plans), "device": _device()}
            else:
                asked = next(one for one in TASKS if one.name == name)
                document["tasks"][name] = measure(asked, cache, model, plans, store)
            text = json.dumps(document, ensure_ascii=False, indent=1, allow_nan=False)
            replace_text(arguments.output, text + "\n")


if __name__ == "__main__":
    main()
