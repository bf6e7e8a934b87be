"""Log-probabilities of continuations, with as little computed twice as possible.

In: an engine, a plan, items (`Scored`). Out: one result an item. A beginning is computed once for
all its continuations, few-shot examples once for all questions behind them, and everything below
the last owner layer once for all plans of an exact family, as long as `keep_bytes` suffices:
another plan of the family then runs its upper layers only. None of this changes a bit of a result.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from matryo.engine import CachedSequence, Engine, Paused
from matryo.errors import InputError
from matryo.kernels.reference_pages import PAGE, page_bytes
from matryo.plan import Plan
from matryo.session.prompt import common_prefix

Result = dict[str, Any]


class Scored(Protocol):
    """What can be scored: `ScoreItem`, for one. Ids; the prefix has at least one."""

    @property
    def key(self) -> str: ...
    @property
    def prefix(self) -> tuple[int, ...]: ...
    @property
    def continuations(self) -> tuple[tuple[int, ...], ...]: ...


T = TypeVar("T", bound=Scored)

BLOCK = 8
"""Items computed together, and kept or dropped together."""
LOGIT_BYTES = 64 << 20
"""Most bytes of logits at a time: with 262,144 ids that is 64 rows."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pass:
    """Tokens that wait, each with the id that follows it and the continuation it belongs to."""

    paused: Paused
    targets: npt.NDArray[np.int64]
    owners: npt.NDArray[np.int64]
    num_bytes: int


@dataclass(slots=True)
class _Waiting:
    """Parts of sequences that will share a pass."""

    sequences: list[CachedSequence]
    parts: list[list[int]]
    targets: list[int]
    owners: list[int]


