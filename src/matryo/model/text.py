"""The text decoder: token ids (and merged embeddings) -> logits, over any plan of one set of
weights.

The forward pass reads top to bottom like the paper: embed, per-layer inputs, AltUp expansion,
layers, merge, head.
Rows whose logits nobody wants leave at the last owner layer: only their K/V are needed from there
on. Position is an argument, the cache is advanced by the caller, and whether a layer shares K/V is
a property of the config.

T tokens · d model · A altup streams · P per-layer dim · V vocab · W rows whose logits are wanted
Source: transformers `modeling_gemma3n.py`, Gemma3nTextModel; K/V sharing and AltUp as described in
docs/architecture.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from matryo.config import TextConfig
from matryo.errors import CheckpointError, InputError
from matryo.model.batch import Batch
from matryo.model.cache import KVCache
from matryo.model.ops import Ops
from matryo.model.route import Route, Step, Stretch, resolve, rope_bases
from matryo.model.state import State, Views
from matryo.plan import Plan
from matryo.weights import TextWeights

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
LogitRows = Literal["none", "last", "all"] | Sequence[int] | I32

MAX_ROUTES = 64
"""Plans kept resolved; another one costs the time of resolving it again, below a millisecond."""
PLE_ROWS_MAPPED = 512
"""Rows of the PLE tables after which their pages are given back. A row that is read maps the 64 KB
around it, and rows return to memory from the page cache in a microsecond.
"""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PausedRows:
    """W rows of a batch that have come as far as the last owner's attention.

    ids, positions, sequences (W,) int32 · embedding (W, d), as the per-layer inputs need it
    predictions (A, W, d), normed (W, d): of the last owner · tables: pages of the owner layers,
    None where no layer above reads them
    """

    ids: I32
    positions: I32
    sequences: I32
    embedding: F32
    predictions: F32
    normed: F32
    tables: tuple[Any, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays; pages of K/V are not among them."""
        return self.embedding.nbytes + self.predictions.nbytes + self.normed.nbytes


