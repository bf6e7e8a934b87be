"""`matryo slice` of a packed directory: any plan cut out of it, as a packed directory.

In: an open packed model, a plan. Out: a packed directory of the same kind with the bytes that
slicing the Hugging Face checkpoint and converting the slice would give: kept layers renumbered,
whole panels and groups taken over as they are, nothing rounded again. Written in pieces of bounded
size; it can be stopped at any moment and continued. The manifest is written last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.atomic import replace_text
from matryo.checkpoint.beside import CONFIG, TEXT_FILES, copy_beside
from matryo.checkpoint.convert import matryo_version
from matryo.checkpoint.packed import (
    FORMAT,
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    PackedModel,
    ShellEntry,
    TowerEntry,
)
from matryo.checkpoint.safetensors import SafetensorsFile
from matryo.checkpoint.slice import CutTensor, sliced_config
from matryo.checkpoint.text_tensors import LAYER_MATRICES, LAYER_VECTORS
from matryo.checkpoint.writing import (
    Progress,
    own_directory,
    part_of,
    unfinished,
    write_tensors,
)
from matryo.config import GROUP, NUM_STREAMS, TextConfig
from matryo.errors import CheckpointError, PlanError
from matryo.plan import Plan, presets, rungs, shell_chain
from matryo.quantize import PANEL, kind_of, stored_as

Array = npt.NDArray[Any]

_OUTER_MATRICES = (
    "embed",
    *(f"altup_{part}.{i}" for i in range(NUM_STREAMS - 1) for part in ("projection", "unembed")),
)
_OUTER_VECTORS = ("ple_projection_norm", "final_norm", "multimodal")
# Elements of the second axis of a stored array that hold the columns of one group.
_GROUP_STEPS = {"f32": GROUP, "bf16": GROUP // 2, "q8": 1, "q4": 1}
_GROUP_BYTES = {"q8": (32, 2), "q4": (16, 2)}  # integers and scale of a group in rows layout


def slice_packed(
    source: PackedModel, plan: Plan, target: Path, *, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Writes `plan` of `source` into `target`, or finishes what an earlier call began; returns the
    files of weights.

    progress: called with (bytes done, bytes in all, tensor)
    Raises PlanError if the model cannot run the plan with the shells at hand, CheckpointError if
    the source is damaged, the target holds something else or another process writes it,
    CapacityError if the disk is full.
    """
    cut = PackedSlice(source, plan)
    with own_directory(target, wait=False), unfinished(target, cut.key, cut.num_bytes):
        manifest = cut.write(target, progress)
    entries: list[ShellEntry | TowerEntry] = [*manifest.shells, *manifest.towers]
    return tuple(target / entry.file for entry in entries)


class PackedSlice:
    """What is to be written; nothing is until `write`."""

    def __init__(self, source: PackedModel, plan: Plan) -> None:
        plan.check(source.config)
        if not source.shells[-1].contains(plan):
            names = [entry.file for entry in source.missing]
            raise PlanError(
                f"{source.directory} does not hold all of the plan: {', '.join(names)} is missing"
            )
        self.source, self.plan = source, plan
        document = json.loads((source.directory / CONFIG).read_text(encoding="utf-8"))
        self.document = sliced_config(document, source.config, plan)
        self.config = TextConfig.from_json(self.document)
        self.shells = shell_chain(presets(self.config), self.config)
        cutter = _Cutter(source, plan, list(self.shells.values()))
        self.files: dict[str, tuple[str, list[CutTensor]]] = {
            f"shell-{index}.safetensors": (name, cutter.shell(index))
            for index, name in enumerate(self.shells)
        }
        for entry in source.manifest.towers:
            if source.has_tower(entry.name):
                self.files[entry.file] = (entry.name, _copies(source.open_tower(entry.name)))

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.num_bytes for _, tensors in self.files.values() for tensor in tensors)

    @property
    def key(self) -> str:
        """Tells this slice from everything else."""
        parts = ["slice packed", matryo_version(), self.source.identity, self.plan.to_json()]
        return hashlib.sha256(json.dumps([*parts, [*self.files]]).encode()).hexdigest()

    def write(self, target: Path, progress: Progress | None) -> Manifest:
        """Writes everything, the manifest last."""
        plans = [*self.shells.values()]
        shells: list[ShellEntry] = []
        towers: list[TowerEntry] = []
        done, total = 0, self.num_bytes
        for file, (name, tensors) in self.files.items():
            metadata = {
                "format": FORMAT,
                "format_version": str(FORMAT_VERSION),
                "shell": name,
                "weights": self.source.weights,
            }
            report = part_of(progress, done, total)
            written = write_tensors(target / file, tensors, metadata, report)
            done += sum(tensor.num_bytes for tensor in tensors)
            figures: dict[str, Any] = {
                "bytes": written.num_bytes,
                "sha256": written.sha256,
                "header_sha256": written.header_sha256,
            }
            if len(shells) < len(plans):
                plan = plans[len(shells)].to_json()
                shells.append(ShellEntry(name=name, file=file, plan=plan, **figures))
            else:
                towers.append(TowerEntry(name=name, file=file, **figures))
        copy_beside(self.source.directory, target, TEXT_FILES)
        replace_text(target / CONFIG, json.dumps(self.document, indent=2) + "\n")
        manifest = Manifest(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            matryo_version=matryo_version(),
            weights=self.source.weights,
            group=GROUP,
            source={
                "name": self.source.manifest.source.get("name", self.source.directory.name),
                "identity": self.source.identity,
                "key": self.key,
            },
            shells=tuple(shells),
            towers=tuple(towers),
        )
        replace_text(target / MANIFEST, manifest.to_json())
        return manifest