class Scorer:
    """Scores items with one engine; keeps what other plans of a family can use."""

    def __init__(self, engine: Engine, kv_kind: str, *, keep_bytes: int = 0) -> None:
        self._engine, self._kv_kind, self._keep_bytes = engine, kv_kind, keep_bytes
        self._rows = max(1, min(engine.chunk, LOGIT_BYTES // (4 * engine.model.config.vocab_size)))
        self._kept: OrderedDict[tuple[object, ...], list[_Pass]] = OrderedDict()
        self.kept_bytes = 0
        self._before: tuple[Plan, list[int], CachedSequence] | None = None
        self.computed = self.resumed = 0  # tokens that ran all layers, and the upper ones only

    def score(self, plan: Plan, items: Sequence[T]) -> Iterator[tuple[T, Result]]:
        """Results, item by item: for each continuation `logprob` (nats, of all its tokens),
        `tokens`, and whether each token was the likeliest (`greedy`).

        Raises InputError and CapacityError for what does not fit; the items before it were given.
        """
        for start in range(0, len(items), BLOCK):
            block = items[start : start + BLOCK]
            yield from zip(block, self._score_block(plan, block), strict=True)

    def _score_block(self, plan: Plan, items: Sequence[Scored]) -> list[Result]:
        offsets = np.cumsum([0, *(len(item.continuations) for item in items)])
        logprobs, greedy = np.zeros(offsets[-1]), np.ones(offsets[-1], bool)
        for one in self._passes(plan, items):
            logits = self._engine.resume(one.paused, plan)
            np.add.at(logprobs, one.owners, log_probabilities(logits, one.targets))
            missed = logits.argmax(axis=1) != one.targets
            greedy[one.owners[missed]] = False
        return [
            {
                "logprob": [float(value) for value in logprobs[start:end]],
                "tokens": [len(ids) for ids in item.continuations],
                "greedy": [bool(value) for value in greedy[start:end]],
            }
            for item, start, end in zip(items, offsets[:-1], offsets[1:], strict=True)
        ]

    def _passes(self, plan: Plan, items: Sequence[Scored]) -> Iterator[_Pass]:
        """From what is kept, or computed and then kept if there is room."""
        family = (plan.owners, plan.ffn_width[: len(plan.owners) - 1])
        key = (family, *(item.key for item in items))
        kept = self._kept.get(key)
        if kept is not None:
            self.resumed += sum(len(one.paused) for one in kept)
            yield from kept
            return
        made: list[_Pass] | None = []
        size = 0
        for one in self._computed(plan, items):
            self.computed += len(one.paused)
            yield one
            size += one.num_bytes
            if made is not None:
                made.append(one)
            if not self._make_room(size, family):
                made = None  # what is not kept is freed as soon as it was used
        if made is not None:
            self._kept[key] = made
            self.kept_bytes += size

    def _make_room(self, size: int, family: object) -> bool:
        """Whether `size` more bytes may be kept; what other families kept longest goes first."""
        while self.kept_bytes + size > self._keep_bytes:
            oldest = next((key for key in self._kept if key[0] != family), None)
            if oldest is None:
                return False
            self.kept_bytes -= sum(one.num_bytes for one in self._kept.pop(oldest))
        return True

    def _computed(self, plan: Plan, items: Sequence[Scored]) -> Iterator[_Pass]:
        waiting = _Waiting([], [], [], [])
        number = 0
        for item in items:
            base = self._beginning(plan, item.prefix[:-1])
            for ids in item.continuations:
                fork = base.fork()
                tokens, targets = [item.prefix[-1], *ids[:-1]], list(ids)
                for start in range(0, len(tokens), self._rows):
                    part = tokens[start : start + self._rows]
                    # A sequence may stand in a pass once.
                    if waiting.parts and (start or len(waiting.targets) + len(part) > self._rows):
                        yield self._run(plan, waiting)
                    if start:
                        fork = fork.fork()  # or windows that go on would overwrite kept pages
                    waiting.sequences.append(fork)
                    waiting.parts.append(part)
                    waiting.targets += targets[start : start + self._rows]
                    waiting.owners += [number] * len(part)
                number += 1
        if waiting.parts:
            yield self._run(plan, waiting)

    def _run(self, plan: Plan, waiting: _Waiting) -> _Pass:
        wanted = np.arange(len(waiting.targets), dtype=np.int32)
        lengths = [len(part) for part in waiting.parts]
        paused = self._engine.pause(waiting.sequences, plan, waiting.parts, wanted)
        done = _Pass(
            paused,
            np.array(waiting.targets),
            np.array(waiting.owners),
            paused.rows.nbytes + self._page_bytes(waiting.sequences, lengths),
        )
        for field in (waiting.sequences, waiting.parts, waiting.targets, waiting.owners):
            field.clear()
        return done

    def _page_bytes(self, sequences: Sequence[CachedSequence], lengths: Sequence[int]) -> int:
        """Of the pages these tokens keep: their own, of the layers that others read."""
        config = self._engine.model.config
        pages = sum(
            (len(one) - 1) // PAGE - (len(one) - count) // PAGE + 1
            for one, count in zip(sequences, lengths, strict=True)
        )
        size = page_bytes(self._kv_kind, config.num_kv_heads, config.head_dim)
        return pages * size * len(config.producers)

    def _beginning(self, plan: Plan, ids: Sequence[int]) -> CachedSequence:
        """A sequence of `ids`, from what it has in common with the one before."""
        tokens = list(ids)
        sequence = None
        if self._before is not None and plan.same_cache(self._before[0]):
            shared = common_prefix(self._before[1], tokens)
            if shared:
                sequence = self._before[2].fork()
                sequence.trim(shared)  # to nothing, if its windows have gone on too far
        if sequence is None:
            sequence = self._engine.new_sequence(plan, self._kv_kind)
        left = tokens[len(sequence) :]
        if left:
            self._engine.prefill(sequence, plan, left, logits="none")
        self._before = plan, tokens, sequence
        return sequence


def log_probabilities(
    logits: npt.NDArray[np.float32], targets: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """ln p(target) of each row. logits (W, V) · targets (W,), ids · returns (W,) nats.

    Raises InputError for targets that are not as many.
    """
    if targets.shape != (len(logits),):
        raise InputError(f"{len(logits)} rows of logits, targets of shape {targets.shape}")
    highest = logits.max(axis=1)
    total = np.exp(logits - highest[:, None]).sum(axis=1, dtype=np.float64)
    chosen = logits[np.arange(len(targets)), targets].astype(np.float64)
    result: npt.NDArray[np.float64] = chosen - highest - np.log(total)
    return result