class TextModel:
    """Config, weights and kernels. Holds no sequence: pass a `State` for scratch and caches in the
    batch.

    Not safe for two forward passes at once with one state; different states may run after each
    other freely.
    """

    def __init__(self, config: TextConfig, weights: TextWeights, ops: Ops | None = None) -> None:
        self.config = config
        self.weights = weights
        self._ops = native_ops() if ops is None else ops
        # All plans share the handles, so that a plan never seen before costs little too.
        self._handles = tuple(
            None if layer is None else self._ops.layer_handle(layer) for layer in weights.layers
        )
        self._routes: OrderedDict[Plan, Route] = OrderedDict()  # the plan used last comes last
        self._ple_rows = 0  # read since the pages of the PLE tables were given back
        self._frequencies = tuple(
            _inverse_frequencies(base, config.head_dim) for base in rope_bases(config)
        )

    def new_state(self, max_tokens: int) -> State:
        """Scratch for passes of up to `max_tokens` rows."""
        return State(self.config, max_tokens)

    def new_cache(self, plan: Plan, *, kind: str = "bf16", chunk: int = 512) -> KVCache:
        """An empty K/V cache for the owner layers of `plan`; `chunk` is the most tokens of one
        pass.
        """
        make_table = self._ops.PageTable
        return KVCache(self.config, plan.owners, kind=kind, chunk=chunk, make_table=make_table)

    def prepare(self, plan: Plan) -> None:
        """Resolves a plan ahead of its first use. Raises PlanError if it cannot run with the
        weights at hand.
        """
        self._route(plan)

    def forward(
        self, state: State, plan: Plan, batch: Batch, logits: LogitRows = "last"
    ) -> F32 | None:
        """Runs the rows of the batch, stores their K/V, and returns the logits (W, V) that are
        wanted.

        logits: "none"; "last" of every sequence; "all" rows; or row numbers. The result may be
        overwritten by the next pass with the same state. The caches must have room (`reserve`) and
        are not advanced (`commit`).
        Raises InputError (ids, positions, embeddings), PlanError, CheckpointError if the weights
        give NaN.
        """
        route = self._route(plan)
        batch.check(route.owners, self.config.vocab_size, self.config.hidden_size)
        _check_size(state, len(batch.ids))
        wanted = _wanted_rows(batch, logits)
        tables = self._tables(batch)
        views = state.views(len(batch.ids))
        self._embed(batch, views)
        self._set_angles(batch.positions, views)
        if wanted is None:
            self._per_layer_inputs(route.whole, batch.ids, views)
            self._expand(views)
            self._run(
                route.whole.steps, views.each_ple, batch.sequences, batch.positions, tables, views
            )
            return self._logits(state, views)
        paused = self._paused(route, batch, wanted, tables, views)
        return self._resumed(state, route, paused) if len(wanted) else None

    def pause(
        self, state: State, plan: Plan, batch: Batch, rows: Sequence[int] | I32
    ) -> PausedRows:
        """Runs a batch below the last owner, stores all K/V, and keeps what `rows` need to go on.

        What comes of it is the same for every plan that writes the same K/V (`Plan.same_cache`):
        `resume` goes on with any of them, as often as wanted, and gives the bits of `forward`.
        The caches must not be written to afterwards; drop them, or go on with forks.
        Raises as `forward`.
        """
        route = self._route(plan)
        batch.check(route.owners, self.config.vocab_size, self.config.hidden_size)
        _check_size(state, len(batch.ids))
        wanted = _checked_rows(np.asarray(rows, np.int32), len(batch.ids))
        views = state.views(len(batch.ids))
        self._embed(batch, views)
        self._set_angles(batch.positions, views)
        tables = self._tables(batch)
        read = [owner in self.config.producers for owner in route.owners]
        paused = self._paused(route, batch, wanted, tables, views)
        stack = self._ops.PageTable.stack
        kept = [
            stack([cache.tables[place] for cache in batch.caches]) if is_read else None
            for place, is_read in enumerate(read)
        ]
        return replace(paused, tables=tuple(kept))

    def resume(self, state: State, plan: Plan, paused: PausedRows) -> F32:
        """The logits (W, V) of rows that `pause` kept. `plan` writes the same K/V as theirs.

        Raises PlanError if the plan cannot run, InputError for more rows than the state has.
        """
        _check_size(state, len(paused.ids))
        return self._resumed(state, self._route(plan), paused)

    def _paused(
        self, route: Route, batch: Batch, wanted: I32, tables: Sequence[Any], views: Views
    ) -> PausedRows:
        """Every layer below the last owner, its K/V, and the wanted rows as they wait there."""
        embedding = views.embedding[wanted]
        self._per_layer_inputs(route.lower, batch.ids, views)
        self._expand(views)
        self._run(
            route.lower.steps, views.each_ple, batch.sequences, batch.positions, tables, views
        )
        self._write_last_owner(route.upper, batch, tables, views)
        return PausedRows(
            ids=batch.ids[wanted],
            positions=batch.positions[wanted],
            sequences=batch.sequences[wanted],
            embedding=embedding,
            predictions=np.take(views.predictions, wanted, axis=1),
            normed=np.take(views.normed, wanted, axis=0),
            tables=tuple(tables),
        )

    def _resumed(self, state: State, route: Route, paused: PausedRows) -> F32:
        """The rest of the layers and the head, over rows that wait at the last owner."""
        rest = state.spare_views(len(paused.ids))
        rest.embedding[...] = paused.embedding
        self._per_layer_inputs(route.upper, paused.ids, rest)
        rest.predictions[...] = paused.predictions
        rest.normed[...] = paused.normed
        self._set_angles(paused.positions, rest)
        self._run_upper(route.upper, paused.sequences, paused.positions, paused.tables, rest)
        return self._logits(state, rest)

    def _route(self, plan: Plan) -> Route:
        # Taken out and put back last: two threads at once at worst resolve a plan twice.
        route = self._routes.pop(plan, None)
        if route is None:
            route = resolve(self.config, self.weights, plan, self._handles)
        self._routes[plan] = route
        if len(self._routes) > MAX_ROUTES:
            self._routes.popitem(last=False)
        return route

    def _tables(self, batch: Batch) -> Sequence[Any]:
        """One page table an owner layer, covering every sequence of the batch."""
        if len(batch.caches) == 1:
            return batch.caches[0].tables
        stack = self._ops.PageTable.stack
        return [
            stack(list(tables))
            for tables in zip(*(cache.tables for cache in batch.caches), strict=True)
        ]

    def _embed(self, batch: Batch, views: Views) -> None:
        """Stream 0: scaled token embeddings, the unscaled table of special media tokens, then given
        embeddings.
        """
        config, table = self.config, self.weights.multimodal
        self._ops.gather(self.weights.embed, batch.ids, config.embedding_scale, views.embedding)
        if table is not None and int(batch.ids.max()) >= config.ple_vocab_size:
            media = np.flatnonzero(batch.ids >= config.ple_vocab_size)
            views.embedding[media] = table[batch.ids[media] - config.ple_vocab_size]
        if batch.embeddings is not None:
            views.embedding[slice(None) if batch.rows is None else batch.rows] = batch.embeddings

    def _set_angles(self, positions: I32, views: Views) -> None:
        """cos and sin of position · frequency; the product is rounded to float32 as the reference
        rounds it.
        """
        column = positions.astype(np.float32)[:, None]
        for frequencies, (cos, sin) in zip(self._frequencies, views.angles, strict=True):
            angle = (column * frequencies).astype(np.float64)
            cos[...] = np.cos(angle)
            sin[...] = np.sin(angle)

    def _per_layer_inputs(self, stretch: Stretch, ids: I32, views: Views) -> None:
        """views.ple[:n]: the projected embedding, normed per slot, plus the rows of the PLE tables.
        Order: layer, row.
        """
        config, ops, num_layers = self.config, self._ops, len(stretch.steps)
        if not num_layers:
            return
        ids = np.where(
            ids < config.ple_vocab_size, ids, np.int32(0)
        )  # media positions all read row 0
        for source in stretch.ple_sources:
            ops.advise_rows(source.matrix, ids)
        ops.matmul_group(stretch.ple_projections, views.embedding, views.each_ple[:num_layers])
        # The factor d^-1/2 of the projection matters only through the eps of the norm that follows.
        projection = views.ple[:num_layers]
        projection *= np.float32(config.hidden_size**-0.5)
        raw = views.ple_raw[:num_layers]
        for source in stretch.ple_sources:
            rows = np.empty((len(ids), source.num_slots * config.ple_dim), np.float32)
            ops.gather(source.matrix, ids, config.ple_scale, rows)
            raw[source.places] = rows.reshape(len(ids), source.num_slots, -1).transpose(1, 0, 2)[
                source.slots
            ]
        self._ple_rows += len(ids)
        if self._ple_rows >= PLE_ROWS_MAPPED:
            self._ple_rows = 0
            for table in self.weights.ple:
                self.weights.forget(table.name)
        flat = (-1, config.ple_dim)
        norm = self.weights.ple_projection_norm
        ops.ple_combine(
            projection.reshape(flat), raw.reshape(flat), norm, config.eps, projection.reshape(flat)
        )

    def _expand(self, views: Views) -> None:
        """Streams 1.. from stream 0."""
        self._ops.matmul_group(self.weights.altup_projection, views.embedding, views.each_other)
        self._ops.altup_expand(views.embedding, views.others)

    def _run(
        self,
        steps: Sequence[Step],
        ples: Sequence[F32],
        sequences: I32,
        positions: I32,
        tables: Sequence[Any],
        views: Views,
    ) -> None:
        """The layers `steps` over all rows of `views`; ples[i] (T, P) are the per-layer inputs of
        steps[i].
        """
        ops, streams, predictions = self._ops, views.streams, views.predictions
        predict, attend, feed, correct = (
            ops.altup_predict,
            ops.attention,
            ops.feed_forward,
            ops.altup_correct,
        )
        for step, ple in zip(steps, ples, strict=False):
            cos, sin = views.angles[step.angle]
            predict(step.handle, streams, predictions, views.normed)
            attend(
                step.handle,
                views.normed,
                views.active,
                tables[step.table],
                sequences,
                positions,
                cos,
                sin,
                step.owns_kv,
                views.hidden,
            )
            feed(step.handle, views.hidden, step.width, views.active_out)
            correct(step.handle, predictions, views.active_out, ple, streams)

    def _write_last_owner(
        self, upper: Stretch, batch: Batch, tables: Sequence[Any], views: Views
    ) -> None:
        """Of the last owner, what every row needs: predictions, their norm, and the K/V."""
        step = upper.steps[0]
        cos, sin = views.angles[step.angle]
        self._ops.altup_predict(step.handle, views.streams, views.predictions, views.normed)
        table = tables[step.table]
        self._ops.write_kv(
            step.handle, views.normed, table, batch.sequences, batch.positions, cos, sin
        )

    def _run_upper(
        self, upper: Stretch, sequences: I32, positions: I32, tables: Sequence[Any], views: Views
    ) -> None:
        """The last owner from its attention on (its K/V are written), then every layer above it."""
        step, ops = upper.steps[0], self._ops
        cos, sin = views.angles[step.angle]
        ops.attention(
            step.handle,
            views.normed,
            views.active,
            tables[step.table],
            sequences,
            positions,
            cos,
            sin,
            False,
            views.hidden,
        )
        ops.feed_forward(step.handle, views.hidden, step.width, views.active_out)
        ops.altup_correct(
            step.handle, views.predictions, views.active_out, views.each_ple[0], views.streams
        )
        self._run(upper.steps[1:], views.each_ple[1:], sequences, positions, tables, views)

    def _logits(self, state: State, views: Views) -> F32:
        """Merges the streams and applies the head. Raises CheckpointError if the result is not
        finite.
        """
        ops, weights, config = self._ops, self.weights, self.config
        for matrix, stream, out in zip(
            weights.altup_unembed, views.each_other, views.each_unembedded, strict=True
        ):
            ops.matmul(matrix, stream, out)
        ops.altup_merge(
            views.streams, views.unembedded, weights.final_norm, config.eps, views.normed
        )
        out = state.logits(len(views.normed), config.vocab_size)
        ops.logits(weights.embed, views.normed, config.softcap, out)
        # One pass over the logits: a sum of finite values this small is finite.
        if not np.isfinite(np.add.reduce(out, axis=None)):
            raise CheckpointError(
                "the weights give logits that are not numbers; verify the checkpoint (a damaged "
                "file, or infinite "
                "weights) and any embeddings given beside the ids"
            )
        return out


