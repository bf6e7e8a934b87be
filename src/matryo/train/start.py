"""Where a run starts: the model of a recipe, and the plans of its steps.

In: the model's part of a recipe. Out: a float32 model of transformers, with encoders if its config
has them, filled from a checkpoint or with initial values; the schedule of plans, checked with the
model's shape.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    Gemma3nConfig,
    Gemma3nForCausalLM,
    Gemma3nForConditionalGeneration,
    Gemma3nTextConfig,
)

from matryo.checkpoint.beside import CONFIG, PLANS, plans_beside
from matryo.checkpoint.packed import is_packed
from matryo.config import TextConfig
from matryo.errors import CheckpointError, ConfigError, PlanError
from matryo.inputs.text_format import read_json_object
from matryo.loading.home import find_directory
from matryo.plan import Plan
from matryo.tower_config import NO_TOWERS, TowerConfig
from matryo.train.nested import LanguageModel, initialise
from matryo.train.pretrained import needed, read_model
from matryo.train.recipe import ModelRecipe, Recipe
from matryo.train.sound_norm import fuse_convolutions
from matryo.train.tower_start import initialise_towers
from matryo.train.widths import WidthSchedule, blocks_left_out

PARTS: Mapping[str, tuple[str, ...]] = {
    "text": ("language_model.", "lm_head."),
    "vision": ("vision_tower.", "embed_vision."),
    "audio": ("audio_tower.", "embed_audio."),
    # Without the projection into the decoder.
    "vision_tower": ("vision_tower.",),
    "audio_tower": ("audio_tower.",),
}


@dataclass(frozen=True, slots=True)
class Start:
    """A model, the directory of its tokenizer, the config.json it is exported with (None = the
    model's own), and the shapes of its encoders.
    """

    model: LanguageModel
    directory: Path
    document: dict[str, Any] | None
    towers: TowerConfig


def make_model(recipe: ModelRecipe, seed: int) -> Start:
    """The model in float32. Raises ConfigError; CheckpointError for a start that cannot be read, or
    lacks a tensor.
    """
    torch.manual_seed(seed)
    if recipe.start is not None:
        start = _continued(recipe, recipe.start)
    elif "text_config" in recipe.config:
        start = _multimodal(recipe)
    else:
        values = {key: value for key, value in recipe.config.items() if key != "model_type"}
        checked = _checked_text(values)
        with _translated():
            model = Gemma3nForCausalLM(Gemma3nTextConfig(**checked))
        initialise(model)
        start = Start(model, recipe.tokenizer or find_directory(None), None, NO_TOWERS)
    freeze(start.model, recipe.freeze)
    return start


def freeze(model: LanguageModel, parts: tuple[str, ...]) -> None:
    """Parts of the model that get no gradients. Raises ConfigError if nothing is left."""
    whole = isinstance(model, Gemma3nForConditionalGeneration)
    for part in parts:
        if not whole:
            raise ConfigError(f"model.freeze names {part}; a model of text alone has no parts")
    for name, weight in model.named_parameters():
        for part in parts:
            if name.removeprefix("model.").startswith(PARTS[part]):
                weight.requires_grad_(False)
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ConfigError("model.freeze leaves nothing to train")


def _continued(recipe: ModelRecipe, directory: Path) -> Start:
    if not (directory / CONFIG).is_file():
        raise CheckpointError("holds no Hugging Face checkpoint", file=str(directory))
    if is_packed(directory):
        raise CheckpointError(
            "is packed, its weights rounded: start from the Hugging Face directory, or from the "
            f"one that `matryo unpack DIR -m {directory}` writes",
            file=str(directory),
        )
    document = read_json_object(directory / CONFIG)
    whole = document.get("model_type") == "gemma3n"
    kind: Any = Gemma3nForConditionalGeneration if whole else Gemma3nForCausalLM
    towers = TowerConfig.from_json(document)
    model: LanguageModel = read_model(kind, directory, absent=_absent(towers) if whole else ())
    return Start(model, recipe.tokenizer or directory, document, towers)


def _absent(towers: TowerConfig) -> tuple[str, ...]:
    """How the names of encoders begin that transformers makes though the checkpoint has none."""
    without = [part for part in ("vision", "audio") if getattr(towers, part) is None]
    return tuple(f"model.{prefix}" for part in without for prefix in PARTS[part])


def _multimodal(recipe: ModelRecipe) -> Start:
    """A model with both encoders from its config."""
    document = {**copy.deepcopy(recipe.config), "model_type": "gemma3n"}
    if not isinstance(document["text_config"], dict):
        raise ConfigError("model.config.text_config: expected keys and values")
    document["text_config"] = {
        **_checked_text(document["text_config"]), "model_type": "gemma3n_text",
    }  # fmt: skip
    towers = TowerConfig.from_json(document)
    for part in ("vision", "audio"):
        if getattr(towers, part) is None:
            raise ConfigError(f"model.config has text_config, but no {part}_config: give both")
    with _translated():
        # transformers and timm write into what they are given.
        model = Gemma3nForConditionalGeneration(Gemma3nConfig(**copy.deepcopy(document)))
    initialise(model)
    initialise_towers(model)
    return Start(model, recipe.tokenizer or find_directory(None), document, towers)


@contextmanager
def _translated() -> Iterator[None]:
    """What transformers says of a shape, in a line."""
    try:
        yield
    except StrictDataclassError as error:
        said = " ".join(str(error).split())
        raise ConfigError(f"model.config: {said.partition('Error: ')[2] or said}") from error
    except ImportError as error:
        raise ConfigError(f"model.config: {needed(error)}") from error


def _checked_text(values: Mapping[str, Any]) -> dict[str, Any]:
    """The text config as transformers takes it; refused with our messages."""
    shape = TextConfig.from_json({"model_type": "gemma3n_text", **values})
    # transformers takes neither 0 for 0.0 nor the absence of sparsity.
    return {**values, "activation_sparsity_pattern": list(shape.sparsity)}


def make_schedule(recipe: Recipe, config: TextConfig) -> WidthSchedule:
    """The plans of every step. Raises ConfigError, PlanError."""
    o, named = recipe.objective, recipe.model.plans
    if named:
        plans = {name: _plan(name, value, config) for name, value in named.items()}
    elif recipe.model.start is not None:
        plans = _plans_of(recipe.model.start, config, everything=bool(o.rungs))
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


def _plan(name: str, value: object, config: TextConfig) -> Plan:
    try:
        return Plan.from_json(value, config)
    except PlanError as error:
        raise PlanError(f"model.plans.{name}: {error}") from error


def _plans_of(directory: Path, config: TextConfig, *, everything: bool) -> dict[str, Plan]:
    """The plans of plans.json; the presets where there are none, or with `everything`, to choose
    from.
    """
    plans, path = plans_beside(directory, config), directory / PLANS
    if everything or not path.exists():
        return plans
    return {name: plans[name] for name in read_json_object(path)} or plans


def prepare_towers(model: LanguageModel) -> None:
    """Makes passes of the encoders faster: the channels of pictures lie together in memory, norms
    are computed at once.
    """
    vision = getattr(model.model, "vision_tower", None)
    if vision is not None:
        from matryo.train.vision_norm import fuse_norms  # needs timm, which texts alone do not

        vision.to(memory_format=torch.channels_last)
        fuse_norms(vision)
    audio = getattr(model.model, "audio_tower", None)
    if audio is not None:
        fuse_convolutions(audio)
