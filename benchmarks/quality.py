"""How much worse is a quantised model? KL, likeliest token and perplexity against float32.

In: a trained checkpoint with held-out text (`scripts/nano` makes both), and random layers of full
width. Out: rows for what is shipped (bf16, q8, q4: rounded weights and rounded activations) and for
the choices behind it (weights alone): how the 4-bit scale is found, which tensors get more bits.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import record, rounded_checkpoint
from .case import Options
from .checkpoints import write_checkpoints
from .quality_report import ERRORS
from .rounded_checkpoint import LARGE, NARROW, Rounding
from .rounding import ROUNDINGS, packed, relative_error
from .runner import say
from .synthetic import vocabulary
from .synthetic.shapes import Dimensions

F32 = npt.NDArray[np.float32]
SHIPPED = ("bf16", "q8", "q4")
WINDOW = 256
"""Tokens of one window; every window starts from an empty cache."""
FULL_WIDTH = Dimensions(
    layers=6, owners=5, sparse_layers=2, ffn=8192, vocabulary=16640, per_layer_vocabulary=16384,
    context=4096,
)  # fmt: skip
"""Six layers as wide as E2B's, with a vocabulary that keeps the head from hiding them."""


@dataclass(frozen=True)
class Figures:
    """kl: mean divergence from float32 in nats · top1: same likeliest token · perplexity: of the
    text (0 = there is none to predict).
    """

    variant: str
    kl: float
    top1: float
    perplexity: float


def four(name: str) -> Rounding:
    return ROUNDINGS[name]


SEARCH, EIGHT = ROUNDINGS["search"], packed("q8")


def with_eight(*families: str) -> dict[str, Rounding]:
    """Everything in 4 bits but these families."""
    return {one: EIGHT if one in families else SEARCH for one in (*LARGE, *NARROW)}


def choices() -> dict[str, dict[str, Rounding]]:
    """Name -> rounding of each family; float32 for families that are not named."""
    found: dict[str, dict[str, Rounding]] = {
        f"large tensors in 4 bits, {name}": dict.fromkeys(LARGE, four(name))
        for name in ("absmax / 7", "extreme / -8 (as Q4_0)", "search")
    }
    found["all tensors in 4 bits, search"] = with_eight()
    found["narrow ones in 8 bits (q4)"] = with_eight(*NARROW)
    for label, families in (
        ("narrow and head", ("embed",)),
        ("narrow and PLE table", ("ple",)),
        ("narrow and attention", ("q", "k", "v", "o")),
        ("narrow and down", ("down",)),
    ):
        found[f"{label} in 8 bits"] = with_eight(*NARROW, *families)
    return found


def log_softmax(logits: F32) -> npt.NDArray[np.float64]:
    values = logits.astype(np.float64)
    values -= values.max(-1, keepdims=True)
    values -= np.log(np.exp(values).sum(-1, keepdims=True))
    return values


def without_own(logits: F32, ids: Sequence[int]) -> F32:
    """Logits without each position's own token.

    A random model hardly moves a token away from its embedding, which is also its row of the head:
    it would be all of the probability.
    """
    hidden = logits.copy()
    hidden[np.arange(len(ids)), list(ids)] = -1e4
    return hidden


class Collector:
    """Sums over windows of tokens, for one variant against the reference."""

    def __init__(self) -> None:
        self.kl = self.same = self.nats = 0.0
        self.positions = self.predicted = 0

    def add(self, reference: F32, other: F32, ids: Sequence[int]) -> None:
        """Logits (T, V) of both behind each of the ids."""
        expected, found = log_softmax(reference), log_softmax(other)
        self.kl += float((np.exp(expected) * (expected - found)).sum())
        self.same += float((expected.argmax(1) == found.argmax(1)).sum())
        self.nats -= float(found[np.arange(len(ids) - 1), list(ids[1:])].sum())
        self.positions += len(ids)
        self.predicted += len(ids) - 1

    def figures(self, variant: str, is_text: bool) -> Figures:
        return Figures(
            variant,
            self.kl / self.positions,
            self.same / self.positions,
            math.exp(self.nats / self.predicted) if is_text else 0.0,
        )


def windows_of_text(model: Any, path: Path, characters: int) -> list[list[int]]:
    """Windows of token ids, about `characters` of the held-out texts."""
    used = 0
    found: list[list[int]] = []
    for line in path.read_text("utf-8").splitlines():
        text = json.loads(line)["text"]
        if used >= characters:
            break
        used += len(text)
        ids = model.tokenizer.encode(text, bos=True)
        found += [ids[start : start + WINDOW] for start in range(0, len(ids) - 1, WINDOW)]
    return [window for window in found if len(window) > 1]


def random_windows(vocabulary_size: int) -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [generator.integers(1000, vocabulary_size, WINDOW).tolist() for _ in range(2)]


