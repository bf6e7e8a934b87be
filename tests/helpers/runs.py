"""Runs token ids through transformers, and puts a transformers model into our hands."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import Gemma3nForCausalLM

from helpers.models import I32, ops_of, weights_of
from matryo.config import TextConfig
from matryo.model import TextModel

F32 = npt.NDArray[np.float32]


def our_model(
    model: Gemma3nForCausalLM,
    ops: str = "native",
    kind: str = "f32",
    *,
    multimodal: F32 | None = None,
) -> TextModel:
    """The transformers model in our hands, in two shells; `ops` is native or reference.

    With kind bf16 its config says that the checkpoint is stored in bf16.
    """
    dtype = {"bf16": "bfloat16"}.get(kind, "float32")
    config = TextConfig.from_json({**model.config.to_dict(), "dtype": dtype})
    tensors = {
        name.removeprefix("model."): value.detach().float().numpy()
        for name, value in model.state_dict().items()
    }
    return TextModel(
        config, weights_of(config, tensors, ops, kind, multimodal=multimodal), ops_of(ops)
    )


def expected(model: Gemma3nForCausalLM, ids: I32, **arguments: Any) -> F32:
    """Logits (T, V) of transformers for one sequence, without a cache."""
    with torch.no_grad():
        out = model(torch.tensor(ids)[None].long(), use_cache=False, **arguments).logits[0]
    result: F32 = out.float().numpy()
    return result


def expected_from_embeddings(
    model: Gemma3nForCausalLM, ids: I32, rows: I32, values: F32
) -> tuple[F32, F32]:
    """Logits (T, V) of transformers with the embeddings of `rows` replaced, and all embeddings (T,
    d).

    The per-layer inputs still come from the ids.
    """
    inner, tokens = model.model, torch.tensor(ids)[None].long()
    with torch.no_grad():
        embeddings = inner.embed_tokens(tokens)
        embeddings[0, torch.tensor(rows).long()] = torch.tensor(values)
        ple = inner.get_per_layer_inputs(tokens)
        hidden = inner(
            inputs_embeds=embeddings, per_layer_inputs=ple, use_cache=False
        ).last_hidden_state
        cap = model.config.final_logit_softcapping
        logits = cap * torch.tanh(model.lm_head(hidden) / cap)
    return logits[0].numpy(), embeddings[0].numpy()


def in_bf16(model: Gemma3nForCausalLM) -> tuple[Gemma3nForCausalLM, Gemma3nForCausalLM]:
    """The model computing in bf16, and one with the same rounded weights and embedding scale
    computing in float32.

    RoPE frequencies stay float32, as when a checkpoint is loaded in bf16; casting a model would
    round them too.
    """
    exact = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in (*exact.parameters(), exact.model.embed_tokens.embed_scale):
            tensor.copy_(tensor.bfloat16())
    rounded = copy.deepcopy(exact).bfloat16()
    for (_, buffer), (name, original) in zip(
        rounded.named_buffers(), exact.named_buffers(), strict=True
    ):
        if name.endswith("inv_freq"):
            buffer.data = original.data.clone()
    return rounded, exact


def greedy(model: Gemma3nForCausalLM, ids: I32, count: int) -> list[int]:
    """The tokens `generate` of transformers appends, with its own cache."""
    with torch.no_grad():
        out = model.generate(  # type: ignore[misc]
            torch.tensor(ids)[None].long(),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
    tokens: list[int] = out[0, len(ids) :].tolist()
    return tokens


def left_padded(prompts: Sequence[I32]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Ids (B, T) with zeros on the left, and the mask and positions that make transformers ignore
    them.
    """
    width = max(map(len, prompts))
    ids, mask = (torch.zeros(len(prompts), width, dtype=torch.long) for _ in range(2))
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
