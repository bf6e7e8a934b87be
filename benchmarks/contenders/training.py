"""One training step of a small Gemma 3n: `training:matryo`, our step, and `training:transformers`,
the same loss by transformers' own modules with torch's losses and AdamW, all eager float32.

Both start from the same weights and see the same tokens, so that their losses can be compared.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..case import Case, Options, Result
from ..processes import memory_of
from . import Unsupported

LAYERS, ROWS, SEQUENCE, VOCABULARY = 8, 32, 128, 8192
CONFIG: dict[str, Any] = {
    "vocab_size": VOCABULARY, "vocab_size_per_layer_input": VOCABULARY, "hidden_size": 256,
    "hidden_size_per_layer_input": 32, "intermediate_size": [1024] * LAYERS,
    "num_hidden_layers": LAYERS, "num_kv_shared_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "sliding_window": 64, "laurel_rank": 16,
    "max_position_embeddings": 512,
    "layer_types": ["sliding_attention", "full_attention"] * (LAYERS // 2),
    "activation_sparsity_pattern": [0.95, 0.95] + [0.0] * (LAYERS - 2),
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2,
}  # fmt: skip
NARROW, DIVERGENCE = 512, 0.5

Step = Callable[[Any], float]


@dataclass
class State:
    options: Options
    steps: dict[str, Step] = field(default_factory=dict)
    config: Any = None
    passes: dict[str, tuple[Any, ...]] = field(default_factory=dict)


def available(options: Options) -> tuple[bool, str]:
    for package in ("torch", "transformers", "accelerate"):
        if importlib.util.find_spec(package) is None:
            return False, f"{package} is not installed"
    return True, ""


def load(options: Options) -> State:
    import torch

    from matryo import kernels
    from matryo.train import importable
    from matryo.train.memory import keep_freed

    importable.install()
    torch.set_num_threads(options.threads)
    if options.setting == "matryo":
        kernels.set_threads(options.threads)
        keep_freed()
    return State(options)


def prepare(state: State, size: str) -> Step:
    """The step of a case; made once."""
    import torch
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

    from matryo.plan import Plan, full_plan
    from matryo.train import decoder, nested
    from matryo.train.optimizer import make_optimizers
    from matryo.train.recipe import OptimizerRecipe
    from matryo.train.widths import Pass

    if size not in ("one", "two"):
        raise Unsupported(f"no {size} sizes")
    torch.manual_seed(1)
    model = Gemma3nForCausalLM(Gemma3nTextConfig(**CONFIG))
    nested.initialise(model)
    model.train()
    state.config = nested.shape_of(model.config)
    wide = full_plan(state.config)
    passes = [Pass("large", wide, 1.0)]
    if size == "two":
        narrow = Plan(wide.layers, (NARROW,) * LAYERS, wide.num_owners)
        passes = [Pass("large", wide, 0.5), Pass("small", narrow, 0.5)]
    state.passes[size] = tuple(passes)
    if state.options.setting == "matryo":
        nested.nest(model)
        optimizers = make_optimizers(model, OptimizerRecipe(rate=1e-3))
        return our_step(model, optimizers, passes)
    if size == "two":
        nested.nest(model)
        decoder._fuses = lambda tensor: False
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0)
    return plain_step(model, optimizer, passes)


def our_step(model: Any, optimizers: Any, passes: Any) -> Step:
    import torch

    from matryo.train.objective import LossWeights, NestedObjective

    objective = NestedObjective(model, LossWeights(divergence=DIVERGENCE))

    def step(rows: Any) -> float:
        teacher, total = None, 0.0
        for one in passes:
            out = objective(rows[:, :-1], rows[:, 1:], one.plan, teacher)
            (out.loss * one.weight).backward()
            total += out.loss.item() * one.weight
            teacher = out.hidden.detach() if len(passes) > 1 else None
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return total

    return step


def plain_step(model: Any, optimizer: Any, passes: Any) -> Step:
    """The second size needs transformers' FFN cut to fewer units, nothing else of ours."""
    import torch
    from torch.nn import functional

    def step(rows: Any) -> float:
        teacher, total = None, 0.0
        labels = rows[:, 1:].flatten()
        for one in passes:
            plan = {"plan": one.plan} if len(passes) > 1 else {}
            logits = model(input_ids=rows[:, :-1], use_cache=False, **plan).logits.flatten(0, 1)
            loss = functional.cross_entropy(logits, labels)
            if teacher is not None:
                ours = functional.log_softmax(logits, -1)
                loss = loss + DIVERGENCE * functional.kl_div(
                    ours, teacher, log_target=True, reduction="batchmean"
                )
            (loss * one.weight).backward()
            total += loss.item() * one.weight
            teacher = functional.log_softmax(logits.detach(), -1) if len(passes) > 1 else None
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step


def run(state: State, case: Case) -> Result:
    import torch

    from matryo.train.meter import measured_peak, operations

    if case.kind != "step":
        raise Unsupported(f"no {case.kind} case for training")
    if case.size not in state.steps:
        state.steps[case.size] = prepare(state, case.size)
    rows = torch.randint(
        3, VOCABULARY, (ROWS, SEQUENCE + 1), generator=torch.Generator().manual_seed(2)
    )
    peak = measured_peak(torch.device("cpu"), torch.float32)
    started = time.perf_counter()
    loss = state.steps[case.size](rows)
    seconds = time.perf_counter() - started
    tokens = ROWS * SEQUENCE
    work = operations(state.config, state.passes[case.size], tokens, SEQUENCE)
    details: dict[str, float | str] = {
        "loss": loss, "peak_gflops": peak / 1e9, "share_of_peak": work / seconds / peak,
    }  # fmt: skip
    return Result(seconds, tokens, *memory_of(os.getpid()), details)


def close(state: State) -> None:
    state.steps.clear()