@contextmanager
def opened(path: Path, weights: str, threads: int) -> Iterator[Any]:
    import matryo

    with matryo.load(path, weights=weights, threads=threads) as model:
        yield model


def compare(
    source: Path,
    windows: Callable[[Any], list[list[int]]],
    plans: Sequence[str],
    options: Options,
    scratch: Path,
    is_text: bool,
    chosen: Mapping[str, Mapping[str, Rounding]],
) -> dict[str, list[Figures]]:
    """plan -> figures of everything shipped and of the `chosen` roundings of the weights alone."""
    found: dict[str, list[Figures]] = {plan: [] for plan in plans}
    reference: dict[str, list[F32]] = {}
    tokens: list[list[int]] = []
    variants: dict[str, tuple[str, Mapping[str, Rounding] | None]] = {"f32": ("f32", None)}
    variants |= {weights: (weights, None) for weights in SHIPPED}
    variants |= {f"weights alone: {name}": ("f32", one) for name, one in chosen.items()}
    for name, (weights, roundings) in variants.items():
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            os.environ["MATRYO_HOME"] = folder  # where `load` packs what is large
            path = source
            if roundings is not None:
                path = Path(folder) / "rounded"
                rounded_checkpoint.write(source, path, roundings)
            with opened(path, weights, options.threads) as model:
                tokens = tokens or windows(model)
                for plan in plans:
                    logits = [model.logits(ids, plan=plan) for ids in tokens]
                    known = reference.setdefault(plan, logits)
                    found[plan].append(collected(name, known, logits, tokens, is_text))
                    say(f"  {plan} {found[plan][-1]}")
    return found


def collected(
    name: str, known: list[F32], logits: list[F32], tokens: list[list[int]], is_text: bool
) -> Figures:
    sums = Collector()
    for expected, other, ids in zip(known, logits, tokens, strict=True):
        if is_text:
            sums.add(expected, other, ids)
        else:
            sums.add(without_own(expected, ids), without_own(other, ids), ids)
    return sums.figures(name, is_text)


def smallest_and_largest(plans: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names from plans.json; of names for one plan the first."""

    def size(name: str) -> int:
        return len(plans[name]["layers"]) * int(np.sum(plans[name]["ffn_width"]))

    ordered = sorted(plans, key=size)
    largest = next(name for name in plans if size(name) == size(ordered[-1]))
    return [ordered[0], largest]


def errors_of_weights(source: Path) -> list[dict[str, object]]:
    """Relative error of each rounding, on a checkpoint's large matrices and on Gaussian ones."""
    tensors = [
        values
        for name, values in rounded_checkpoint.read(source).items()
        if values.ndim == 2 and rounded_checkpoint.family(name) in LARGE
    ]
    width = max(values.shape[1] for values in tensors)
    trained = np.concatenate(
        [np.pad(values, ((0, 0), (0, width - values.shape[1]))) for values in tensors]
    )
    gaussian = np.random.default_rng(0).standard_normal((2048, 2048), dtype=np.float32)
    return [
        {
            "rounding": name,
            "gaussian": relative_error(gaussian, rounding(gaussian)),
            "trained": relative_error(trained, rounding(trained)),
        }
        for name, rounding in ROUNDINGS.items()
    ]


def measure(
    trained: Path | None,
    heldout: Path | None,
    options: Options,
    scratch: Path,
    results: Path = record.RESULTS,
    characters: int = 20_000,
) -> dict[str, object]:
    """Measure, save and return the last document. Without a trained checkpoint: random layers."""

    def keep(
        title: str, found: dict[str, list[Figures]], *more: dict[str, object]
    ) -> dict[str, object]:
        cases = [
            {"title": f"{title}, {plan}", "rows": [asdict(one) for one in figures]}
            for plan, figures in found.items()
        ]
        return record.save("quality", options, {}, [*more, *cases], results)

    if trained is not None and heldout is not None:
        say("trained model")
        errors: dict[str, object] = {"title": ERRORS, "rows": errors_of_weights(trained)}
        plans = smallest_and_largest(json.loads((trained / "plans.json").read_text()))

        def text(model: Any) -> list[list[int]]:
            return windows_of_text(model, heldout, characters)

        found = compare(trained, text, plans, options, scratch, True, choices())
        keep("trained", found, errors)
    say("random layers of full width")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        pieces = vocabulary.made_up(FULL_WIDTH.vocabulary)
        write_checkpoints(Path(folder), ["e4b"], ["hf"], FULL_WIDTH, pieces, seed=0)
        source = Path(folder) / "e4b-hf"

        def ids(model: Any) -> list[list[int]]:
            return random_windows(FULL_WIDTH.per_layer_vocabulary)

        roundings = {name: one for name, one in choices().items() if name.startswith("large")}
        return keep("random", compare(source, ids, ["full"], options, scratch, False, roundings))