def native_ops() -> Ops:
    """The compiled kernels; imported here so that the numpy twin can be used without them."""
    from matryo import kernels

    kernels.start()
    return kernels


def _wanted_rows(batch: Batch, logits: LogitRows) -> I32 | None:
    """Rows whose logits are wanted; None for all, in order. Raises InputError for rows that do not
    exist.
    """
    if isinstance(logits, str):
        if logits == "all":
            return None
        if logits not in ("none", "last"):
            raise InputError(f"logits is {logits!r}; expected 'none', 'last', 'all' or row numbers")
        rows = batch.last_rows() if logits == "last" else np.zeros(0, np.int32)
    else:
        rows = np.asarray(logits, np.int32)
    rows = _checked_rows(rows, len(batch.ids))
    return (
        None if len(rows) == len(batch.ids) and np.array_equal(rows, np.arange(len(rows))) else rows
    )


def _checked_rows(rows: I32, count: int) -> I32:
    if rows.ndim != 1 or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < count):
        raise InputError(f"logit rows must lie in 0..{count - 1}")
    return rows


def _check_size(state: State, count: int) -> None:
    if count > state.max_tokens:
        raise InputError(f"{count} rows in one pass; this state was made for {state.max_tokens}")


def _inverse_frequencies(base: float, head_dim: int) -> F32:
    """base^(-2i/Dh) for i < Dh/2, computed in float32 as the reference does."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies: F32 = np.float32(1.0) / np.power(np.float32(base), exponent)
    return frequencies
