"""Writes safetensors files and Hugging Face directories byte by byte, also broken ones.

An oracle beside `matryo.checkpoint.safetensors`: nothing here shares code with it.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from helpers.random_weights import SMALL, config_of, random_state

F32 = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
Stored = Mapping[str, tuple[str, Array]]  # name -> dtype tag, values as they are stored

PLANS = {"narrow": {"ffn_width": 32}, "middle": {"ffn_width": 64}}
"""For SMALL: with its presets a chain of three shells, narrow in middle in full."""


def safetensors_bytes(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file from a header (any JSON value, or bytes) and its data.

    `length` is what it says the header takes.
    """
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: Iterable[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def write_tensors(path: Path, tensors: Stored, metadata: Mapping[str, str] | None = None) -> None:
    """A correct file; its data begin at a multiple of 8."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, (dtype, values) in tensors.items():
        raw = values.tobytes()
        header[name] = entry(dtype, values.shape, len(data), len(data) + len(raw))
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(safetensors_bytes(text + b" " * (-len(text) % 8), data))


def to_bf16(values: F32) -> npt.NDArray[np.uint16]:
    """Bits of the nearest bfloat16, ties to even; for finite values."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: npt.NDArray[np.uint16]) -> F32:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def stored(values: F32, dtype: str) -> tuple[str, Array]:
    """float32 values as BF16, F16 or F32."""
    if dtype == "BF16":
        return dtype, to_bf16(values)
    return dtype, values.astype(np.float16 if dtype == "F16" else np.float32)


def rounded(values: F32, dtype: str) -> F32:
    """The values that a file of this dtype holds."""
    kept = stored(values, dtype)[1]
    return from_bf16(kept) if dtype == "BF16" else kept.astype(np.float32)


def hub_config(**changes: Any) -> dict[str, Any]:
    """config.json of SMALL as a text-only checkpoint."""
    return {"model_type": "gemma3n_text", "dtype": "float32", **SMALL, **changes}


def write_checkpoint(
    directory: Path,
    *,
    dtype: str = "F32",
    shards: int = 1,
    prefix: str = "model.",
    config: Mapping[str, Any] | None = None,
    state: Mapping[str, F32] | None = None,
    more: Stored | None = None,
    plans: Mapping[str, Any] | None = PLANS,
) -> dict[str, F32]:
    """A Hugging Face directory of SMALL; returns the weights by canonical name, K/V of reader
    layers among them.

    more: further tensors, by full name · state: weights instead of random ones
    """
    directory.mkdir(parents=True, exist_ok=True)
    document = dict(config or hub_config())
    weights = dict(
        state
        if state is not None
        else random_state(config_of(document.get("text_config", document)))
    )
    tensors = {prefix + name: stored(values, dtype) for name, values in weights.items()} | dict(
        more or {}
    )
    names = list(tensors)
    if shards == 1:
        write_tensors(directory / "model.safetensors", tensors, {"format": "pt"})
    else:
        where: dict[str, str] = {}
        for shard in range(shards):
            file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
            part = {name: tensors[name] for name in names[shard::shards]}
            write_tensors(directory / file, part, {"format": "pt"})
            where |= dict.fromkeys(part, file)
        write_json(
            directory / "model.safetensors.index.json", {"metadata": {}, "weight_map": where}
        )
    write_json(directory / "config.json", document)
    if plans is not None:
        write_json(directory / "plans.json", plans)
    return weights


def write_json(path: Path, document: object) -> None:
    path.write_text(json.dumps(document), encoding="utf-8")


def contents(directory: Path) -> dict[str, bytes]:
    """Every file of a directory."""
    return (
        {path.name: path.read_bytes() for path in directory.iterdir()} if directory.exists() else {}
    )
