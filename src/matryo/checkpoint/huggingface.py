"""A Hugging Face directory of Gemma 3n weights as named float32 blocks.

In: a directory with `config.json` and `model.safetensors`, alone or sharded with an index;
text-only or multimodal; bf16, f16 or f32. Out: `HuggingFaceSource`, which gives row ranges of text
tensors by canonical name (`text_tensors`). Names and shapes are checked before anything is read;
only JSON and safetensors are ever parsed, so a checkpoint cannot run code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.atomic import UNFINISHED
from matryo.checkpoint.safetensors import SafetensorsFile
from matryo.checkpoint.text_tensors import dead_names, text_shapes
from matryo.config import TextConfig
from matryo.errors import CheckpointError
from matryo.tower_config import TowerConfig

F32 = npt.NDArray[np.float32]

_FLOATS = ("BF16", "F16", "F32")
_TEXT_PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.", "")
_OTHER_TOWERS = (
    "vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.", "multi_modal_projector.",
)  # fmt: skip
_MAX_INDEX_BYTES = 64 << 20
_ROWS_COMPARED = 4096
_LARGEST_WEIGHT = 1e37  # a tenth of what bfloat16 and float32 hold


class HuggingFaceSource:
    """An open checkpoint directory.

    Raises CheckpointError for anything missing, misshapen, unknown or unreadable.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if (directory / UNFINISHED).exists():
            raise CheckpointError(
                "is unfinished: run the command that was writing it again", file=str(directory)
            )
        self.config = TextConfig.from_file(directory / "config.json")
        self.files = tuple(SafetensorsFile(path) for path in _weight_files(directory))
        self._where = _locate(directory, self.files)
        self.prefix = prefix = _text_prefix(self._where)
        self.shapes = text_shapes(self.config)
        self._names = {name: prefix + name for name in self.shapes}
        self._dead = dead_names(self.config)
        self.others = self._classify(prefix)
        for name, shape in self.shapes.items():
            self._check(name, shape)

    @cached_property
    def towers(self) -> TowerConfig:
        """What config.json says of the encoders. Raises ConfigError if it cannot be used."""
        return TowerConfig.from_file(self.directory / "config.json")

    @property
    def identity(self) -> str:
        """A hash of the config and of the files' headers, sizes and times."""
        parts: list[Any] = [
            hashlib.sha256((self.directory / "config.json").read_bytes()).hexdigest()
        ]
        for file in self.files:
            parts.append(
                (file.path.name, file.num_bytes, file.path.stat().st_mtime_ns, file.header_sha256)
            )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def read(self, name: str, rows: slice = slice(None)) -> F32:
        """Rows of text tensor `name` as float32, copied; a vector counts as rows of one value.

        Raises CheckpointError naming tensor, row and column if a value is not finite.
        """
        return self.read_other(self._names[name], rows)

    def read_block(self, name: str, rows: slice, cols: slice) -> F32:
        """Rows and columns of a text matrix as float32, copied. Raises as `read`."""
        full = self._names[name]
        values = _float32(self._where[full].info(full).dtype, self.bits(full, rows, cols))
        self._check_numbers(full, values, rows.start or 0, cols.start or 0)
        return values

    def forget(self, name: str, rows: slice = slice(None)) -> None:
        """Lets the system drop the pages of rows already read."""
        self.forget_other(self._names[name], rows)

    def read_other(self, full_name: str, rows: slice = slice(None)) -> F32:
        """As `read`, by the name in the file (for tensors outside the language model)."""
        file = self._where[full_name]
        dtype = file.info(full_name).dtype
        if dtype not in _FLOATS:
            raise self._wrong("wrong dtype", full_name, " or ".join(_FLOATS), dtype)
        values = _float32(dtype, file.array(full_name)[rows])
        self._check_numbers(full_name, values, rows.start or 0, 0)
        return values

    def bits(
        self, full_name: str, rows: slice = slice(None), cols: slice = slice(None)
    ) -> npt.NDArray[Any]:
        """A view of a part of any tensor as it is stored; copy it before `forget_other`."""
        array = self._where[full_name].array(full_name)
        return array[(rows, cols)[: array.ndim]]

    def forget_other(self, full_name: str, rows: slice = slice(None)) -> None:
        """As `forget`, by the name in the file."""
        file = self._where[full_name]
        shape = file.info(full_name).shape
        if not shape or not shape[0]:
            return
        row_bytes = (file.info(full_name).end - file.info(full_name).start) // shape[0]
        first, last, _ = rows.indices(shape[0])
        file.forget(full_name, first * row_bytes, last * row_bytes)

    def file_of(self, full_name: str) -> SafetensorsFile:
        """The file that holds a tensor, by its name in the file."""
        return self._where[full_name]

    def stored_names(self) -> Iterable[tuple[str, str | None]]:
        """Every tensor that is stored: its name in the file, and the canonical one if it is a text
        tensor.

        K/V of reader layers are among the text tensors, a copy of the embedding as output head is
        left out.
        """
        others = set(self.others)
        for full in self._where:
            name = full.removeprefix(self.prefix)
            if full in others:
                yield full, None
            elif name in self.shapes or name in self._dead:
                yield full, name

    def _classify(self, prefix: str) -> tuple[str, ...]:
        """Names outside the language model.

        Raises CheckpointError for a text tensor nobody knows.
        """
        known = set(self._names.values())
        dead = {prefix + name for name in self._dead}
        others = []
        for name in self._where:
            if name in known or name in dead:
                continue
            if any(tower in name for tower in _OTHER_TOWERS):
                others.append(name)
            elif name.endswith("lm_head.weight"):
                self._check_tied(name)
            else:
                raise CheckpointError(
                    "unknown tensor: it may change the arithmetic, so it is not ignored",
                    file=str(self._where[name].path), tensor=name,
                )  # fmt: skip
        return tuple(others)

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        full = self._names[name]
        if full not in self._where:
            raise CheckpointError(
                "tensor is missing", file=str(self.directory), tensor=full, expected=str(shape)
            )
        info = self._where[full].info(full)
        if info.shape != shape:
            raise self._wrong("wrong shape", full, str(shape), str(info.shape))
        if info.dtype not in _FLOATS:
            raise self._wrong("wrong dtype", full, " or ".join(_FLOATS), info.dtype)

    def _check_numbers(self, full: str, values: F32, first_row: int, first_col: int) -> None:
        """Infinities, NaN, and what would become one when it is rounded or summed."""
        usable = np.abs(values) <= _LARGEST_WEIGHT
        if usable.all():
            return
        row, *col = (int(index) for index in np.argwhere(~usable)[0])
        place = f"row {first_row + row}" + "".join(f", column {first_col + index}" for index in col)
        value = float(values[(row, *col)])
        problem = "is not a weight" if np.isfinite(value) else "is not finite"
        expected = f"numbers up to {_LARGEST_WEIGHT:g}"
        raise self._wrong(
            f"{place} {problem}: the checkpoint is damaged", full, expected, repr(value)
        )

    def _wrong(self, message: str, full: str, expected: str, got: str) -> CheckpointError:
        file = str(self._where[full].path)
        return CheckpointError(message, file=file, tensor=full, expected=expected, got=got)

    def _check_tied(self, head: str) -> None:
        """The output head is tied to the embedding; a separate one must be the same."""
        embed = self._names["embed_tokens.weight"]
        if embed not in self._where:
            return
        one, two = self._where[head].info(head), self._where[embed].info(embed)
        if (one.shape, one.dtype) != (two.shape, two.dtype) or not self._same_bits(head, embed):
            raise CheckpointError(
                "differs from embed_tokens: Gemma 3n ties its output head to the embedding",
                file=str(self._where[head].path), tensor=head,
            )  # fmt: skip

    def _same_bits(self, one: str, two: str) -> bool:
        """Whether two matrices of one shape and dtype are equal, a piece at a time."""
        rows, same = len(self.bits(one)), True
        for first in range(0, rows, _ROWS_COMPARED):
            part = slice(first, min(first + _ROWS_COMPARED, rows))
            same = same and self.bits(one, part).tobytes() == self.bits(two, part).tobytes()
            self.forget_other(one, part)
            self.forget_other(two, part)
        return same


