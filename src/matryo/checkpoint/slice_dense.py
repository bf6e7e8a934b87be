"""`matryo slice` of an elastic dense decoder: one width, as an ordinary Hugging Face checkpoint.

In: a directory that `matryo elasticize` wrote (or any of the same families) and a width. Out: a
directory in which every FFN has its first units alone; everything else as it was, bit for bit.
Written in pieces of bounded size; it can be stopped at any moment and continued. config.json is
written last. Our engine runs Gemma 3n only: what comes out is for transformers and what reads its
files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.atomic import UNFINISHED, replace_text
from matryo.checkpoint.beside import CONFIG, PLANS, TEXT_FILES, copy_beside
from matryo.checkpoint.safetensors import DTYPES, SafetensorsFile
from matryo.checkpoint.writing import Progress, own_directory, part_of, unfinished, write_tensors
from matryo.config import GROUP
from matryo.errors import CheckpointError, PlanError

Array = npt.NDArray[Any]

BLOCK_BYTES = 32 << 20  # copied at a time
_WIDTH = "intermediate_size"
_ROWS = (".mlp.gate_proj.weight", ".mlp.up_proj.weight", ".mlp.gate_proj.bias", ".mlp.up_proj.bias")
_COLUMNS = (".mlp.down_proj.weight",)
_INDEX = "model.safetensors.index.json"


def is_dense(directory: Path) -> bool:
    """True if config.json is there and of another architecture than Gemma 3n."""
    if not (directory / CONFIG).is_file():
        return False
    kind = _object(directory / CONFIG).get("model_type")
    return isinstance(kind, str) and not kind.startswith("gemma3n")


@dataclass(frozen=True, slots=True)
class DenseCheckpoint:
    """An open directory. Raises CheckpointError if it is none."""

    directory: Path
    config: Mapping[str, Any]
    files: tuple[SafetensorsFile, ...]

    @classmethod
    def open(cls, directory: Path) -> DenseCheckpoint:
        """Reads config.json and the headers."""
        if (directory / UNFINISHED).exists():
            raise CheckpointError("is unfinished: run the command again", file=str(directory))
        config = _object(directory / CONFIG)
        index = directory / _INDEX
        if index.exists():
            places = _object(index).get("weight_map")
            names = sorted(set(places.values())) if isinstance(places, dict) else []
            if not names or any(Path(str(name)).name != name for name in names):
                raise CheckpointError("expected file names in weight_map", file=str(index))
        else:
            names = ["model.safetensors"]
        return cls(directory, config, tuple(SafetensorsFile(directory / name) for name in names))

    @property
    def text(self) -> Mapping[str, Any]:
        """The decoder's part of config.json."""
        inner = self.config.get("text_config", self.config)
        return inner if isinstance(inner, dict) else {}

    @property
    def width(self) -> int:
        """Units of every FFN. Raises CheckpointError if config.json does not say one number."""
        width = self.text.get(_WIDTH)
        if type(width) is not int or width < 1:
            raise CheckpointError(
                "expected one number", file=str(self.directory / CONFIG), tensor=_WIDTH,
                got=str(width)[:80],
            )  # fmt: skip
        return width

    def widths(self) -> dict[str, int]:
        """The widths of plans.json by name. Raises CheckpointError if there are none."""
        path = self.directory / PLANS
        if not path.exists():
            raise CheckpointError(
                "no plans.json: it was not made elastic; run `matryo elasticize` first",
                file=str(self.directory),
            )
        found = {}
        for name, plan in _object(path).items():
            widths = plan.get("ffn_width") if isinstance(plan, dict) else None
            values = widths if isinstance(widths, list) else [widths]
            if len(set(values)) != 1 or type(values[0]) is not int:
                raise CheckpointError(
                    f"plan {name!r} has no width that all layers share", file=str(path)
                )
            found[name] = values[0]
        return found


def find_width(checkpoint: DenseCheckpoint, wanted: str) -> int:
    """A width by its name in plans.json, or as a number of units.

    Raises PlanError if there is none, or the model is narrower.
    """
    widths = checkpoint.widths()
    width = int(wanted) if wanted.isdigit() and len(wanted) < 9 else widths.get(wanted)
    if width is None:
        raise PlanError(f"no width named {wanted!r}; there are {', '.join(widths)}, or give units")
    if not GROUP <= width <= checkpoint.width or (width % GROUP and width != checkpoint.width):
        raise PlanError(
            f"{width} FFN units: expected a multiple of {GROUP} up to the {checkpoint.width} of "
            "the model"
        )
    return width


def slice_dense(
    checkpoint: DenseCheckpoint, width: int, target: Path, *, progress: Progress | None = None
) -> tuple[Path, ...]:
    """Writes the model at `width` into `target`, or finishes what an earlier call began.

    Raises CheckpointError if a tensor does not fit config.json or the target holds something else,
    CapacityError if the disk is full.
    """
    shards = {
        file.path.name: [_cut(file, name, checkpoint.width, width) for name in file.tensors]
        for file in checkpoint.files
    }
    total = sum(tensor.num_bytes for shard in shards.values() for tensor in shard)
    identity = [file.header_sha256 for file in checkpoint.files]
    parts = ["slice dense", str(checkpoint.directory.resolve()), identity, width]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    with own_directory(target, wait=False), unfinished(target, key, total):
        done = 0
        for name, shard in shards.items():
            write_tensors(target / name, shard, {"format": "pt"}, part_of(progress, done, total))
            done += sum(tensor.num_bytes for tensor in shard)
        copy_beside(checkpoint.directory, target, TEXT_FILES)
        if len(shards) > 1:
            document = _object(checkpoint.directory / _INDEX)
            metadata = {**document.get("metadata", {}), "total_size": total}
            text = json.dumps({**document, "metadata": metadata}, indent=2)
            replace_text(target / _INDEX, text + "\n")
        document = dict(checkpoint.config)
        if "text_config" in document:
            document["text_config"] = {**document["text_config"], _WIDTH: width}
        else:
            document[_WIDTH] = width
        replace_text(target / CONFIG, json.dumps(document, indent=2) + "\n")
    return tuple(target / name for name in shards)


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One tensor of the slice: the first `shape` of a stored one."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    whole: Callable[[], Array]

    @property
    def stored(self) -> tuple[str, tuple[int, ...]]:
        return self.dtype, self.shape

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    def blocks(self, first: int = 0) -> Iterator[Array]:
        """The bytes from block number `first` on, in consecutive pieces along the first axis."""
        part = self.whole()[tuple(slice(size) for size in self.shape)]
        rows = self.shape[0] if self.shape else 1
        step = max(1, BLOCK_BYTES * rows // max(self.num_bytes, 1))
        for start in range(first * step, rows, step):
            yield np.array(part[start : start + step] if self.shape else part)


def _cut(file: SafetensorsFile, name: str, full: int, width: int) -> _Tensor:
    info = file.info(name)
    shape = list(info.shape)
    axis = 0 if name.endswith(_ROWS) else 1 if name.endswith(_COLUMNS) else None
    if axis is not None:
        if len(shape) <= axis or shape[axis] != full:
            raise CheckpointError(
                "is no FFN of this width", file=str(file.path), tensor=name, expected=str(full),
                got=str(info.shape),
            )  # fmt: skip
        shape[axis] = width
    return _Tensor(name, info.dtype, tuple(shape), lambda: file.array(name))


def _object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", file=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError("is not a JSON document", file=str(path)) from error
    if not isinstance(document, dict):
        raise CheckpointError("expected an object", file=str(path))
    return document
