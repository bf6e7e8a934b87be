"""Tiny models in our hands, without torch: weights packed plainly, over the native kernels or the
numpy twin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from helpers.packing import PlainMatrix, packed_tensors
from helpers.random_weights import SMALL, config_of, random_state
from matryo.config import TextConfig
from matryo.kernels import reference
from matryo.model import Batch, KVCache, TextModel
from matryo.model.ops import Ops
from matryo.model.text import LogitRows
from matryo.plan import Plan, presets
from matryo.weights import TextWeights, build_weights

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
CHUNK = 64


def shells_of(config: TextConfig) -> list[Plan]:
    """Two shells, so that every FFN has two segments and the PLE slots lie in two tables."""
    plans = presets(config)
    return [plans["e2b"], plans["full"]]


def weights_of(
    config: TextConfig,
    tensors: Mapping[str, F32],
    ops: str = "native",
    kind: str = "f32",
    *,
    multimodal: F32 | None = None,
) -> TextWeights:
    """Packed weights from a checkpoint's tensors; `ops` is native or reference."""
    packed = packed_tensors(tensors, config, shells_of(config), kind)
    if multimodal is not None:
        packed["multimodal"] = multimodal
    return build_weights(config, packed, shells_of(config), _kernels(ops).Matrix)


def text_model(
    ops: str = "native",
    kind: str = "f32",
    *,
    seed: int = 0,
    shape: Mapping[str, Any] = SMALL,
    **changes: Any,
) -> TextModel:
    """A model of `shape` with `changes` and random weights from `seed`."""
    config = config_of({**shape, **changes})
    return TextModel(config, weights_of(config, random_state(config, seed), ops, kind), ops_of(ops))


def ops_of(name: str) -> Ops:
    """The kernels of a name, native or reference."""
    return reference if name == "reference" else _kernels(name)


def _kernels(name: str) -> Any:
    if name == "reference":
        twin = ModuleType("twin")
        twin.Matrix = PlainMatrix  # type: ignore[attr-defined]
        return twin
    from matryo import kernels

    return kernels


def new_cache(model: TextModel, plan: Plan, kv_kind: str = "f32") -> KVCache:
    return model.new_cache(plan, kind=kv_kind, chunk=CHUNK)


def extend(
    model: TextModel,
    plan: Plan,
    cache: KVCache,
    ids: I32 | Sequence[int],
    logits: LogitRows = "all",
    **media: Any,
) -> F32:
    """One pass over `ids` at the end of the cache; (0, V) if no logits are wanted."""
    cache.reserve(len(ids))
    batch = Batch.of([(ids, cache.length, cache)], **media)
    out = model.forward(model.new_state(CHUNK), plan, batch, logits)
    cache.commit(len(ids))
    return np.empty((0, model.config.vocab_size), np.float32) if out is None else out.copy()


def chunked(
    model: TextModel, plan: Plan, ids: I32, sizes: Sequence[int] = (), kv_kind: str = "f32"
) -> F32:
    """Logits (T, V) of passes of the given sizes; what remains follows in passes as large as
    possible.
    """
    cache, parts, left = new_cache(model, plan, kv_kind), [], list(sizes)
    while cache.length < len(ids):
        size = left.pop(0) if left else min(CHUNK, len(ids) - cache.length)
        parts.append(extend(model, plan, cache, ids[cache.length : cache.length + size]))
    return np.concatenate(parts)


def same_pages(first: KVCache, second: KVCache) -> bool:
    """Whether two caches hold the same bits, as far back as both hold any."""
    ours, theirs = first.export(), second.export()
    return ours.keys() == theirs.keys() and all(
        np.array_equal(mine[len(mine) - count :], other[len(other) - count :])
        for mine, other, count in (
            (mine, theirs[name], min(len(mine), len(theirs[name]))) for name, mine in ours.items()
        )
    )


def random_ids(rng: np.random.Generator, count: int, vocab_size: int = 544) -> I32:
    return rng.integers(0, vocab_size, count).astype(np.int32)
