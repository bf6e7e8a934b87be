"""Runs token ids through our model and through transformers, in the ways the parity tests compare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from helpers.packing import PlainMatrix, packed_tensors
from transformers import Gemma3nForCausalLM

from matryo.config import TextConfig
from matryo.kernels import reference
from matryo.model import Batch, KVCache, TextModel
from matryo.plan import Plan, presets
from matryo.weights import build_weights

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
CHUNK = 64


def our_model(model: Gemma3nForCausalLM, ops: str = "native", kind: str = "f32") -> TextModel:
    """The transformers model in our hands, in two shells; `ops` is native or reference."""
    config = TextConfig.from_json(model.config.to_dict())
    plans = presets(config)
    shells = [plans["e2b"], plans["full"]]
    tensors = packed_tensors(model.state_dict(), config, shells, kind)
    if ops == "reference":
        weights = build_weights(config, tensors, shells, PlainMatrix)
        return TextModel(config, weights, reference)
    from matryo import kernels

    return TextModel(config, build_weights(config, tensors, shells, kernels.Matrix))


def new_cache(model: TextModel, plan: Plan, kv_kind: str = "f32") -> KVCache:
    return model.new_cache(plan, kind=kv_kind, chunk=CHUNK)


def extend(
    model: TextModel, plan: Plan, cache: KVCache, ids: I32, logits: Any = "all", **media: Any
) -> F32 | None:
    """One pass over `ids` at the end of the cache."""
    cache.reserve(len(ids))
    batch = Batch.of([(ids, cache.length, cache)], **media)
    out = model.forward(model.new_state(CHUNK), plan, batch, logits)
    cache.commit(len(ids))
    return None if out is None else out.copy()


def chunked(
    model: TextModel, plan: Plan, ids: I32, sizes: Sequence[int], kv_kind: str = "f32"
) -> F32:
    """Logits (T, V) of passes of the given sizes; a last size is added for what remains."""
    cache, parts, start = new_cache(model, plan, kv_kind), [], 0
    for size in [*sizes, len(ids) - sum(sizes)]:
        if size:
            part = extend(model, plan, cache, ids[start : start + size])
            assert part is not None
            parts.append(part)
        start += size
    return np.concatenate(parts)


def expected(model: Gemma3nForCausalLM, ids: I32, **arguments: Any) -> F32:
    """Logits (T, V) of transformers for one sequence, without a cache."""
    with torch.no_grad():
        out = model(torch.tensor(ids)[None].long(), use_cache=False, **arguments).logits[0]
    result: F32 = out.float().numpy()
    return result


def random_ids(rng: np.random.Generator, count: int, vocab_size: int = 544) -> I32:
    return rng.integers(0, vocab_size, count).astype(np.int32)