class _Cutter:
    """The tensors of a slice's shells, in the order in which `convert` writes them."""

    def __init__(self, source: PackedModel, plan: Plan, shells: Sequence[Plan]) -> None:
        self.source, self.plan, self.shells = source, plan, shells
        self.config = source.config
        self.arrays = source.tensors()
        self.file_of = {name: file for file in source.files for name in file.tensors}

    def shell(self, index: int) -> list[CutTensor]:
        """Tensors that shell `index` of the slice is the first to need; vectors last."""
        before = {layer for shell in self.shells[:index] for layer in shell.layers}
        added = [layer for layer in self.shells[index].layers if layer not in before]
        matrices = [] if index else [self._whole(name, name) for name in _OUTER_MATRICES]
        vectors = []
        if not index:
            vectors = [self._whole(name, name) for name in _OUTER_VECTORS if name in self.arrays]
        if added:
            matrices.append(self._ple(index, [self.plan.layers[layer] for layer in added]))
        for layer in self.shells[index].layers:
            old, new = f"layers.{self.plan.layers[layer]}.", f"layers.{layer}."
            matrices += self._ffn(index, layer)
            if layer in added:
                for names, found in (
                    ((*LAYER_MATRICES, "ple_model_projection"), matrices),
                    (LAYER_VECTORS, vectors),
                ):
                    here = [name for name in names if old + name in self.arrays]
                    found += [self._whole(new + name, old + name) for name in here]
        return [*matrices, *vectors]

    def _whole(self, name: str, source: str) -> CutTensor:
        return self._along_first(name, [(source, 0, len(self._array(source)))])

    def _ffn(self, index: int, layer: int) -> Iterator[CutTensor]:
        """The segment of the layer's units that this shell adds, if any."""
        shell = self.shells[index]
        width = shell.ffn_width[shell.layers.index(layer)]
        if index and width in rungs(self.shells[:index], layer):
            return
        ends = rungs(self.shells, layer)
        segment = ends.index(width)
        units = range(ends[segment - 1] if segment else 0, width)
        old, new = self.plan.layers[layer], f"layers.{layer}.ffn.{segment}"
        sparse = bool(self.config.sparsity[old])
        yield self._units(f"{new}.gate", old, "gate", units, PANEL)
        yield self._units(f"{new}.up", old, "up", units, 1 if sparse else PANEL)
        if sparse:
            yield self._units(f"{new}.down", old, "down", units, 1)
        else:
            yield self._dense_down(f"{new}.down", old, units)

    def _segments(self, old: int, matrix: str, units: range) -> Iterator[tuple[str, int, range]]:
        """Stored pieces of a layer's FFN matrix that hold `units`: name, units of the segment,
        those of them that are wanted, counted from the segment's first.
        """
        start = 0
        for number, end in enumerate(rungs(self.source.shells, old)):
            first, last = max(units.start, start), min(units.stop, end)
            if first < last:
                name = f"layers.{old}.ffn.{number}.{matrix}"
                yield name, end - start, range(first - start, last - start)
            start = end

    def _units(self, name: str, old: int, matrix: str, units: range, step: int) -> CutTensor:
        """Units along the first axis of the stored array, `step` of them to an element."""
        layout = "panel" if step == PANEL else "rows"
        pieces = []
        for piece, count, wanted in self._segments(old, matrix, units):
            self._check(piece, layout, count, self.config.hidden_size)
            pieces.append((piece, wanted.start // step, wanted.stop // step))
        return self._along_first(name, pieces)

    def _dense_down(self, name: str, old: int, units: range) -> CutTensor:
        """Units along the second axis of the stored panels."""
        step = _GROUP_STEPS[kind_of(name, self.source.weights)]
        pieces = []
        for piece, count, wanted in self._segments(old, "down", units):
            self._check(piece, "panel", self.config.hidden_size, count)
            columns = slice(wanted.start // GROUP * step, wanted.stop // GROUP * step)
            pieces.append((piece, columns))
        first = self._array(pieces[0][0])
        width = sum(columns.stop - columns.start for _, columns in pieces)

        def read(start: int, end: int) -> Array:
            parts = [self._array(piece)[start:end, columns] for piece, columns in pieces]
            copied = np.concatenate(parts, axis=1)
            for piece, _ in pieces:
                self._forget(piece, start, end)
            return copied

        dtype = self.file_of[pieces[0][0]].info(pieces[0][0]).dtype
        return CutTensor(name, dtype, (len(first), width, *first.shape[2:]), read)

    def _ple(self, index: int, layers: Sequence[int]) -> CutTensor:
        """Slots of `layers`, numbered as in the source, of every token, side by side."""
        config, size = self.config, self.config.ple_dim
        kind = kind_of(f"ple.{index}", self.source.weights)
        if kind in _GROUP_BYTES and size % GROUP:
            raise CheckpointError(
                f"per-layer embeddings of {size} values share their groups of {GROUP} weights "
                f"between layers: slice the Hugging Face directory and convert the slice",
                file=str(self.source.directory),
            )
        tables = self.source.ple_tables()
        places: list[tuple[str, int]] = []  # table and slot of each layer
        for table, held in tables.items():
            self._check(table, "rows", config.ple_vocab_size, len(held) * size)
        for layer in layers:
            table = next(name for name, held in tables.items() if layer in held)
            places.append((table, tables[table].index(layer)))
        dtype, shape = stored_as(kind, "rows", config.ple_vocab_size, len(layers) * size)
        used = dict.fromkeys(table for table, _ in places)

        def read(start: int, end: int) -> Array:
            parts: list[Array] = []
            for part in _slot_parts(kind, size):
                for table, slot in places:
                    rows = self._array(table)[start:end]
                    parts.append(rows[:, part(slot, len(tables[table]))])
            filled = np.concatenate(parts, axis=1)
            padding = np.zeros((end - start, shape[1] - filled.shape[1]), filled.dtype)
            for table in used:
                self._forget(table, start, end)
            return np.concatenate([filled, padding], axis=1)

        return CutTensor(f"ple.{index}", dtype, shape, read)

    def _along_first(self, name: str, pieces: Sequence[tuple[str, int, int]]) -> CutTensor:
        """Ranges of the first axes of stored arrays, one behind the other."""
        first = self._array(pieces[0][0])
        length = sum(end - start for _, start, end in pieces)

        def read(start: int, end: int) -> Array:
            parts, place = [], 0
            for piece, low, high in pieces:
                a, b = max(start - place, 0) + low, min(end - place + low, high)
                if a < b:
                    parts.append(np.array(self._array(piece)[a:b]))
                    self._forget(piece, a, b)
                place += high - low
            return parts[0] if len(parts) == 1 else np.concatenate(parts)

        dtype = self.file_of[pieces[0][0]].info(pieces[0][0]).dtype
        return CutTensor(name, dtype, (length, *first.shape[1:]), read)

    def _array(self, name: str) -> Array:
        return self.source.array(self.arrays, name)

    def _check(self, name: str, layout: str, rows: int, cols: int) -> None:
        self._array(name)
        info = self.file_of[name].info(name)
        expected = stored_as(kind_of(name, self.source.weights), layout, rows, cols)
        if (info.dtype, info.shape) != expected:
            raise CheckpointError(
                "has the wrong type or shape",
                file=str(self.file_of[name].path), tensor=name,
                expected=str(expected), got=str((info.dtype, info.shape)),
            )  # fmt: skip

    def _forget(self, name: str, start: int, end: int) -> None:
        array = self.arrays[name]
        row = array.nbytes // max(len(array), 1)
        self.file_of[name].forget(name, start * row, end * row)


def _slot_parts(kind: str, size: int) -> tuple[Callable[[int, int], slice], ...]:
    """Where the bytes of slot i of n lie in a stored row: the values, then perhaps the scales."""
    if kind not in _GROUP_BYTES:
        return (lambda slot, count: slice(slot * size, (slot + 1) * size),)
    values, scale = (size // GROUP * each for each in _GROUP_BYTES[kind])
    return (
        lambda slot, count: slice(slot * values, (slot + 1) * values),
        lambda slot, count: slice(
            count * values + slot * scale, count * values + (slot + 1) * scale
        ),
    )


def _copies(file: SafetensorsFile) -> list[CutTensor]:
    """Every tensor of a file as it is."""

    def copy(name: str) -> CutTensor:
        info, array = file.info(name), file.array(name)
        row = array.nbytes // max(len(array), 1) if array.ndim else array.nbytes

        def read(start: int, end: int) -> Array:
            copied = np.array(array[start:end] if array.ndim else array)
            file.forget(name, start * row, end * row)
            return copied

        return CutTensor(name, info.dtype, info.shape, read)

    return [copy(name) for name in file.tensors]
