"""`matryo.load`: from a path, or nothing, to an open model.

In: a packed directory, a Hugging Face directory, the name of a pulled model, or None for the
embedded one. Out: a `Model`. A small Hugging Face checkpoint is packed in memory; a big one is
packed once into a directory under MATRYO_HOME, keyed by the checkpoint's identity, and mapped from
there the next time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from matryo import kernels
from matryo.checkpoint.convert import Conversion, convert
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.packed import PackedModel, is_packed
from matryo.errors import CheckpointError, ConfigError
from matryo.loading.home import cached_directory, find_directory
from matryo.loading.model import Model, checked_kv_kind
from matryo.loading.opened import Opened, open_in_memory, open_packed
from matryo.quantize import WEIGHTS

Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all, tensor) while a Hugging Face directory is packed."""

DEFAULT_WEIGHTS = "q4"
MAX_THREADS = 256
IN_MEMORY_BYTES = 256 << 20
"""Packed, a larger checkpoint goes through files, so that it is packed once and shared."""


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    weights: str | None = None,
    threads: int | None = None,
    context: int | None = None,
    kv: str | None = None,
    progress: Progress | None = None,
) -> Model:
    """Open a model.

    path: a packed or Hugging Face directory, or the name of a pulled model; None = the embedded
    model
    weights: f32, bf16, q8 or q4, what a Hugging Face directory is packed to (default q4); a packed
    one has its own kind
    threads: worker threads of this process, 1 to 256 · context: most tokens of a session, None =
    the checkpoint's
    kv: kind of the K/V cache, f32, bf16 or int8; None = bf16, or f32 beside f32 weights
    progress: called with (bytes done, bytes in all, tensor) while weights are packed
    Raises CheckpointError for files that are missing, broken or do not fit, ConfigError for a
    setting or a config.json that cannot be used, CapacityError if packing needs more room on the
    disk than there is.
    """
    _check_settings(weights, threads, kv)
    kernels.start()
    if threads is not None:
        kernels.set_threads(threads)
    try:
        directory = find_directory(path)
        return Model(_open(directory, weights, context, progress), kv_kind=kv)
    except OSError as error:
        place = None if error.filename is None else str(error.filename)
        raise CheckpointError(f"cannot be read: {error.strerror or error}", file=place) from error


def _open(
    directory: Path, weights: str | None, context: int | None, progress: Progress | None
) -> Opened:
    if is_packed(directory):
        packed = PackedModel(directory)
        if weights not in (None, packed.weights):
            raise ConfigError(
                f"weights is {weights!r}, but {directory} is packed as {packed.weights}: leave "
                f"weights out, or convert the original checkpoint to {weights}"
            )
        return open_packed(packed, context=context)
    job = Conversion(HuggingFaceSource(directory), weights or DEFAULT_WEIGHTS)
    if job.num_bytes <= IN_MEMORY_BYTES:
        return open_in_memory(job, context=context, progress=progress)
    cached = cached_directory(job.key)
    convert(directory, cached, job.weights, progress=progress, wait=True)
    return open_packed(PackedModel(cached), context=context, beside=directory)


def _check_settings(weights: str | None, threads: int | None, kv: str | None) -> None:
    """What can be refused before any file is opened."""
    if weights is not None and weights not in WEIGHTS:
        raise ConfigError(f"weights is {weights!r}; allowed: {', '.join(WEIGHTS)}")
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MAX_THREADS):
        raise ConfigError(f"threads is {threads!r}; allowed: 1 to {MAX_THREADS}")
    if kv is not None:
        checked_kv_kind(kv)