def _float32(dtype: str, values: npt.NDArray[Any]) -> F32:
    if dtype == "BF16":
        wide = values.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return values.astype(np.float32)


def _text_prefix(where: Mapping[str, SafetensorsFile]) -> str:
    for prefix in _TEXT_PREFIXES:
        if prefix + "embed_tokens.weight" in where:
            return prefix
    raise CheckpointError(
        "no language model: embed_tokens.weight is missing under any known prefix"
    )


def _weight_files(directory: Path) -> list[Path]:
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if index.is_file():
        return [directory / name for name in sorted(set(_read_index(index).values()))]
    if single.is_file():
        return [single]
    if not directory.is_dir():
        raise CheckpointError("no such directory", file=str(directory))
    if (directory / "matryo.json").is_file():
        raise CheckpointError(
            f"is packed already: `matryo unpack -m {directory} DST` writes it as a Hugging Face "
            "directory",
            file=str(directory),
        )
    pickles = (
        any(directory.glob("*.bin")) or any(directory.glob("*.pt")) or any(directory.glob("*.pth"))
    )
    hint = (
        "; pickled weights can run code and are never read, convert them to safetensors"
        if pickles
        else ""
    )
    raise CheckpointError(
        f"no model.safetensors and no model.safetensors.index.json{hint}", file=str(directory)
    )


def _read_index(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError(f"larger than {_MAX_INDEX_BYTES} bytes")
        document = json.loads(path.read_text(encoding="utf-8"))
        weight_map = document["weight_map"] if isinstance(document, dict) else None
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise CheckpointError(f"not a shard index: {error}", file=str(path)) from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("weight_map must be an object of tensor name to file", file=str(path))
    for tensor, name in weight_map.items():
        plain = isinstance(name, str) and name == PurePosixPath(name).name and "\\" not in name
        if not plain or not name.endswith(".safetensors"):
            raise CheckpointError(
                "a shard must be a .safetensors file in the same directory",
                file=str(path), tensor=tensor[:200], got=repr(name)[:80],
            )  # fmt: skip
    return weight_map


def _locate(directory: Path, files: Iterable[SafetensorsFile]) -> dict[str, SafetensorsFile]:
    """Tensor name -> file; what the index says must be where it says."""
    where: dict[str, SafetensorsFile] = {}
    for file in files:
        for name in file.tensors:
            if name in where:
                raise CheckpointError(
                    f"also in {where[name].path.name}", file=str(file.path), tensor=name[:200]
                )
            where[name] = file
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        for name, shard in _read_index(index).items():
            if name not in where or where[name].path.name != shard:
                raise CheckpointError(
                    "the index names a tensor the shard lacks",
                    file=str(directory / shard),
                    tensor=name[:200],
                )
    return where
