"""Sequences of token ids through the model: prefill in chunks, decode together, trim, fork.

In: token ids, positions implied by their order, a plan for every call. Out: logits. The engine
knows no text and chooses no token. All that a sequence has is its K/V cache and which plan wrote
which part of it; position is the number of cached tokens when a call begins, and is advanced here,
once a call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from matryo.errors import CancelledError, CapacityError, InputError, PlanError
from matryo.model.batch import Batch
from matryo.model.cache import KVCache
from matryo.model.text import PausedRows, TextModel
from matryo.plan import Plan

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
Wanted = Literal["none", "last", "all"]
Progress = Callable[[int, int], None]
"""Called with (tokens done, tokens in all) after each chunk."""

CHUNK = 256
"""Tokens of one prefill step: enough to be bound by arithmetic, few enough to stop quickly and to
keep scratch small.
"""


class Cancel(Protocol):
    """Anything that can say that it was asked to stop, such as threading.Event."""

    def is_set(self) -> bool:
        """Whether to stop."""


@dataclass(slots=True)
class Span:
    """Cached tokens from `start` on were computed by `plan`."""

    start: int
    plan: Plan


@dataclass(slots=True)
class CachedSequence:
    """The cache of one sequence, and who wrote it."""

    cache: KVCache
    spans: list[Span] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of cached tokens."""
        return self.cache.length

    def is_exact(self, plan: Plan) -> bool:
        """Whether every cached token is, bit for bit, what `plan` would have written."""
        return all(span.plan.same_cache(plan) for span in self.spans)

    def exact_until(self, plan: Plan) -> int:
        """How many tokens from the beginning are what `plan` would have written."""
        return next(
            (span.start for span in self.spans if not span.plan.same_cache(plan)), len(self)
        )

    def advance(self, plan: Plan, count: int) -> None:
        """Count `count` tokens that `plan` has just written."""
        if not self.spans or self.spans[-1].plan != plan:
            self.spans.append(Span(len(self), plan))
        self.cache.commit(count)

    def trim(self, length: int) -> None:
        """Forget all but the first `length` tokens, or all of them if sliding layers no longer hold
        what they need.
        """
        if length >= len(self):
            return
        if not self.cache.can_trim(len(self) - length):
            length = 0
        self.cache.trim(len(self) - length)
        self.spans = [span for span in self.spans if span.start < length]

    def fork(self) -> CachedSequence:
        """An independent copy; pages are shared until one of the two writes to them."""
        return CachedSequence(
            self.cache.fork(), [Span(span.start, span.plan) for span in self.spans]
        )


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """Inputs that take the place of token embeddings: image or audio features.

    rows (n,) int32, ascending: which tokens of the prompt · values (n, d) float32: their
    embeddings, not scaled
    """

    rows: I32
    values: F32

    def check(self, num_tokens: int, hidden_size: int) -> None:
        """Raises InputError unless rows ascend within the prompt, each with its embedding."""
        rows, values = self.rows, self.values
        if rows.ndim != 1 or rows.dtype != np.int32 or (np.diff(rows) <= 0).any():
            raise InputError(
                f"embedding rows: expected ascending int32 numbers, got {rows.dtype} {rows.shape}"
            )
        if len(rows) and not 0 <= int(rows[0]) <= int(rows[-1]) < num_tokens:
            raise InputError(
                f"embedding rows: expected 0 to {num_tokens - 1}, got {int(rows[0])} to "
                f"{int(rows[-1])}"
            )
        if values.dtype != np.float32 or values.shape != (len(rows), hidden_size):
            raise InputError(
                f"embeddings: expected float32 ({len(rows)}, {hidden_size}), got {values.dtype} "
                f"{values.shape}"
            )

    def between(self, start: int, end: int) -> tuple[F32 | None, I32 | None]:
        """Values and rows, counted from `start`, of tokens [start, end); None if there are none."""
        first, last = np.searchsorted(self.rows, (start, end))
        if first == last:
            return None, None
        return np.ascontiguousarray(self.values[first:last]), self.rows[first:last] - np.int32(
            start
        )


@dataclass(frozen=True, slots=True, eq=False)
class Paused:
    """Tokens of one or more sequences that wait at the last owner layer of `plan`: what
    `Engine.resume` continues with any plan of its exact family.
    """

    plan: Plan
    rows: PausedRows

    def __len__(self) -> int:
        """How many tokens wait."""
        return len(self.rows.ids)


