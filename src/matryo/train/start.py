"""Where a run starts: the model of a recipe, and the plans of its steps.

In: the model's part of a recipe. Out: a float32 model of transformers, filled from a checkpoint or
with initial values; the schedule of plans, checked with the model's shape.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Gemma3nForCausalLM,
    Gemma3nForConditionalGeneration,
    Gemma3nTextConfig,
)

from matryo.checkpoint.beside import CONFIG, plans_beside
from matryo.checkpoint.packed import is_packed
from matryo.config import TextConfig
from matryo.errors import CheckpointError, ConfigError
from matryo.loading.home import find_directory
from matryo.plan import Plan
from matryo.train.nested import LanguageModel, initialise
from matryo.train.recipe import ModelRecipe, Recipe
from matryo.train.widths import WidthSchedule, blocks_left_out


def make_model(recipe: ModelRecipe, seed: int) -> tuple[LanguageModel, Path]:
    """The model in float32, and the directory of its tokenizer. Raises ConfigError."""
    torch.manual_seed(seed)
    if recipe.start is not None:
        if not (recipe.start / CONFIG).is_file():
            raise CheckpointError("holds no Hugging Face checkpoint", file=str(recipe.start))
        if is_packed(recipe.start):
            raise CheckpointError(
                "is packed, its weights rounded: start from the Hugging Face directory",
                file=str(recipe.start),
            )
        document = json.loads((recipe.start / CONFIG).read_text(encoding="utf-8"))
        whole = document.get("model_type") == "gemma3n"
        kind: Any = Gemma3nForConditionalGeneration if whole else Gemma3nForCausalLM
        model: LanguageModel = kind.from_pretrained(recipe.start, dtype=torch.float32)
        return model, recipe.tokenizer or recipe.start
    values = {key: value for key, value in recipe.config.items() if key != "model_type"}
    shape = TextConfig.from_json({"model_type": "gemma3n_text", **values})  # with our messages
    # transformers takes neither 0 for 0.0 nor the absence of sparsity.
    values["activation_sparsity_pattern"] = list(shape.sparsity)
    model = Gemma3nForCausalLM(Gemma3nTextConfig(**values))
    initialise(model)
    return model, recipe.tokenizer or find_directory(None)


def make_schedule(recipe: Recipe, config: TextConfig) -> WidthSchedule:
    """The plans of every step. Raises ConfigError, PlanError."""
    o, named = recipe.objective, recipe.model.plans
    if named:
        plans = {name: Plan.from_json(value, config) for name, value in named.items()}
    elif recipe.model.start is not None:
        plans = plans_beside(recipe.model.start, config)
    else:
        plans = {}
    if o.rungs:
        for name in o.rungs:
            if name not in plans:
                raise ConfigError(
                    f"objective.rungs names {name}; there are {', '.join(plans) or 'no plans'}"
                )
        plans = {name: plans[name] for name in o.rungs}
    unique: dict[Plan, str] = {}
    for name, plan in plans.items():
        unique.setdefault(plan, name)  # a checkpoint may name one size twice
    rungs = {name: plan for plan, name in unique.items()}
    return WidthSchedule(
        rungs=rungs,
        weights={name: o.rungs.get(name, 1.0) for name in rungs},
        mode=o.mode,
        mixes=o.mixes,
        mix_weight=o.mix_weight,
        skippable=blocks_left_out(rungs) if o.skippable is None else o.skippable,
        teaches=bool(o.divergence or o.hidden),
        seed=recipe.seed,
    ).check(config)
