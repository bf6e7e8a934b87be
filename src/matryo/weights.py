"""Packed arrays -> typed weights, checked; nothing is computed.

In: a `TextConfig`, a mapping from the tensor names of docs/architecture.md section 3 to arrays
(usually read-only views of a mapped file), and the plans of the shells at hand, smallest first.
Out: `TextWeights`. The kind of a matrix (f32, bf16, q8, q4) follows from the dtype and shape of its
array; a tensor of the wrong dtype or shape is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.config import GROUP, NUM_STREAMS, TextConfig
from matryo.errors import CheckpointError, PlanError
from matryo.kernels.layer import MATRICES, OWNER_ONLY, VECTORS, Layer, Matrix, Segment
from matryo.plan import Plan
from matryo.plan import rungs as rungs

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
MakeMatrix = Callable[[str, str, int, int, Array], Matrix]
PANEL = 16
_PANEL_BYTES = {"q8": 544, "q4": 288}  # of one panel of 16 rows and one group of 32 columns


@dataclass(frozen=True, slots=True, eq=False)
class PleTable:
    """Per-layer embedding rows of one shell: matrix (V_ple, n·P), slot i belonging to layers[i]."""

    matrix: Matrix
    layers: tuple[int, ...]
    name: str


def keep(name: str) -> None:
    """Tensors in this process's own memory are not given back."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TextWeights:
    """All weights at hand. `layers[l]` is None if no shell at hand has layer l.

    `forget(name)` tells the system that a mapped tensor is not needed in memory now.
    """

    embed: Matrix  # (V, d), also the output head
    ple: tuple[PleTable, ...]
    ple_projection_norm: F32  # (P)
    altup_projection: tuple[Matrix, ...]  # A-1 of (d, d)
    altup_unembed: tuple[Matrix, ...]  # A-1 of (d, d)
    final_norm: F32  # (d)
    layers: tuple[Layer | None, ...]
    multimodal: F32 | None  # (V - V_ple, d), unscaled; None in text-only checkpoints
    forget: Callable[[str], None] = keep

    def check(self, plan: Plan) -> None:
        """Raises PlanError if the plan needs layers or FFN units of a shell that is not at hand."""
        for number, width in zip(plan.layers, plan.ffn_width, strict=True):
            layer = self.layers[number]
            here = 0 if layer is None else layer.num_units
            if width > here:
                raise PlanError(
                    f"the plan needs {width} FFN units of layer {number}, {here} are here: "
                    "the file of an outer shell is missing. Add it, or choose a smaller plan"
                )


def build_weights(
    config: TextConfig,
    tensors: Mapping[str, Array],
    shells: Sequence[Plan],
    make_matrix: MakeMatrix,
    forget: Callable[[str], None] = keep,
) -> TextWeights:
    """Checks and wraps the packed tensors.

    `make_matrix(kind, layout, rows, cols, data)` is `kernels.Matrix`; `forget(name)` as in
    `TextWeights`.
    Raises CheckpointError naming the tensor that is missing or has the wrong dtype or shape.
    """
    reader = MatrixReader(tensors, make_matrix)
    width = config.hidden_size
    others = range(NUM_STREAMS - 1)
    return TextWeights(
        embed=reader.panel("embed", config.vocab_size, width),
        ple=_ple_tables(reader, config, shells),
        ple_projection_norm=reader.vector("ple_projection_norm", (config.ple_dim,)),
        altup_projection=tuple(reader.panel(f"altup_projection.{i}", width, width) for i in others),
        altup_unembed=tuple(reader.panel(f"altup_unembed.{i}", width, width) for i in others),
        final_norm=reader.vector("final_norm", (width,)),
        layers=_layers(reader, config, shells),
        multimodal=_multimodal(reader, config),
        forget=forget,
    )