class Engine:
    """Runs sequences through one model."""

    def __init__(self, model: TextModel, *, chunk: int = CHUNK) -> None:
        """chunk: most tokens of one prefill step, and most sequences of one decode step."""
        self.model = model
        self.chunk = chunk
        # One set of scratch and one thread pool: passes of different threads follow one another.
        self._state = model.new_state(chunk)
        self._lock = threading.Lock()
        self._vocab_size = model.config.vocab_size
        self.context = model.config.context_length

    def new_sequence(self, plan: Plan, kv_kind: str) -> CachedSequence:
        """An empty sequence for the owner layers of the plan; kv_kind: f32, bf16 or int8."""
        return CachedSequence(self.model.new_cache(plan, kind=kv_kind, chunk=self.chunk))

    def prefill(
        self,
        sequence: CachedSequence,
        plan: Plan,
        ids: Sequence[int] | I32,
        *,
        logits: Wanted = "last",
        embeddings: Embeddings | None = None,
        chunk: int | None = None,
        cancel: Cancel | None = None,
        progress: Progress | None = None,
    ) -> F32 | None:
        """Append ids to a sequence; layers above the last owner run only where logits are wanted.

        embeddings: replace those of some of the ids · chunk: tokens of one step, if fewer than the
        engine's
        Returns (T, V) for "all", (1, V) for "last", None for "none".
        Raises CapacityError if they do not fit, InputError for ids out of range or an empty list,
        CancelledError between chunks; the sequence then holds the chunks that were done.
        """
        tokens = self.check_ids(ids)
        self.check_room(len(sequence) + len(tokens))
        if embeddings is not None:
            embeddings.check(len(tokens), self.model.config.hidden_size)
        step = min(chunk or self.chunk, self.chunk)
        parts: list[F32] = []
        try:
            for start in range(0, len(tokens), step):
                if cancel is not None and cancel.is_set():
                    raise CancelledError(f"cancelled after {start} of {len(tokens)} prompt tokens")
                end = min(start + step, len(tokens))
                wanted: Wanted = logits if logits == "all" or end == len(tokens) else "none"
                values, rows = (
                    (None, None) if embeddings is None else embeddings.between(start, end)
                )
                batch = Batch.of([(tokens[start:end], len(sequence), sequence.cache)], values, rows)
                out = self._forward([sequence], plan, batch, wanted)
                if out is not None:
                    parts.append(out)
                if progress is not None:
                    progress(end, len(tokens))
        finally:
            with self._lock:
                self._state.release()
        if not parts:
            return None
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def decode(
        self, sequences: Sequence[CachedSequence], plans: Sequence[Plan], ids: Sequence[int]
    ) -> F32:
        """Append one id to each of several sequences; those of one plan share one pass.

        Returns (B, V) f32, row i the same bits as if sequence i were alone.
        Raises InputError for ids out of range, a sequence given twice, or more than `chunk` of
        them; CapacityError if one is full. Nothing has changed then.
        """
        if not len(sequences) == len(plans) == len(ids) <= self.chunk:
            raise InputError(
                f"{len(sequences)} sequences, {len(plans)} plans, {len(ids)} ids: expected as "
                f"many, at most {self.chunk}"
            )
        if len({id(sequence) for sequence in sequences}) != len(sequences):
            raise InputError("a sequence is given twice: each can be decoded once a step")
        self.check_ids(ids)
        groups: dict[Plan, list[int]] = {}
        for row, (sequence, plan) in enumerate(zip(sequences, plans, strict=True)):
            self.check_room(len(sequence) + 1)
            groups.setdefault(plan, []).append(row)
        if len(groups) == 1:
            return self._step(sequences, plans[0], ids)
        out = np.empty((len(sequences), self._vocab_size), np.float32)
        for plan, rows in groups.items():
            out[rows] = self._step(
                [sequences[row] for row in rows], plan, [ids[row] for row in rows]
            )
        return out

    def pause(
        self,
        sequences: Sequence[CachedSequence],
        plan: Plan,
        parts: Sequence[Sequence[int] | I32],
        wanted: Sequence[int] | I32,
    ) -> Paused:
        """Append several ids to each of several sequences, and stop where plans of one exact family
        part.

        wanted: the tokens whose logits may be asked for, numbered through all parts. The
        sequences hold the ids then; drop them, or go on with forks.
        Raises InputError for ids out of range or more than `chunk` of them, CapacityError if a
        sequence is full. Nothing has changed then.
        """
        if len(sequences) != len(parts) or sum(len(part) for part in parts) > self.chunk:
            raise InputError(
                f"{len(sequences)} sequences, {len(parts)} lists of ids: expected as many, of at "
                f"most {self.chunk} ids together"
            )
        tokens = [self.check_ids(part) for part in parts]
        for sequence, part in zip(sequences, tokens, strict=True):
            self.check_room(len(sequence) + len(part))
        with self._lock:
            for sequence, part in zip(sequences, tokens, strict=True):
                sequence.cache.reserve(len(part))
            batch = Batch.of(
                [(part, len(s), s.cache) for s, part in zip(sequences, tokens, strict=True)]
            )
            rows = self.model.pause(self._state, plan, batch, wanted)
        for sequence, part in zip(sequences, tokens, strict=True):
            sequence.advance(plan, len(part))
        return Paused(plan, rows)

    def resume(self, paused: Paused, plan: Plan) -> F32:
        """The logits (W, V) of the tokens that wait, by another plan of the family or the same.

        Raises PlanError if the plan writes other K/V.
        """
        if not plan.same_cache(paused.plan):
            raise PlanError(
                "these tokens wait at the last layer with K/V of another exact family: "
                "run them again with this plan"
            )
        with self._lock:
            out = self.model.resume(self._state, plan, paused.rows)
            return out if out.base is None else out.copy()

    def extend(self, sequence: CachedSequence, plan: Plan, ids: Sequence[int]) -> F32:
        """Append a few ids in one pass and return the logits (T, V) after each: the same bits as T
        steps of `decode`.

        Raises InputError for ids out of range or more than `chunk`, CapacityError if they do not
        fit.
        """
        tokens = self.check_ids(ids)
        self.check_room(len(sequence) + len(tokens))
        batch = Batch.of([(tokens, len(sequence), sequence.cache)])
        out = self._forward([sequence], plan, batch, "all")
        if out is None:
            raise InputError("a pass needs at least one id")
        return out

    def check_ids(self, ids: Sequence[int] | npt.NDArray[Any]) -> I32:
        """The ids as an int32 array. Raises InputError if it is empty, not flat, not whole numbers,
        or out of range.
        """
        try:
            given = np.asarray(ids)
        except ValueError as error:
            raise InputError(
                "expected a flat list of token ids, got lists of different lengths"
            ) from error
        if given.ndim != 1 or not given.size:
            raise InputError(
                f"expected a list of at least one token id, got an array of shape {given.shape}"
            )
        if given.dtype.kind not in "iu":
            raise InputError(f"expected whole numbers as token ids, got {given.dtype}")
        low, high = int(given.min()), int(given.max())
        if low < 0 or high >= self._vocab_size:
            wrong = low if low < 0 else high
            raise InputError(
                f"token id {wrong} is out of range: this model has ids 0 to {self._vocab_size - 1}"
            )
        return given.astype(np.int32)

    def check_room(self, length: int) -> None:
        """Raises CapacityError if a sequence of `length` tokens is longer than the context."""
        if length > self.context:
            raise CapacityError(
                f"the context holds {self.context} tokens, {length} are needed: "
                "shorten the prompt, or load the model with a larger context",
                needed=length,
                available=self.context,
            )

    def _step(self, sequences: Sequence[CachedSequence], plan: Plan, ids: Sequence[int]) -> F32:
        """One id each for sequences of one plan; (B, V)."""
        if len(sequences) == 1:
            batch = Batch.step(ids[0], len(sequences[0]), sequences[0].cache)
        else:
            batch = Batch.of(
                [([token], len(s), s.cache) for s, token in zip(sequences, ids, strict=True)]
            )
        out = self._forward(sequences, plan, batch, "all")
        if out is None:
            raise InputError("a decode step needs at least one sequence")
        return out

    def _forward(
        self, sequences: Sequence[CachedSequence], plan: Plan, batch: Batch, wanted: Wanted
    ) -> F32 | None:
        """Make room, run, and only then count the tokens: an error or an interrupt leaves the
        sequences as they were.
        """
        count = len(batch.ids) // len(sequences)
        with self._lock:
            for sequence in sequences:
                sequence.cache.reserve(count)
            out = self.model.forward(self._state, plan, batch, wanted)
            if out is not None and out.base is not None:
                out = out.copy()  # a buffer of the state, which the next pass overwrites
        for sequence in sequences:
            sequence.advance(plan, count)
        return out
