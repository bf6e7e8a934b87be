"""Hugging Face transformers, bf16, scaled-dot-product attention: the reference implementation as
people run it.

The logits case runs the same weights with float32 arithmetic, which is what the agreement check
compares everyone with.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matryo.train import importable

from ..case import Case, Options, Result
from ..processes import memory_of
from . import Unsupported

if TYPE_CHECKING:
    import torch


@dataclass
class State:
    options: Options
    model: Any = None
    size: str = ""
    float32: bool = False
    context: Any = None
    """Cache behind `context` tokens, copied for each repetition."""
    context_case: Case | None = None


def available(options: Options) -> tuple[bool, str]:
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            return False, f"{package} is not installed"
    if not list(options.models_path.glob("*-hf/config.json")):
        return False, "no *-hf folder in the models folder"
    return True, ""


def load(options: Options) -> State:
    import torch

    importable.install()

    torch.set_num_threads(options.threads)
    return State(options)


def prepare(state: State, size: str, float32: bool) -> None:
    """Load the checkpoint of the case unless it is there already."""
    import torch
    from transformers import Gemma3nForCausalLM

    if state.model is not None and state.size == size and state.float32 == float32:
        return
    close(state)
    path = state.options.models_path / f"{size}-hf"
    if not path.is_dir():
        raise Unsupported(f"no folder {path.name}")
    model: Any = Gemma3nForCausalLM.from_pretrained(
        path, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    state.model = model.eval()
    state.size, state.float32 = size, float32
    if float32:
        to_float32(state.model)


def to_float32(model: Any) -> None:
    """Compute in float32 with the same weights, and keep the large ones in bf16.

    A projection is converted while it is used, rows of the tables after the lookup, the rest at
    once: the model needs half the memory of one in float32 and gives its numbers.
    """
    import torch

    large = set()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            large.add(module.weight)
            replace_forward(module, multiplied)
        elif isinstance(module, torch.nn.Embedding):
            large.add(module.weight)
            replace_forward(module, looked_up)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor not in large and tensor.is_floating_point():
            tensor.data = tensor.data.float()


def replace_forward(module: Any, forward: Callable[[Any, Any], Any]) -> None:
    module.forward = partial(forward, module)


def multiplied(projection: Any, x: Any) -> Any:
    """The product with a weight that is float32 for as long as it takes."""
    import torch

    return torch.nn.functional.linear(x, projection.weight.float())


def looked_up(table: Any, ids: Any) -> Any:
    """Rows of a scaled embedding, converted before they are multiplied by its scale."""
    import torch

    rows = torch.nn.functional.embedding(ids, table.weight).float()
    return rows * table.embed_scale.float()


def random_ids(model: Any, count: int) -> torch.Tensor:
    import torch

    generator = torch.Generator().manual_seed(count)
    high = model.config.vocab_size_per_layer_input
    return torch.randint(200, high, (1, count), generator=generator)


def run(state: State, case: Case) -> Result:
    import torch

    with torch.inference_mode():
        match case.kind:
            case "prefill":
                prepare(state, case.size, float32=False)
                ids = random_ids(state.model, case.prompt)
                started = time.perf_counter()
                state.model(ids, use_cache=True, logits_to_keep=1)
                seconds, tokens = time.perf_counter() - started, case.prompt
            case "decode" | "memory":
                seconds, tokens = decode(state, case), case.generate
            case "logits":
                return logits(state, case)
            case _:
                raise Unsupported(f"transformers has no {case.kind}")
    resident, peak = memory_of(os.getpid())
    return Result(seconds, tokens, resident, peak)


def decode(state: State, case: Case) -> float:
    """Greedy tokens behind a copied cache; seconds for `generate` of them."""
    prepare(state, case.size, float32=False)
    if state.context_case != case:
        output = state.model(
            random_ids(state.model, case.context), use_cache=True, logits_to_keep=1
        )
        state.context, state.context_case = output.past_key_values, case
    cache = copy.deepcopy(state.context)
    token = random_ids(state.model, 1)
    started = time.perf_counter()
    for _ in range(case.generate):
        output = state.model(token, past_key_values=cache, use_cache=True, logits_to_keep=1)
        token = output.logits[:, -1:].argmax(-1)
    return time.perf_counter() - started


def logits(state: State, case: Case) -> Result:
    """Log-probabilities of the second half of `ids.npy` beside the target: the file every contender
    writes.
    """
    import torch

    target = Path(case.note)
    ids = np.load(target.with_name("ids.npy"))
    prepare(state, case.size, float32=True)
    started = time.perf_counter()
    rows = (
        state.model(torch.from_numpy(ids.astype(np.int64))[None], use_cache=False).logits[0].float()
    )
    first = len(ids) // 2
    values = torch.log_softmax(rows[first : len(ids) - 1], -1)
    np.savez(target, ids=ids, first=first, values=values.numpy())
    return Result(time.perf_counter() - started, len(ids))


def close(state: State) -> None:
    state.model, state.context, state.context_case = None, None, None
