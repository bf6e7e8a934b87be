"""Same work or no number: do the contenders compute the same probabilities?

In: one size, the contenders. Out: for each, against `transformers` with float32 activations on the
same bf16 weights: how often the likeliest token is the same, the mean Kullback-Leibler divergence,
and the largest difference of a log-probability among the reference's 100 likeliest tokens. 64
tokens, the second half compared. With random weights quantisation moves the probabilities much more
than with trained ones: these figures say that the arithmetic is the same, not how good a quantised
model is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from . import record
from .case import Case, Options
from .driver import Refused, Worker
from .runner import say

TOKENS = 64
REFERENCE = "transformers_cpu"
OUR_WEIGHTS = ("bf16", "q8", "q4")


@dataclass(frozen=True)
class Agreement:
    """Distance of one contender from the reference."""

    contender: str
    weights: str
    top1: float
    divergence: float
    largest: float
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def compare(reference: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """(top-1 agreement, mean KL in nats, largest difference) of log-probabilities (positions,
    vocabulary).
    """
    top1 = float((reference.argmax(1) == other.argmax(1)).mean())
    precise = reference.astype(np.float64)
    divergence = float((np.exp(precise) * (precise - other)).sum(1).mean())
    likely = np.argpartition(-reference, min(100, reference.shape[1] - 1), axis=1)[:, :100]
    difference = np.take_along_axis(precise, likely, 1) - np.take_along_axis(other, likely, 1)
    return top1, divergence, float(np.abs(difference).max())


def write_text(directory: Path) -> None:
    """Words for llama.cpp's tokenizer: more than twice the tokens, as llama-perplexity demands."""
    generator = np.random.default_rng(0)
    words = [
        "".join(generator.choice(list("abcdefghijklmnoprstuvw"), generator.integers(2, 9)))
        for _ in range(300)
    ]
    (directory / "text.txt").write_text(" ".join(words))


def random_ids() -> np.ndarray:
    ids = np.random.default_rng(0).integers(1000, 200000, TOKENS).astype(np.int32)
    ids[0] = 2
    return ids


def measure(
    sizes: Sequence[str],
    contenders: Sequence[str],
    options: Options,
    results: Path = record.RESULTS,
    step: str = "",
) -> dict[str, object]:
    """Compare at every size, save and return the document. Raises Refused without a reference."""
    records: list[dict[str, object]] = []
    for size in sizes:
        found = check(size, contenders, options, lambda one: say(f"  {one.to_json()}"))
        records.append({"size": size, "agreement": [one.to_json() for one in found]})
    return record.save("agreement", options, {}, records, results, step)


def check(
    size: str, contenders: Sequence[str], options: Options, progress: Callable[[Agreement], None]
) -> list[Agreement]:
    """Run every contender once, one after another (the reference alone needs 11 GB), and compare.

    Raises Refused if the reference cannot run.
    """
    found: list[Agreement] = []
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        write_text(directory)
        wanted = [(name, "Q4_0") for name in contenders if name == "llama_cpp"]
        reasons: dict[tuple[str, str], str] = {}
        # llama.cpp first: its tokenizer decides the ids of everybody.
        for name, weights in wanted:
            reasons[name, weights] = log_probabilities(name, weights, size, options, directory)
        if not (directory / "ids.npy").exists():
            np.save(directory / "ids.npy", random_ids())
        failed = log_probabilities(REFERENCE, "float32", size, options, directory)
        if failed:
            raise Refused(failed)
        for weights in OUR_WEIGHTS if "ours" in contenders else ():
            reasons["ours", weights] = log_probabilities("ours", weights, size, options, directory)
        reference = np.load(directory / f"{REFERENCE}-float32.npz")["values"]
        for (name, weights), reason in reasons.items():
            figures = (0.0, 0.0, 0.0)
            if not reason:
                figures = compare(reference, np.load(directory / f"{name}-{weights}.npz")["values"])
            found.append(Agreement(name, weights, *figures, reason=reason))
            progress(found[-1])
    return found


def log_probabilities(name: str, weights: str, size: str, options: Options, directory: Path) -> str:
    """Let one contender write its file; the reason if it could not."""
    worker = Worker(name, replace(options, weights=weights) if name == "ours" else options)
    try:
        worker.run(
            Case("logits", size, prompt=TOKENS, note=str(directory / f"{name}-{weights}.npz"))
        )
    except Refused as reason:
        return str(reason)
    finally:
        worker.close()
    return ""
