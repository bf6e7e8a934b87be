"""The encoders of a packed directory as the tensors of a Hugging Face one.

In: an open packed model with the files of its towers. Out: their tensors in float32, under the
checkpoint's names, and the embedders'. Three of them were not packed as they are but as what is
computed from them, and are solved for: the scale of queries, the projection of positions (at the
distances that attention reaches, which is all that is ever read), and the rows of hard ids (with a
norm of 1; an encoder narrower than the language model gives them as exactly as its projection was
rounded).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.checkpoint import audio_pack, vision_pack
from matryo.checkpoint.beside import CONFIG
from matryo.checkpoint.packed import PackedModel
from matryo.checkpoint.slice import CutTensor
from matryo.checkpoint.tower_source import PREFIXES
from matryo.checkpoint.towers import EMBEDDER_NORM, EMBEDDER_PROJECTION, PROJECTION_KIND, TOWERS
from matryo.kernels.reference_dense import DenseMatrix, dense_weights
from matryo.kernels.reference_pack import bf16_values
from matryo.quantize import unpack
from matryo.tower_config import AudioConfig

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]


def tower_tensors(source: PackedModel) -> list[CutTensor]:
    """Tensors of encoders and embedders. Raises CheckpointError naming one that is missing."""
    config, hard = source.tower_config, _HardRows(source)
    found: list[CutTensor] = []
    for tower in source.towers:
        arrays = source.tower_tensors(tower)
        norm = source.array(arrays, EMBEDDER_NORM)
        stored = source.array(arrays, EMBEDDER_PROJECTION)
        kind, shape = PROJECTION_KIND[source.weights], (source.config.hidden_size, len(norm))
        projection = unpack(kind, "panel", *shape, stored)
        embedder = {
            "embedding.weight": hard.rows(tower, projection),
            "hard_embedding_norm.weight": np.ones_like(norm),
            "soft_embedding_norm.weight": norm,
            "embedding_projection.weight": projection,
        }
        encoder = {n: a for n, a in arrays.items() if not n.startswith("embedder.")}
        if tower == "audio" and config.audio is not None:
            named = _audio(source, encoder, config.audio)
        else:
            named = _vision(encoder)
        found += [_tensor(PREFIXES[tower] + name, dense) for name, dense in named]
        prefix = PREFIXES[f"embed_{tower}"]
        found += [_tensor(prefix + name, dense) for name, dense in embedder.items()]
    return found


class _HardRows:
    """The table of ids above the text vocabulary: those of pictures, then those of sounds."""

    def __init__(self, source: PackedModel) -> None:
        self.source = source
        self.table = source.array(source.tensors(), "multimodal")
        document = json.loads((source.directory / CONFIG).read_text(encoding="utf-8"))
        self.counts = {tower: int(document[f"{tower}_config"]["vocab_size"]) for tower in TOWERS}

    def rows(self, tower: str, projection: F32) -> F32:
        """Rows (n, C) that the embedder brings to those of the table: rms(W · rms(row))."""
        first = 0 if tower == TOWERS[0] else self.counts[TOWERS[0]]
        wanted = self.table[first : first + self.counts[tower]].astype(np.float64)
        rows = wanted @ np.linalg.pinv(projection.astype(np.float64)).T
        return _float32(rows)


def _vision(arrays: Mapping[str, Array]) -> Iterator[tuple[str, F32]]:
    parts: dict[str, set[str]] = {}
    for ours in arrays:
        block, _, part = ours.rpartition(".")
        parts.setdefault(block, set()).add(part)
    for ours, stored in arrays.items():
        if ours.endswith(".scales"):
            continue
        block, _, part = ours.rpartition(".")
        expand = arrays.get(f"{block}.expand")
        wide = expand is not None and expand.shape[1] > 1
        name = vision_pack.checkpoint_name(ours, parts[block], wide)
        yield name, _channels_first(part, _filter(stored, arrays.get(f"{ours}.scales")))


def _filter(stored: Array, scales: Array | None) -> F32:
    if scales is not None:
        return _float32(stored * scales.reshape(-1, *[1] * (stored.ndim - 1)))
    return bf16_values(stored) if stored.dtype == np.uint16 else _float32(stored)


def _channels_first(part: str, dense: F32) -> F32:
    """(Co, kh, kw, Ci) -> (Co, Ci, kh, kw); depthwise (k, k, C) -> (C, 1, k, k)."""
    if part in vision_pack.DEPTHWISE:
        return dense.transpose(2, 0, 1)[:, None]
    return dense.transpose(0, 3, 1, 2) if dense.ndim == 4 else dense


def _audio(
    source: PackedModel, arrays: Mapping[str, Array], config: AudioConfig
) -> Iterator[tuple[str, F32]]:
    """In the order of the checkpoint's names."""
    kind, taps = audio_pack.MATRIX_KINDS[source.weights], audio_pack.TAPS
    ours_of = {theirs: ours for ours, theirs in (audio_pack.MATRICES | audio_pack.NORMS).items()}

    def stored(name: str) -> Array:
        return source.array(arrays, name)

    def matrix(name: str, shape: tuple[int, ...], kind: str = kind) -> F32:
        rows, cols = shape
        return dense_weights(DenseMatrix(kind, rows, cols, stored(name)))

    for name, shape in audio_pack.audio_shapes(config).items():
        if name == f"{audio_pack.STEM}input_proj_linear.weight":
            yield name, matrix("input", shape)
        elif name.startswith(audio_pack.STEM):
            conv, part, _ = name.removeprefix(audio_pack.STEM).split(".")
            ours = f"stem.{conv.removeprefix('conv_')}."
            if part == "norm":
                yield name, stored(f"{ours}norm")
            else:
                channels, inside = shape[:2]
                rows = matrix(f"{ours}filter", (channels, taps * taps * inside), "f32")
                yield name, rows.reshape(channels, taps, taps, inside).transpose(0, 3, 1, 2)
        else:
            _, layer, rest = name.split(".", 2)
            block = f"blocks.{layer}."
            if rest == audio_pack.QUERY_SCALE:
                yield name, _per_dim_scale(stored(f"{block}attention.query_scale"))
            elif rest == audio_pack.POSITION:
                yield name, _position_projection(stored(f"{block}attention.position"), shape[1])
            elif rest == audio_pack.DEPTHWISE:
                yield name, stored(f"{block}conv.taps").T[:, None]
            elif rest in audio_pack.MATRICES.values():
                yield name, matrix(block + ours_of[rest], shape)
            else:
                yield name, stored(block + ours_of[rest])


def _per_dim_scale(query_scale: Array) -> F32:
    """The inverse of softplus(x) / ln 2 / sqrt(Dh)."""
    softplus = query_scale.astype(np.float64) * math.log(2.0) * math.sqrt(len(query_scale))
    return _float32(softplus + np.log(-np.expm1(-softplus)))


def _position_projection(rows: Array, width: int) -> F32:
    """The smallest projection (d, width) of the position signal that gives these rows."""
    signal = audio_pack.position_signal(width, len(rows) - 1)
    return _float32((np.linalg.pinv(signal) @ rows.astype(np.float64)).T)


def _float32(values: npt.NDArray[Any]) -> F32:
    return np.ascontiguousarray(values, np.float32)


def _tensor(name: str, dense: F32) -> CutTensor:
    dense = _float32(dense)
    return CutTensor(f"model.{name}", "F32", dense.shape, lambda first, last: dense[first:last])
