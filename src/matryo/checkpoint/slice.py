"""`matryo slice`: any plan cut out of a Hugging Face checkpoint, as an ordinary Hugging Face
checkpoint.

In: a checkpoint directory, a plan. Out: a directory that other programs load: kept layers
renumbered, the first units of each FFN, the per-layer slots of the kept layers, everything else as
it was, bit for bit; towers for images and sound are copied. Written in pieces of bounded size; it
can be stopped at any moment and continued. config.json is written last.
Recipe: arXiv 2310.07707 (MatFormer) and the published E2B, which is such a slice of E4B.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.atomic import replace_text
from matryo.checkpoint.beside import CONFIG, TEXT_FILES, copy_beside
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.safetensors import DTYPES
from matryo.checkpoint.text_tensors import FFN_MATRICES
from matryo.checkpoint.writing import (
    Progress,
    own_directory,
    part_of,
    unfinished,
    write_tensors,
)
from matryo.config import FULL, SLIDING, TextConfig
from matryo.plan import Plan

Array = npt.NDArray[Any]

SHARD_BYTES = 4 << 30
BLOCK_BYTES = 32 << 20  # copied at a time
METADATA = {"format": "pt"}  # what transformers asks of a file
_PLE_TABLE, _PLE_PROJECTION = (
    "embed_tokens_per_layer.weight",
    "per_layer_model_projection.weight",
)


@dataclass(frozen=True, slots=True)
class CutTensor:
    """One tensor of the slice.

    `read` gives its rows [first, last) and lets go of the source's pages.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[int, int], Array]

    @property
    def stored(self) -> tuple[str, tuple[int, ...]]:
        """Safetensors dtype and shape."""
        return self.dtype, self.shape

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    def blocks(self, first: int = 0) -> Iterator[Array]:
        """The bytes from block number `first` on, in consecutive pieces along the first axis."""
        rows = self.shape[0] if self.shape else 1
        step = max(1, BLOCK_BYTES * rows // max(self.num_bytes, 1))
        for start in range(first * step, rows, step):
            yield self.read(start, min(start + step, rows))


def slice_checkpoint(
    source: HuggingFaceSource, plan: Plan, target: Path, *, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Writes `plan` of `source` into `target`, or finishes what an earlier call began; returns the
    files of weights.

    progress: called with (bytes done, bytes in all, tensor)
    Raises PlanError if the checkpoint cannot run the plan, CheckpointError if the target holds
    something else or another process writes it, CapacityError if the disk is full.
    """
    plan.check(source.config)
    tensors = cut_tensors(source, plan)
    total = sum(tensor.num_bytes for tensor in tensors)
    parts = ["slice", source.identity, plan.to_json(), SHARD_BYTES]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    with own_directory(target, wait=False), unfinished(target, key, total):
        shards = _shards(tensors)
        done = 0
        for name, shard in shards.items():
            write_tensors(target / name, shard, METADATA, part_of(progress, done, total))
            done += sum(tensor.num_bytes for tensor in shard)
        copy_beside(source.directory, target, TEXT_FILES)
        if len(shards) > 1:
            replace_text(target / "model.safetensors.index.json", _index(shards, total))
        document = json.loads((source.directory / CONFIG).read_text(encoding="utf-8"))
        replace_text(
            target / CONFIG,
            json.dumps(sliced_config(document, source.config, plan), indent=2) + "\n",
        )
    return tuple(target / name for name in shards)


def cut_tensors(source: HuggingFaceSource, plan: Plan) -> list[CutTensor]:
    """Every tensor of the slice, in the order of the source's files."""
    cutter = _Cutter(source, plan)
    return [
        tensor
        for full, name in source.stored_names()
        if (tensor := cutter.cut(full, name)) is not None
    ]


def sliced_config(document: Mapping[str, Any], config: TextConfig, plan: Plan) -> dict[str, Any]:
    """config.json of the slice: the source's own, with what the plan changes."""
    readers = len(plan.layers) - len(plan.owners)
    changes = {
        "num_hidden_layers": len(plan.layers),
        "num_kv_shared_layers": readers,
        "intermediate_size": list(plan.ffn_width),
        "layer_types": [SLIDING if config.window[layer] else FULL for layer in plan.layers],
        "activation_sparsity_pattern": [config.sparsity[layer] for layer in plan.layers],
    }
    if "text_config" in document:
        return {**document, "text_config": {**document["text_config"], **changes}}
    return {**document, **changes}


class _Cutter:
    """What is left of each tensor of a checkpoint under one plan."""

    def __init__(self, source: HuggingFaceSource, plan: Plan) -> None:
        self.source = source
        self.place = {layer: place for place, layer in enumerate(plan.layers)}
        self.width = dict(zip(plan.layers, plan.ffn_width, strict=True))
        size = source.config.ple_dim
        self.slots = np.concatenate(
            [np.arange(layer * size, (layer + 1) * size) for layer in plan.layers]
        )

    def cut(self, full: str, name: str | None) -> CutTensor | None:
        """The slice's tensor; None if it belongs to a layer that is left out.

        `name`: the canonical one of a text tensor.
        """
        if name == _PLE_TABLE:
            return self._tensor(full, full, cols=self.slots)
        if name == _PLE_PROJECTION:
            return self._tensor(full, full, rows=self.slots)
        if name is None or not name.startswith("layers."):
            return self._tensor(full, full)
        _, number, rest = name.split(".", 2)
        layer = int(number)
        if layer not in self.place:
            return None
        renamed = f"{self.source.prefix}layers.{self.place[layer]}.{rest}"
        units = np.arange(self.width[layer])
        if rest in (FFN_MATRICES["gate"], FFN_MATRICES["up"]):
            return self._tensor(full, renamed, rows=units)
        if rest == FFN_MATRICES["down"]:
            return self._tensor(full, renamed, cols=units)
        return self._tensor(full, renamed)

    def _tensor(
        self,
        full: str,
        renamed: str,
        rows: npt.NDArray[np.intp] | None = None,
        cols: npt.NDArray[np.intp] | None = None,
    ) -> CutTensor:
        """Rows and columns, ascending, of a stored tensor; None = all of them."""
        whole = self.source.bits(full)
        shape = list(whole.shape)
        if rows is not None:
            shape[0] = len(rows)
        if cols is not None:
            shape[1] = len(cols)

        def read(first: int, last: int) -> Array:
            if not whole.ndim:
                return whole.copy()
            start, end = (
                (first, last) if rows is None else (int(rows[first]), int(rows[last - 1]) + 1)
            )
            part = whole[start:end] if rows is None else whole[rows[first:last]]
            copied = np.array(part if cols is None else part[:, cols])
            self.source.forget_other(full, slice(start, end))
            return copied

        return CutTensor(renamed, self.source.file_of(full).info(full).dtype, tuple(shape), read)


def _shards(tensors: Sequence[CutTensor]) -> dict[str, list[CutTensor]]:
    """File name -> its tensors, as many as fit into SHARD_BYTES."""
    shards: list[list[CutTensor]] = [[]]
    used = 0
    for tensor in tensors:
        if shards[-1] and used + tensor.num_bytes > SHARD_BYTES:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += tensor.num_bytes
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {
        f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard
        for i, shard in enumerate(shards, 1)
    }


def _index(shards: Mapping[str, Sequence[CutTensor]], total: int) -> str:
    where = {tensor.name: name for name, shard in shards.items() for tensor in shard}
    return json.dumps({"metadata": {"total_size": total}, "weight_map": where}, indent=2) + "\n"
