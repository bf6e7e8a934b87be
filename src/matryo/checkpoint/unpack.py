"""`matryo unpack`: a packed directory back into a Hugging Face one, to train it further or to hand
it to other tools.

In: an open packed model with all of its shells and towers. Out: `model.safetensors` in float32, the
numbers that the engine computes with; what rounding took stays lost, and K/V that nothing reads are
left out. Written in blocks; it can be stopped at any moment and continued.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.beside import CONFIG, PLANS, TEXT_FILES, copy_beside
from matryo.checkpoint.convert import matryo_version
from matryo.checkpoint.packed import PackedModel
from matryo.checkpoint.slice import METADATA, CutTensor
from matryo.checkpoint.text_tensors import (
    FFN_MATRICES,
    LAYER_MATRICES,
    LAYER_VECTORS,
    text_shapes,
)
from matryo.checkpoint.writing import Progress, own_directory, part_of, unfinished, write_tensors
from matryo.config import NUM_STREAMS
from matryo.errors import CheckpointError
from matryo.plan import rungs
from matryo.quantize import PANEL, kind_of, stored_as, unpack

F32 = npt.NDArray[np.float32]
Read = Callable[[int, int], F32]  # rows [first, last) as float32

WEIGHTS_FILE = "model.safetensors"


def unpack_checkpoint(
    source: PackedModel, target: Path, *, progress: Progress | None = None
) -> Path:
    """Writes `source` into `target`, or finishes what an earlier call began; returns the file of
    weights. config.json is kept as it is, with the dtype that it names.

    progress: called with (bytes done, bytes in all, file or tensor); all are those that are read
    to compare them with their checksums, and those that are written
    Raises CheckpointError if a file of the source is missing or damaged, before anything is
    written, or if the target holds something else or another process writes it; CapacityError if
    the disk is full.
    """
    tensors = dense_tensors(source)
    size = sum(tensor.num_bytes for tensor in tensors)
    read = sum(entry.bytes for entry in source.entries)
    read += sum(entry.bytes for entry in source.manifest.towers)
    total = read + size
    source.verify(progress and (lambda done, _, file: progress(done, total, file)))
    parts = ["unpack", matryo_version(), source.identity]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    with own_directory(target, wait=False), unfinished(target, key, size):
        path = target / WEIGHTS_FILE
        write_tensors(path, tensors, METADATA, part_of(progress, read, total))
        copy_beside(source.directory, target, (*TEXT_FILES, PLANS, CONFIG))
    return path


def dense_tensors(source: PackedModel) -> list[CutTensor]:
    """Every tensor of the checkpoint, float32. Raises CheckpointError naming a file that is not
    there.
    """
    for entry in source.missing:
        raise CheckpointError(
            "is missing: `matryo slice` gives a whole model of the shells that there are",
            file=str(source.directory / entry.file),
        )
    for name, tower in source.towers.items():
        if not source.has_tower(name):
            raise CheckpointError("is missing", file=str(source.directory / tower.file))
    found = _Text(source).tensors()
    if source.towers:
        from matryo.checkpoint.unpack_towers import tower_tensors

        found += tower_tensors(source)
    return found


class _Text:
    """The language model's tensors, by their names in a checkpoint."""

    def __init__(self, source: PackedModel) -> None:
        self.source, self.config = source, source.config
        self.arrays, self.shapes = source.tensors(), text_shapes(source.config)
        document = json.loads((source.directory / CONFIG).read_text(encoding="utf-8"))
        self.prefix = "model.language_model." if "text_config" in document else "model."

    def tensors(self) -> list[CutTensor]:
        reads = dict(self._outer())
        for layer in range(self.config.num_layers):
            reads |= self._layer(layer)
        return [
            CutTensor(self.prefix + name, "F32", shape, reads[name])
            for name, shape in self.shapes.items()
        ]

    def _outer(self) -> Iterator[tuple[str, Read]]:
        config = self.config
        width = config.hidden_size
        yield "embed_tokens.weight", self._matrix("embed", "panel", config.vocab_size, width)
        yield "embed_tokens_per_layer.weight", self._ple()
        yield "per_layer_model_projection.weight", self._ple_projection()
        yield "per_layer_projection_norm.weight", self._vector("ple_projection_norm")
        yield "norm.weight", self._vector("final_norm")
        for i in range(NUM_STREAMS - 1):
            for name in ("projection", "unembed"):
                full = "projections" if name == "projection" else "unembed_projections"
                read = self._matrix(f"altup_{name}.{i}", "panel", width, width)
                yield f"altup_{full}.{i}.weight", read

    def _layer(self, layer: int) -> dict[str, Read]:
        """Of what the layer has: one that reads other K/V has none."""
        prefix, reads = f"layers.{layer}.", {}
        for key, name in LAYER_MATRICES.items():
            if prefix + name in self.shapes:
                rows, cols = self.shapes[prefix + name]
                reads[prefix + name] = self._matrix(prefix + key, "panel", rows, cols)
        for key, name in LAYER_VECTORS.items():
            if prefix + name in self.shapes:
                reads[prefix + name] = self._vector(prefix + key)
        for key, name in FFN_MATRICES.items():
            reads[prefix + name] = self._ffn(layer, key)
        return reads

    def _ffn(self, layer: int, key: str) -> Read:
        """Units of all segments, one behind the other."""
        hidden, sparse = self.config.hidden_size, bool(self.config.sparsity[layer])
        layout = "rows" if sparse and key != "gate" else "panel"
        turned = key == "down" and not sparse  # (hidden, units) as in the checkpoint
        pieces, start = [], 0
        for number, end in enumerate(rungs(self.source.shells, layer)):
            shape = (hidden, end - start) if turned else (end - start, hidden)
            name = f"layers.{layer}.ffn.{number}.{key}"
            pieces.append((self._matrix(name, layout, *shape), shape[0]))
            start = end

        if turned:
            return lambda first, last: np.concatenate(
                [piece(first, last) for piece, _ in pieces], axis=1
            )
        units = _stacked(pieces)
        return (lambda first, last: units(0, start).T[first:last]) if key == "down" else units

    def _ple(self) -> Read:
        """Slots of all layers of every token, in the order of the layers."""
        size, rows = self.config.ple_dim, self.config.ple_vocab_size
        tables = [
            (self._matrix(name, "rows", rows, len(layers) * size), layers)
            for name, layers in self.source.ple_tables().items()
        ]

        def read(first: int, last: int) -> F32:
            slots = np.empty((last - first, self.config.num_layers, size), np.float32)
            for table, layers in tables:
                slots[:, layers] = table(first, last).reshape(last - first, len(layers), size)
            return slots.reshape(last - first, -1)

        return read

    def _ple_projection(self) -> Read:
        size = self.config.ple_dim
        names = [f"layers.{n}.ple_model_projection" for n in range(self.config.num_layers)]
        parts = [self._matrix(name, "panel", size, self.config.hidden_size) for name in names]
        return _stacked([(part, size) for part in parts])

    def _matrix(self, name: str, layout: str, rows: int, cols: int) -> Read:
        kind = kind_of(name, self.source.weights)
        array = self._array(name)
        expected = stored_as(kind, layout, rows, cols)[1]
        if array.shape != expected:
            raise CheckpointError(
                "has the wrong shape", file=str(self.source.directory), tensor=name,
                expected=str(expected), got=str(array.shape),
            )  # fmt: skip
        step = PANEL if layout == "panel" else 1

        def read(first: int, last: int) -> F32:
            low, high = first // step, -(-last // step)
            there = min(high * step, rows) - low * step
            dense = unpack(kind, layout, there, cols, np.ascontiguousarray(array[low:high]))
            return dense[first - low * step : last - low * step]

        return read

    def _vector(self, name: str) -> Read:
        array = self._array(name)
        return lambda first, last: array[first:last]

    def _array(self, name: str) -> npt.NDArray[Any]:
        return self.source.array(self.arrays, name)


def _stacked(pieces: Sequence[tuple[Read, int]]) -> Read:
    """Matrices, each with its number of rows, one below the other; what is not asked for is not
    unpacked.
    """

    def read(first: int, last: int) -> F32:
        parts, start = [], 0
        for piece, rows in pieces:
            low, high = max(first - start, 0), min(last - start, rows)
            if low < high:
                parts.append(piece(low, high))
            start += rows
        return np.concatenate(parts)

    return read