class TensorReader:
    """Looks tensors up by name and checks them."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = tensors

    def has(self, name: str) -> bool:
        return name in self._tensors

    def array(self, name: str) -> Array:
        try:
            return self._tensors[name]
        except KeyError:
            raise CheckpointError(f"tensor {name} is missing from the packed checkpoint") from None

    def vector(self, name: str, shape: tuple[int, ...]) -> F32:
        array = self.array(name)
        if array.dtype != np.float32 or array.shape != shape:
            raise CheckpointError(
                f"tensor {name}: expected float32 {shape}, got {array.dtype} {array.shape}"
            )
        return array


class MatrixReader(TensorReader):
    """Makes matrices of stored ones. `make_matrix` is `kernels.Matrix`."""

    def __init__(self, tensors: Mapping[str, Array], make_matrix: MakeMatrix) -> None:
        super().__init__(tensors)
        self._make_matrix = make_matrix

    def panel(self, name: str, rows: int, cols: int) -> Matrix:
        array = self.array(name)
        kind = panel_kind(array, rows, cols)
        if kind is None:
            raise CheckpointError(_misshapen(name, "panel", rows, cols, array))
        return self._make_matrix(kind, "panel", rows, cols, array)

    def rows(self, name: str, rows: int, cols: int) -> Matrix:
        array = self.array(name)
        kind = _rows_kind(array, rows, cols)
        if kind is None:
            raise CheckpointError(_misshapen(name, "rows", rows, cols, array))
        return self._make_matrix(kind, "rows", rows, cols, array)


def panel_kind(array: Array, rows: int, cols: int) -> str | None:
    """The kind whose panel layout of (rows, cols) this array has."""
    panels, groups = -(-rows // PANEL), -(-cols // GROUP)
    shapes: dict[tuple[str, tuple[int, ...]], str] = {
        ("float32", (panels, groups * GROUP, PANEL)): "f32",
        ("uint16", (panels, groups * GROUP // 2, PANEL, 2)): "bf16",
    }
    for kind, size in _PANEL_BYTES.items():
        shapes["uint8", (panels, groups, size)] = kind
    return shapes.get((array.dtype.name, array.shape))


def _rows_kind(array: Array, rows: int, cols: int) -> str | None:
    """The kind whose rows layout of (rows, cols) this array has."""
    padded = -(-cols // GROUP) * GROUP
    scales = padded // 16  # bytes: a bf16 scale a group
    shapes: dict[tuple[str, tuple[int, ...]], str] = {
        ("float32", (rows, padded)): "f32",
        ("uint16", (rows, padded)): "bf16",
        ("uint8", (rows, padded + scales)): "q8",
        ("uint8", (rows, padded // 2 + scales)): "q4",
    }
    return shapes.get((array.dtype.name, array.shape))


def _misshapen(name: str, layout: str, rows: int, cols: int, array: Array) -> str:
    return (
        f"tensor {name}: expected a {layout} matrix of {rows} x {cols} as f32, bf16, q8 or q4, "
        f"got {array.dtype} {array.shape}"
    )


def _ple_tables(
    reader: MatrixReader, config: TextConfig, shells: Sequence[Plan]
) -> tuple[PleTable, ...]:
    tables, seen = [], frozenset[int]()
    for number, shell in enumerate(shells):
        added = tuple(layer for layer in shell.layers if layer not in seen)
        if added:
            cols, name = len(added) * config.ple_dim, f"ple.{number}"
            tables.append(PleTable(reader.rows(name, config.ple_vocab_size, cols), added, name))
        seen = seen.union(added)
    return tuple(tables)


def _multimodal(reader: MatrixReader, config: TextConfig) -> F32 | None:
    if not reader.has("multimodal"):
        return None
    return reader.vector(
        "multimodal", (config.vocab_size - config.ple_vocab_size, config.hidden_size)
    )


def _layers(
    reader: MatrixReader, config: TextConfig, shells: Sequence[Plan]
) -> tuple[Layer | None, ...]:
    here = {layer for shell in shells for layer in shell.layers}
    return tuple(
        _layer(reader, config, n, shells) if n in here else None for n in range(config.num_layers)
    )


def _layer(reader: MatrixReader, config: TextConfig, number: int, shells: Sequence[Plan]) -> Layer:
    prefix = f"layers.{number}."
    owner = number < config.num_owners
    vectors = {
        name: reader.vector(prefix + name, shape) if owner or name not in OWNER_ONLY else None
        for name, shape in _vector_shapes(config).items()
    }
    matrices = {
        name: reader.panel(prefix + name, *size) if owner or name not in OWNER_ONLY else None
        for name, size in _matrix_sizes(config).items()
    }
    weights: dict[str, Any] = {**vectors, **matrices}
    return Layer(
        **weights,
        segments=_segments(reader, config, number, shells),
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        eps=config.eps,
        sparsity_z=config.sparsity_z[number],
    )


def _vector_shapes(config: TextConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys(VECTORS, (config.hidden_size,))
    shapes["router"] = (NUM_STREAMS, config.hidden_size)
    shapes["prediction_coefs"] = (NUM_STREAMS**2, NUM_STREAMS)
    shapes["correction_coefs"] = (NUM_STREAMS, NUM_STREAMS)
    shapes["q_norm"] = shapes["k_norm"] = (config.head_dim,)
    return shapes


def _matrix_sizes(config: TextConfig) -> dict[str, tuple[int, int]]:
    width, ple = config.hidden_size, config.ple_dim
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    sizes = {
        "q": (queries, width), "k": (keys, width), "v": (keys, width), "o": (width, queries),
        "laurel_left": (config.laurel_rank, width), "laurel_right": (width, config.laurel_rank),
        "ple_gate": (ple, width), "ple_projection": (width, ple),
        "ple_model_projection": (ple, width),
    }  # fmt: skip
    return {name: sizes[name] for name in MATRICES}


def _segments(
    reader: MatrixReader, config: TextConfig, number: int, shells: Sequence[Plan]
) -> tuple[Segment, ...]:
    """One segment for every step in width from shell to shell."""
    segments, width, done = [], config.hidden_size, 0
    for index, end in enumerate(rungs(shells, number)):
        prefix, units = f"layers.{number}.ffn.{index}.", end - done
        gate = reader.panel(prefix + "gate", units, width)
        if config.sparsity[number]:
            up = reader.rows(prefix + "up", units, width)
            down = reader.rows(prefix + "down", units, width)
        else:
            up = reader.panel(prefix + "up", units, width)
            down = reader.panel(prefix + "down", width, units)
        segments.append(Segment(gate, up, down))
        done = end
    return tuple(segments)
