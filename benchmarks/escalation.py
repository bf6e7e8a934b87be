"""Quality against cost of answers that begin small and escalate, beside fixed plans and chance.

    python -m benchmarks.escalation [MODEL] --text HELD-OUT
    python -m scripts.elastic_pages

A held-out text is read token by token, as a session would write it: the doubt about each token
decides who computes it, in the cache that is there, and what the mode computes again is computed.
Thresholds come from other passages of the text. Beside each run stand the same changes of size at
other places: the decisions of the run, moved along the text by a random distance, so that they
cost as much and know nothing. Fixed plans read every passage alone.
Out: benchmarks/results/elastic/escalation.json; a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

import matryo
from benchmarks.kept import Kept
from benchmarks.passages import read_passages
from matryo.elastic.calibrate import look, losses, table
from matryo.elastic.complexity import MODES, Escalation, Mode, State
from matryo.engine import CachedSequence, Engine
from matryo.loading import Model
from matryo.plan import Plan

RESULT = Path(__file__).parent / "results" / "elastic" / "escalation.json"
PROMPT = 16  # tokens of a passage that are given, read by the size that begins
ROUNDS = 15  # in which times are taken


@dataclass(slots=True)
class Moved(Escalation):
    """Changes size where it is told to. decisions: whether the large size takes each token."""

    decisions: Iterator[bool] = field(default_factory=lambda: iter(()))

    def see(self, logits: npt.NDArray[np.float32]) -> tuple[Plan, str]:
        """The next decision, counted as `Escalation.see` counts."""
        before, large = self._state.large, next(self.decisions)
        self.large_tokens += large or before
        self.small_tokens += not before
        self.again += large and not before
        self._state = State(large=large)
        return self.plan, "told" if large != before else ""


@dataclass(slots=True)
class Walk:
    """One passage: the loss of each token in nats, whether the large size took it, and how many
    tokens that size computed again at each change.
    """

    losses: list[float] = field(default_factory=list)
    taken: list[bool] = field(default_factory=list)
    recomputed: list[int] = field(default_factory=list)
    decide_seconds: list[float] = field(default_factory=list)


def walk(model: Model, ids: Sequence[int], choice: Escalation) -> Walk:
    """Read a passage as a session writes an answer: the text stands in place of what it chooses."""
    engine, out = model.engine, Walk()
    sequence = engine.new_sequence(choice.plan, model.kv_kind)
    logits = last(engine, sequence, choice.plan, ids[:PROMPT])
    for place in range(PROMPT, len(ids)):
        started = time.perf_counter()
        why = choice.follow(logits, sequence, len(ids) - place)
        out.decide_seconds.append(time.perf_counter() - started)
        if why and choice.plan == choice.large:
            sequence.trim(place - 1)
            waiting = ids[len(sequence) : place]
            logits = last(engine, sequence, choice.plan, waiting)
            out.recomputed.append(len(waiting))
        out.taken.append(choice.plan == choice.large)
        out.losses.append(float(losses(logits[None], np.array(ids[place : place + 1]))[0]))
        if place + 1 < len(ids):
            logits = engine.decode([sequence], [choice.plan], ids[place : place + 1])[0]
    return out


def last(
    engine: Engine, sequence: CachedSequence, plan: Plan, ids: Sequence[int]
) -> npt.NDArray[np.float32]:
    """The logits (V,) behind some more ids."""
    logits = engine.prefill(sequence, plan, ids)
    assert logits is not None
    row: npt.NDArray[np.float32] = logits[-1]
    return row


def walk_all(model: Model, passages: Sequence[Sequence[int]], choice: Escalation) -> dict[str, Any]:
    """All passages by one choice, which begins each at the small size."""
    walks = []
    for ids in passages:
        choice._state = State()
        walks.append(walk(model, ids, choice))
    return {
        "tokens": sum(len(one.losses) for one in walks),
        "by_small": choice.small_tokens,
        "by_large": choice.large_tokens - choice.again,
        "recomputed": [count for one in walks for count in one.recomputed],
        "decide_ms": 1e3 * median(value for one in walks for value in one.decide_seconds),
        "losses": [sum(one.losses) for one in walks],
        "taken": ["".join("1" if taken else "0" for taken in one.taken) for one in walks],
    }


def moved(taken: Sequence[str], seed: int) -> list[bool]:
    """The same decisions, moved along the text by at least a quarter of it."""
    joined = [one == "1" for one in "".join(taken)]
    quarter = len(joined) // 4
    distance = random.Random(seed).randrange(quarter, len(joined) - quarter)
    return joined[distance:] + joined[:distance]


def fixed(model: Model, passages: Sequence[Sequence[int]], plan: Plan) -> dict[str, Any]:
    """One plan alone."""
    sums = []
    for ids in passages:
        logits = model.logits(ids[:-1], plan=plan)[PROMPT - 1 :]
        sums.append(float(losses(logits, np.array(ids[PROMPT:])).sum()))
    return {"tokens": sum(len(ids) - PROMPT for ids in passages), "losses": sums}


def token_ms(model: Model, plans: dict[str, Plan]) -> dict[str, float]:
    """Milliseconds of a decoded token of each plan behind 64, in turns with the others."""
    engine, times = model.engine, {name: list[float]() for name in plans}
    for _ in range(ROUNDS):
        for name, plan in plans.items():
            sequence = engine.new_sequence(plan, model.kv_kind)
            engine.prefill(sequence, plan, range(100, 164), logits="none")
            for token in range(100, 116):
                started = time.perf_counter()
                engine.decode([sequence], [plan], [token])
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: median(values) for name, values in times.items()}


def pass_ms(model: Model, plan: Plan, longest: int) -> dict[str, float]:
    """Milliseconds of one pass of a plan over 1, 4, 16, ... ids, up to the longest there may be."""
    engine = model.engine
    lengths = [4**power for power in range(8) if 4**power < longest] + [longest]
    times = {length: list[float]() for length in lengths}
    for _ in range(ROUNDS):
        for length in lengths:
            sequence = engine.new_sequence(plan, model.kv_kind)
            started = time.perf_counter()
            engine.prefill(sequence, plan, range(100, 100 + length))
            times[length].append(1e3 * (time.perf_counter() - started))
    return {str(length): median(values) for length, values in times.items()}


def pair(model: Model, mode: Mode) -> tuple[str, Plan]:
    """The small size of a mode: the smallest of the model; for `exact` the largest with the layers
    above the last owner as in the smallest, which leaves the cache as it is.

    Raises SystemExit if no named size can share a cache with the largest.
    """
    large = model.default_plan
    inside = [
        (name, plan)
        for name, plan in model.plans.items()
        if plan != large and plan.owners == large.owners and large.contains(plan)
    ]
    if not inside:
        raise SystemExit(f"error: {model.name} has no smaller size inside its largest")
    name, small = inside[0]
    if mode != "exact":
        return name, small
    border = large.owners[-1]
    width = {
        layer: width
        for plan, above in ((large, False), (small, True))
        for layer, width in zip(plan.layers, plan.ffn_width, strict=True)
        if (layer >= border) is above
    }
    return f"{name} above", Plan(tuple(width), tuple(width.values()), large.num_owners)


def measure(model: Model, kept: Kept, passages: list[list[int]], seed: int) -> None:
    """Everything, kept part by part. Half of the passages choose thresholds, the others measure."""
    calibration, held_out = passages[::2], passages[1::2]
    large, small = model.default_plan, {mode: pair(model, mode) for mode in MODES}
    names = {plan: name for name, plan in reversed(list(model.plans.items()))}
    plans = {name: plan for plan, name in reversed(list(names.items()))} | dict(small.values())
    of_modes = {mode: name for mode, (name, _) in small.items()}
    longest = max(len(ids) for ids in passages)
    kept.part("plans", described, model, plans, of_modes, longest)
    for name, plan in plans.items():
        kept.part(f"fixed {name}", fixed, model, held_out, plan)
    for mode, (_, plan) in small.items():
        rows = table(look(model, calibration, plan, large, "entropy"), "entropy")
        for number, row in enumerate(rows):
            choice = Escalation(plan, large, mode, row.thresholds)
            run = kept.part(f"doubt {mode} {number}", by_doubt, model, held_out, choice)
            told = Moved(plan, large, mode, decisions=iter(moved(run["taken"], seed)))
            kept.part(f"chance {mode} {number}", walk_all, model, held_out, told)


def by_doubt(model: Model, passages: list[list[int]], choice: Escalation) -> dict[str, Any]:
    """`walk_all` and its thresholds."""
    return {"thresholds": asdict(choice.thresholds), **walk_all(model, passages, choice)}


def described(
    model: Model, plans: dict[str, Plan], small: dict[Mode, str], longest: int
) -> dict[str, Any]:
    """What the plans cost, and which of them each mode uses."""
    return {
        "large": next(name for name, plan in plans.items() if plan == model.default_plan),
        "small": small,
        "description": {name: plan.describe() for name, plan in plans.items()},
        "effective": {name: model.cost(plan).effective_parameters for name, plan in plans.items()},
        "token_ms": token_ms(model, plans),
        "pass_ms": pass_ms(model, model.default_plan, longest),
    }


def main() -> None:
    """Measure what is not kept yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--passages", type=int, default=24, help="half of them choose thresholds")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    with matryo.load(options.model, threads=1) as model:
        passages, text = read_passages(model, options.text, options.length, options.passages)
        settings = {
            "model": {"name": model.name, **model.identity},
            "kv": model.kv_kind,
            "text": {**text, "passages": len(passages), "length": options.length},
            "prompt": PROMPT,
            "seed": options.seed,
        }
        measure(model, Kept(options.out, settings), passages, options.seed)


if __name__ == "__main__":
    main()
