"""Logits of a sequence whose tokens are computed by different plans, layer by layer over all tokens
at once.

An oracle for switching plans between tokens: there the tokens run one after another through a
cache, here every layer runs once over those tokens whose plan keeps it. Built from the blocks of
the numpy twin.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helpers.models import F32, I32
from matryo.kernels import reference
from matryo.kernels.layer import Layer
from matryo.kernels.reference_pages import PageTable, page_bytes
from matryo.model import TextModel
from matryo.plan import Plan


def mixture_logits(model: TextModel, ids: I32, plans: Sequence[Plan]) -> F32:
    """Logits (T, V); token t is computed by plans[t]. All plans have the same owners. At most 64
    tokens.
    """
    config, weights = model.config, model.weights
    embedding = np.empty((len(ids), config.hidden_size), np.float32)
    reference.gather(weights.embed, ids, config.embedding_scale, embedding)
    streams = np.stack([embedding, *(np.empty_like(embedding) for _ in range(3))])
    for matrix, stream in zip(weights.altup_projection, streams[1:], strict=True):
        reference.matmul(matrix, embedding, stream)
    reference.altup_expand(embedding, streams[1:])
    tables = {layer: _table(model, layer) for layer in plans[0].owners}
    for number, layer in enumerate(weights.layers):
        rows = np.array([t for t, plan in enumerate(plans) if number in plan.layers], np.int32)
        if layer is not None and len(rows):
            _run_layer(model, number, layer, rows, ids, plans, embedding, streams, tables)
    unembedded = np.empty_like(streams[1:])
    for matrix, stream, out in zip(weights.altup_unembed, streams[1:], unembedded, strict=True):
        reference.matmul(matrix, stream, out)
    merged, logits = np.empty_like(embedding), np.empty((len(ids), config.vocab_size), np.float32)
    reference.altup_merge(streams, unembedded, weights.final_norm, config.eps, merged)
    reference.logits(weights.embed, merged, config.softcap, logits)
    return logits


def _table(model: TextModel, layer: int) -> PageTable:
    config = model.config
    table = PageTable("f32", config.num_kv_heads, config.head_dim, config.window[layer])
    table.set([np.zeros(page_bytes("f32", config.num_kv_heads, config.head_dim), np.uint8)])
    return table


def _run_layer(
    model: TextModel,
    number: int,
    layer: Layer,
    rows: I32,
    ids: I32,
    plans: Sequence[Plan],
    embedding: F32,
    streams: F32,
    tables: dict[int, PageTable],
) -> None:
    """One layer over the tokens `rows`; writes their columns of `streams`."""
    config = model.config
    x = np.ascontiguousarray(streams[:, rows])
    predictions, normed = np.empty_like(x), np.empty_like(x[0])
    reference.altup_predict(layer, x, predictions, normed)
    hidden, out = np.empty_like(normed), np.empty_like(normed)
    frequencies = config.rope_theta[number] ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    angles = rows[:, None] * frequencies
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    table = tables[config.kv_source[number]]
    sequences, owns = np.zeros(len(rows), np.int32), number < config.num_owners
    reference.attention(
        layer, normed, predictions[0], table, sequences, rows, cos, sin, owns, hidden
    )
    for row, token in enumerate(rows.tolist()):
        width = plans[token].ffn_width[plans[token].layers.index(number)]
        reference.feed_forward(layer, hidden[row : row + 1], width, out[row : row + 1])
    ple = _per_layer_input(model, number, layer, ids[rows], embedding[rows])
    reference.altup_correct(layer, predictions, out, ple, x)
    streams[:, rows] = x


def _per_layer_input(model: TextModel, number: int, layer: Layer, ids: I32, embedding: F32) -> F32:
    config = model.config
    projection, raw = (np.empty((len(ids), config.ple_dim), np.float32) for _ in range(2))
    reference.matmul(layer.ple_model_projection, embedding, projection)
    projection *= np.float32(config.hidden_size**-0.5)
    source = next(table for table in model.weights.ple if number in table.layers)
    whole = np.empty((len(ids), source.matrix.cols), np.float32)
    reference.gather(
        source.matrix, np.where(ids < config.ple_vocab_size, ids, 0), config.ple_scale, whole
    )
    start = source.layers.index(number) * config.ple_dim
    raw[...] = whole[:, start : start + config.ple_dim]
    reference.ple_combine(
        projection, raw, model.weights.ple_projection_norm, config.eps, projection
    )
    return projection
