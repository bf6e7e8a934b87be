"""Many random switches of size in one generation, checked token for token.

    python -m benchmarks.elastic_switches MODEL [--switches 1000] [--seed 0] > results.json

Inside one exact family every plan writes the same K/V. So the logits after a switch have to be, bit
for bit, those of the plan alone on the same tokens. One session changes to a random plan of the
family before every token; afterwards every plan reads all of the tokens by itself and its logits
are compared. Written: how many agreed, what a switch cost, and the memory before and after.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

import matryo
from benchmarks.machine import describe
from matryo.elastic.ladder import Level, levels
from matryo.elastic.load import Sensors
from matryo.engine import CHUNK, CachedSequence, Engine
from matryo.loading import Model

PIECE = 32  # tokens whose logits are held at once


def main() -> None:
    """Run and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--switches", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = run(matryo.load(options.model), options.switches, options.seed)
    json.dump({"machine": describe(), "at": time.strftime("%FT%T"), **report}, sys.stdout, indent=1)
    print()


def run(model: Model, switches: int, seed: int) -> dict[str, Any]:
    """Figures of one generation with so many random switches."""
    family = exact_family(model)
    engine = model.session()._engine
    rng = random.Random(seed)
    ids = [rng.randrange(3, model.config.ple_vocab_size) for _ in range(8)]
    sequence = engine.new_sequence(family[0].plan, "bf16")
    engine.prefill(sequence, family[0].plan, ids[:-1], logits="none")
    for level in family:  # every plan's pages are in memory before anything is measured
        engine.decode([sequence.fork()], [level.plan], ids[-1:])
    before = _private_bytes()
    steps = _generate(engine, sequence, family, ids, switches, rng)
    after = _private_bytes()
    return {
        "model": model.name,
        "weights": model.weights,
        "plans": {level.name: level.plan.describe() for level in family},
        "switches": sum(step["switched"] for step in steps),
        "tokens": len(steps),
        "same_bits": _agreeing(engine, family, ids, steps),
        "switch_ms": _switch_cost(model, family),
        "token_ms": {level.name: _token_times(steps, level.name) for level in family},
        "private_bytes_before": before,
        "private_bytes_after": after,
        "kv_bytes_after": sequence.cache.nbytes,
    }


def exact_family(model: Model) -> list[Level]:
    """Levels of different plans that share one cache, the largest first."""
    ladder = levels(
        model.config,
        model._opened.weights,
        model.plans,
        model.default_plan,
        kv="bf16",
        chunk=CHUNK,
        exact=True,
    )
    return [level for level in ladder if level.kv == "bf16"]


def _generate(
    engine: Engine,
    sequence: CachedSequence,
    family: list[Level],
    ids: list[int],
    switches: int,
    rng: random.Random,
) -> list[dict[str, Any]]:
    """Greedy tokens, each by another plan than the one before; `ids` grows."""
    steps: list[dict[str, Any]] = []
    plan = family[0]
    for _ in range(switches):
        plan = rng.choice([level for level in family if level is not plan])
        started = time.perf_counter()
        logits = engine.decode([sequence], [plan.plan], ids[-1:])[0]
        seconds = time.perf_counter() - started
        steps.append(
            {"plan": plan.name, "switched": True, "seconds": seconds, "digest": _digest(logits)}
        )
        ids.append(
            rng.choice(sorted(np.argpartition(logits, -8)[-8:].tolist()))
        )  # greedy alone would repeat itself
    return steps


def _agreeing(
    engine: Engine, family: list[Level], ids: list[int], steps: list[dict[str, Any]]
) -> int:
    """How many logits are, bit for bit, those of the plan that reads everything alone."""
    first = len(ids) - 1 - len(steps)
    same = 0
    for level in family:
        sequence = engine.new_sequence(level.plan, "bf16")
        if first:
            engine.prefill(sequence, level.plan, ids[:first], logits="none")
        for start in range(0, len(steps), PIECE):
            piece = steps[start : start + PIECE]
            tokens = ids[first + start : first + start + len(piece)]
            logits = engine.prefill(sequence, level.plan, tokens, logits="all")
            assert logits is not None
            same += sum(
                step["plan"] == level.name and step["digest"] == _digest(row)
                for step, row in zip(piece, logits, strict=True)
            )
    return same


def _switch_cost(model: Model, family: list[Level]) -> dict[str, float]:
    """Milliseconds of changing the plan of a session, a thousand times."""
    session = model.session()
    times = []
    for number in range(1000):
        started = time.perf_counter()
        session.plan = family[number % len(family)].plan
        times.append(1e3 * (time.perf_counter() - started))
    return {"median": median(times), "highest": max(times)}


def _token_times(steps: list[dict[str, Any]], name: str) -> dict[str, float]:
    times = [1e3 * step["seconds"] for step in steps if step["plan"] == name]
    return {"median": median(times), "count": len(times)} if times else {"count": 0}


def _digest(row: npt.NDArray[np.float32]) -> str:
    return hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest()


def _private_bytes() -> int:
    return Sensors().read().private_bytes


if __name__ == "__main__":
    main()
