"""Hugging Face tensors to packed tensors: what goes into which shell, and in blocks of bounded
size.

In: an open `HuggingFaceSource`, a chain of shell plans, the weights kind. Out: a list of
`PackedTensor`s, each of which knows its place, stored shape and how to produce its bytes block by
block, so that the largest table of a checkpoint never sits in memory. `pack_in_memory` keeps all of
a small checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.safetensors import DTYPES
from matryo.checkpoint.text_tensors import FFN_MATRICES, LAYER_MATRICES, LAYER_VECTORS
from matryo.checkpoint.tower_source import TowerSource
from matryo.config import NUM_STREAMS, TextConfig
from matryo.errors import CheckpointError
from matryo.kernels.layer import OWNER_ONLY
from matryo.plan import Plan, rungs
from matryo.quantize import PANEL, kind_of, pack, stored_as

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
Read = Callable[[int, int], F32]  # rows [first, last) as float32
Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, what

BLOCK_WEIGHTS = 8 << 20  # weights converted at a time: 32 MB of float32


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """One tensor of a shell.

    `kind` is None for vectors, which are stored as plain float32 of `shape`.
    """

    shell: int
    name: str
    kind: str | None
    layout: str
    shape: tuple[int, ...]  # logical: (rows, cols) of a matrix
    read: Read

    @property
    def stored(self) -> tuple[str, tuple[int, ...]]:
        """Safetensors dtype and shape."""
        if self.kind is None:
            return "F32", self.shape
        return stored_as(self.kind, self.layout, *self.shape)

    @property
    def num_bytes(self) -> int:
        dtype, shape = self.stored
        return prod(shape) * DTYPES[dtype].itemsize

    def blocks(self, first: int = 0) -> Iterator[Array]:
        """The stored array from block number `first` on, in consecutive pieces along its first
        axis.

        Raises CheckpointError if a weight is not finite.
        """
        rows = self.shape[0]
        step = rows if self.kind is None else _block_rows(self.shape[1])
        for start in range(first * step, rows, step):
            dense = self.read(start, min(start + step, rows))
            yield self._store(dense, start)

    def _store(self, dense: F32, first: int) -> Array:
        if self.kind is None:
            if not np.isfinite(dense).all():
                raise CheckpointError("holds NaN or infinity", tensor=self.name)
            return np.ascontiguousarray(dense).reshape(self.shape)
        try:
            return pack(self.kind, self.layout, dense)
        except ValueError as error:
            raise CheckpointError(f"rows from {first}: {error}", tensor=self.name) from error


def packed_tensors(
    source: HuggingFaceSource, shells: Sequence[Plan], weights: str
) -> list[PackedTensor]:
    """Every packed tensor of docs/architecture.md section 3, in the order of the files."""
    planner = _Planner(source, shells, weights)
    return [tensor for index in range(len(shells)) for tensor in planner.shell(index)]


class Storable(Protocol):
    """What `pack_in_memory` asks of a tensor."""

    @property
    def name(self) -> str: ...
    @property
    def stored(self) -> tuple[str, tuple[int, ...]]: ...
    @property
    def num_bytes(self) -> int: ...
    def blocks(self, first: int = 0) -> Iterator[Array]: ...


def pack_in_memory(
    tensors: Iterable[Storable], progress: Progress | None = None
) -> dict[str, Array]:
    """Packed tensors by name, read-only, for checkpoints small enough to keep."""
    wanted = list(tensors)
    total, done = sum(tensor.num_bytes for tensor in wanted), 0
    found: dict[str, Array] = {}
    for tensor in wanted:
        dtype, shape = tensor.stored
        array, first = np.empty(shape, DTYPES[dtype]), 0
        for block in tensor.blocks():
            array[first : first + len(block)] = block
            first += len(block)
        array.flags.writeable = False
        found[tensor.name] = array
        done += array.nbytes
        if progress is not None:
            progress(done, total, tensor.name)
    return found


def _block_rows(cols: int) -> int:
    return max(PANEL, BLOCK_WEIGHTS // max(cols, 1) // PANEL * PANEL)


class _Planner:
    def __init__(self, source: HuggingFaceSource, shells: Sequence[Plan], weights: str) -> None:
        self.source, self.shells, self.weights = source, shells, weights
        self.config: TextConfig = source.config

    def shell(self, index: int) -> Iterator[PackedTensor]:
        """Tensors that shell `index` is the first to need; large ones first: they start aligned."""
        before = {layer for shell in self.shells[:index] for layer in shell.layers}
        added = [layer for layer in self.shells[index].layers if layer not in before]
        tensors: list[PackedTensor] = [] if index else list(self._common())
        if added:
            tensors.append(self._ple(index, added))
        for layer in self.shells[index].layers:
            tensors += self._ffn(index, layer)
            if layer in added:
                tensors += self._layer(index, layer)
        yield from (tensor for tensor in tensors if tensor.kind is not None)
        yield from (tensor for tensor in tensors if tensor.kind is None)

    def _common(self) -> Iterator[PackedTensor]:
        config = self.config
        width = config.hidden_size
        yield self._matrix(
            0, "embed", "panel", (config.vocab_size, width), self._rows("embed_tokens.weight")
        )
        for i in range(NUM_STREAMS - 1):
            for name, source in (("projection", "projections"), ("unembed", "unembed_projections")):
                read = self._rows(f"altup_{source}.{i}.weight")
                yield self._matrix(0, f"altup_{name}.{i}", "panel", (width, width), read)
        yield self._vector(0, "ple_projection_norm", "per_layer_projection_norm.weight")
        yield self._vector(0, "final_norm", "norm.weight")
        yield from self._multimodal()

    def _multimodal(self) -> Iterator[PackedTensor]:
        config = self.config
        shape = (config.vocab_size - config.ple_vocab_size, config.hidden_size)
        embedders = [TowerSource(self.source, f"embed_{tower}") for tower in ("vision", "audio")]
        if shape[0] == 0 or any("embedding.weight" not in e.shapes for e in embedders):
            return
        yield PackedTensor(
            0, "multimodal", None, "", shape, lambda first, last: self._hard_rows()[first:last]
        )

    def _hard_rows(self) -> F32:
        """Rows of the multimodal ids, projected as the reference does for hard tokens.

        rms(W · rms(row; norm)), the outer one without a weight.
        """
        table = np.concatenate([self._tower_rows(tower) for tower in ("vision", "audio")])
        expected = self.config.vocab_size - self.config.ple_vocab_size
        if len(table) != expected:
            raise CheckpointError(
                "multimodal embeddings do not fill the ids above the text vocabulary",
                file=str(self.source.directory), expected=f"{expected} rows", got=str(len(table)),
            )  # fmt: skip
        return table

    def _tower_rows(self, tower: str) -> F32:
        source, hidden = TowerSource(self.source, f"embed_{tower}"), self.config.hidden_size
        config = getattr(self.source.towers, tower)
        eps = self.config.eps if config is None else config.eps
        rows = source.checked("embedding.weight", (None, None))
        width = rows.shape[1]
        norm = source.checked("hard_embedding_norm.weight", (width,))
        projection = source.checked("embedding_projection.weight", (hidden, width))
        projected = (_rms(rows, eps) * norm) @ projection.T
        return _rms(projected.astype(np.float32, copy=False), eps)

    def _ple(self, shell: int, layers: Sequence[int]) -> PackedTensor:
        """Slots of `layers` of every token, side by side."""
        config, name = self.config, "embed_tokens_per_layer.weight"
        size = config.ple_dim

        def read(first: int, last: int) -> F32:
            rows = slice(first, last)
            slots = np.empty((last - first, len(layers), size), np.float32)
            for place, layer in enumerate(layers):  # not whole rows: a shell may add few of them
                cols = slice(layer * size, (layer + 1) * size)
                slots[:, place] = self.source.read_block(name, rows, cols)
            self.source.forget(name, rows)
            return slots.reshape(last - first, len(layers) * size)

        return self._matrix(
            shell, f"ple.{shell}", "rows", (config.ple_vocab_size, len(layers) * size), read
        )

    def _ffn(self, shell: int, layer: int) -> Iterator[PackedTensor]:
        """The segment of the layer's units that this shell adds, if any."""
        width = dict(zip(self.shells[shell].layers, self.shells[shell].ffn_width, strict=True))[
            layer
        ]
        ends = rungs(self.shells, layer)
        segment = ends.index(width)
        if shell and width in rungs(self.shells[:shell], layer):
            return
        first = ends[segment - 1] if segment else 0
        names = {key: f"layers.{layer}.{name}" for key, name in FFN_MATRICES.items()}
        prefix, units, hidden = (
            f"layers.{layer}.ffn.{segment}",
            width - first,
            self.config.hidden_size,
        )
        yield self._matrix(
            shell, f"{prefix}.gate", "panel", (units, hidden), self._rows(names["gate"], first)
        )
        up = self._rows(names["up"], first)
        if self.config.sparsity[layer]:
            yield self._matrix(shell, f"{prefix}.up", "rows", (units, hidden), up)
            down = self._columns(names["down"], first)
            yield self._matrix(shell, f"{prefix}.down", "rows", (units, hidden), down)
        else:
            yield self._matrix(shell, f"{prefix}.up", "panel", (units, hidden), up)
            read = self._rows(names["down"], 0, slice(first, width))
            yield self._matrix(shell, f"{prefix}.down", "panel", (hidden, units), read)

    def _layer(self, shell: int, layer: int) -> Iterator[PackedTensor]:
        config, prefix = self.config, f"layers.{layer}."
        dead = OWNER_ONLY if layer >= config.num_owners else frozenset()
        for key, name in LAYER_MATRICES.items():
            if key not in dead:
                rows, cols = self.source.shapes[prefix + name]
                yield self._matrix(
                    shell, prefix + key, "panel", (rows, cols), self._rows(prefix + name)
                )
        ple = self._rows("per_layer_model_projection.weight", layer * config.ple_dim)
        shape = (config.ple_dim, config.hidden_size)
        yield self._matrix(shell, prefix + "ple_model_projection", "panel", shape, ple)
        for key, name in LAYER_VECTORS.items():
            if key not in dead:
                yield self._vector(shell, prefix + key, prefix + name)

    def _rows(self, name: str, offset: int = 0, cols: slice = slice(None)) -> Read:
        def read(first: int, last: int) -> F32:
            rows = slice(offset + first, offset + last)
            dense = self.source.read_block(name, rows, cols)
            self.source.forget(name, rows)
            return dense

        return read

    def _columns(self, name: str, offset: int) -> Read:
        def read(first: int, last: int) -> F32:
            cols = slice(offset + first, offset + last)
            dense = self.source.read_block(name, slice(None), cols).T
            self.source.forget(name)
            return dense

        return read

    def _matrix(
        self, shell: int, name: str, layout: str, shape: tuple[int, int], read: Read
    ) -> PackedTensor:
        return PackedTensor(shell, name, kind_of(name, self.weights), layout, shape, read)

    def _vector(self, shell: int, name: str, source: str) -> PackedTensor:
        shape = self.source.shapes[source]
        return PackedTensor(
            shell, name, None, "", shape, lambda first, last: self.source.read(source)[first:last]
        )


def _rms(x: F32, eps: float) -> F32:
    scale = 1.0 / np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=-1, keepdims=True) + eps)
    scaled: F32 = (x * scale).astype(np.float32)
    return scaled
