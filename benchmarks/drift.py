"""What a change of size leaves behind: drift against the place of the switch.

    python -m benchmarks.drift [MODEL] [--text HELD-OUT] [--places 16 48 96 192] --out drift.json

One plan reads a passage up to a place, another goes on in its cache. What the second then says of
the next tokens is compared with what it says after it has read all of the passage itself: the
divergence (KL, nats), how often the likeliest token is the same, and on text the loss of both.
exact: the writer is of the reader's exact family · approximate: the smaller sizes, and the largest
before the smallest · reanchor: the reader computes the cache again first, and the price is kept.
Without a text the ids are random, as for random weights. Out: JSON, kept pair by pair.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import matryo
from benchmarks.escalation import pair
from benchmarks.kept import Kept
from benchmarks.passages import read_passages
from matryo.elastic.calibrate import losses
from matryo.loading import Model
from matryo.plan import Plan

F32 = npt.NDArray[np.float32]
PLACES = (16, 32, 64, 96, 128, 192)


def divergence(reference: F32, other: F32) -> npt.NDArray[np.float64]:
    """KL (N,) in nats of other logits (N, V) from reference logits (N, V)."""
    out = np.empty(len(reference))
    for number, rows in enumerate(zip(reference, other, strict=True)):
        p, q = (row.astype(np.float64) - row.max() for row in rows)
        p -= np.log(np.exp(p).sum())
        q -= np.log(np.exp(q).sum())
        out[number] = max(float(np.dot(np.exp(p), p - q)), 0.0)
    return out


def compared(reference: F32, other: F32, targets: Sequence[int] | None) -> dict[str, float]:
    """Means over the tokens behind a switch."""
    found = {
        "kl": float(divergence(reference, other).mean()),
        "agree": float((reference.argmax(axis=1) == other.argmax(axis=1)).mean()),
        "same_bits": float((reference == other).all(axis=1).mean()),
    }
    if targets is not None:
        found["loss"] = float(losses(other, np.array(targets)).mean())
        found["loss_alone"] = float(losses(reference, np.array(targets)).mean())
    return found


def behind(
    model: Model, ids: Sequence[int], writer: Plan, reader: Plan, places: Sequence[int], count: int
) -> list[F32]:
    """The reader's logits (count, V) behind each place up to which the writer has read."""
    engine = model.engine
    sequence, found = engine.new_sequence(writer, model.kv_kind), []
    for place in places:
        engine.prefill(sequence, writer, ids[len(sequence) : place], logits="none")
        found.append(engine.extend(sequence.fork(), reader, ids[place : place + count]))
    return found


def measure(
    model: Model,
    passages: list[list[int]],
    writer: Plan,
    reader: Plan,
    places: Sequence[int],
    count: int,
    has_text: bool,
) -> dict[str, Any]:
    """One writer before one reader: a list of passages' figures for every place."""
    rows: dict[str, list[dict[str, float]]] = {str(place): [] for place in places}
    for ids in passages:
        alone = behind(model, ids, reader, reader, places, count)
        mixed = behind(model, ids, writer, reader, places, count)
        for place, reference, other in zip(places, alone, mixed, strict=True):
            targets = ids[place + 1 : place + count + 1] if has_text else None
            rows[str(place)].append(compared(reference, other, targets))
    return {"writer": writer.describe(), "reader": reader.describe(), "places": rows}


def reanchored(
    model: Model, passages: list[list[int]], writer: Plan, reader: Plan, places: Sequence[int],
    count: int,
) -> dict[str, Any]:  # fmt: skip
    """The cache is dropped at each place and computed again: what is left, and what it costs."""
    engine, rows = model.engine, dict[str, list[dict[str, float]]]()
    for ids in passages:
        alone = behind(model, ids, reader, reader, places, count)
        for place, reference in zip(places, alone, strict=True):
            sequence = engine.new_sequence(writer, model.kv_kind)
            engine.prefill(sequence, writer, ids[:place], logits="none")
            sequence.trim(sequence.exact_until(reader))
            started = time.perf_counter()
            engine.prefill(sequence, reader, ids[len(sequence) : place], logits="none")
            seconds = time.perf_counter() - started
            started = time.perf_counter()
            first = engine.decode([sequence], [reader], ids[place : place + 1])
            token = time.perf_counter() - started
            others = engine.extend(sequence, reader, ids[place + 1 : place + count])
            found = compared(reference, np.concatenate([first, others]), None)
            rows.setdefault(str(place), []).append(
                {**found, "again_ms": 1e3 * seconds, "token_ms": 1e3 * token}
            )
    return {"writer": writer.describe(), "reader": reader.describe(), "places": rows}


def main() -> None:
    """Measure what is not kept yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--text", type=Path)
    parser.add_argument("--places", type=int, nargs="+", default=list(PLACES))
    parser.add_argument("--count", type=int, default=32, help="tokens behind a switch")
    parser.add_argument("--passages", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    places, count = sorted(options.places), options.count
    with matryo.load(options.model, threads=options.threads) as model:
        length = places[-1] + count + 1
        passages, text = read_passages(model, options.text, length, options.passages)
        kept = Kept(
            options.out,
            {
                "model": {"name": model.name, **model.identity},
                "kv": model.kv_kind,
                "text": {**text, "passages": len(passages)},
                "places": places,
                "count": count,
            },
        )
        large = model.default_plan
        name, small = pair(model, "approximate")
        top = next(name for name, plan in model.plans.items() if plan == large)
        between = {
            plan: other
            for other, plan in reversed(list(model.plans.items()))
            if plan not in (large, small) and plan.owners == large.owners and large.contains(plan)
        }
        _, exact = pair(model, "exact")
        pairs = [
            (f"exact: {name} above, then {top}", exact, large),
            (f"approximate: {name}, then {top}", small, large),
            *(
                (f"approximate: {other}, then {top}", plan, large)
                for plan, other in between.items()
            ),
            (f"approximate: {top}, then {name}", large, small),
        ]
        for key, writer, reader in pairs:
            has_text = options.text is not None
            kept.part(key, measure, model, passages, writer, reader, places, count, has_text)
        key = f"reanchor: {name}, then {top}"
        kept.part(key, reanchored, model, passages[:5], small, large, places, count)


if __name__ == "__main__":
    main()
