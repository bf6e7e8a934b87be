"""What is trained, teaches or is made elastic is read from whole files, or they are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Gemma3nForConditionalGeneration

from helpers.dense import dense_directory
from helpers.recipes import CONFIG, TOKENIZER, VOCABULARY, write_recipe
from matryo.config import TextConfig
from matryo.errors import CheckpointError, ConfigError, PlanError
from matryo.inputs.tokenizer import Tokenizer
from matryo.tower_config import TowerConfig
from matryo.train.dense import open_dense
from matryo.train.features import EncoderTeacher
from matryo.train.nested import nest
from matryo.train.pretrained import TIMM, needed, read_model
from matryo.train.recipe import ModelRecipe, Recipe
from matryo.train.start import _absent, make_model, make_schedule
from matryo.train.teachers import open_teacher

WEIGHTS, UP = "model.safetensors", "model.layers.1.mlp.up_proj.weight"


def start(directory: Path) -> Any:
    return make_model(ModelRecipe(start=directory), 0).model


def teach(directory: Path) -> Any:
    return open_teacher(directory, Tokenizer.from_file(TOKENIZER / "tokenizer.json", bos_id=2))


@pytest.fixture
def text(tiny_hf_model: Any, tmp_path: Path) -> Path:
    tiny_hf_model.save_pretrained(tmp_path / "text")
    return tmp_path / "text"


@pytest.fixture
def whole(multimodal_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(multimodal_checkpoint, tmp_path / "whole"))


@pytest.fixture
def dense(tmp_path: Path) -> Path:
    return dense_directory(tmp_path / "dense", "llama", vocab_size=VOCABULARY)


def change(directory: Path, changed: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Applies `changed` to the weights."""
    (path,) = directory.glob("*.safetensors")
    weights = load_file(path)
    changed(weights)
    save_file(weights, path, {"format": "pt"})


OPENERS = [("text", start), ("dense", teach), ("dense", open_dense)]


@pytest.mark.parametrize(("name", "opened"), OPENERS)
def test_a_missing_or_misshaped_tensor_is_named(
    name: str, opened: Callable[[Path], Any], request: pytest.FixtureRequest
) -> None:
    directory: Path = request.getfixturevalue(name)
    opened(directory)  # whole; tied weights are in the files once
    change(directory, lambda weights: weights.update({UP: weights[UP][:-1].contiguous()}))
    with pytest.raises(
        CheckpointError, match=rf"{name}: {UP}: is of another shape .*config.json"
    ) as error:
        opened(directory)
    assert error.value.expected != error.value.got
    change(directory, lambda weights: weights.pop(UP))
    with pytest.raises(CheckpointError, match=rf"{name}: lacks {UP}, .*fetch the files again"):
        opened(directory)


@pytest.mark.parametrize("opened", [start, EncoderTeacher.open])
def test_a_missing_tensor_of_an_encoder_is_named(
    whole: Path, opened: Callable[[Path], Any]
) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if "audio_tower.conformer.1." in name]:
            del weights[name]

    opened(whole)
    change(whole, drop)
    with pytest.raises(
        CheckpointError, match=r"lacks model\.audio_tower\.conformer\.1\..* tensors more, which"
    ):
        opened(whole)


def test_an_encoder_that_the_config_does_not_have_may_be_missing(whole: Path) -> None:
    def drop(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if "audio" in name]:
            del weights[name]

    change(whole, drop)
    document = json.loads((whole / "config.json").read_text())
    absent = _absent(TowerConfig.from_json({**document, "audio_config": None}))
    assert absent == ("model.audio_tower.", "model.embed_audio.")
    # config.json has it here: transformers would make one of full size.
    read_model(Gemma3nForConditionalGeneration, whole, absent=absent)
    assert _absent(TowerConfig.from_json(document)) == ()


@pytest.mark.parametrize(("name", "opened"), [*OPENERS, ("whole", EncoderTeacher.open)])
def test_files_that_cannot_be_read_are_named(
    name: str, opened: Callable[[Path], Any], request: pytest.FixtureRequest
) -> None:
    directory: Path = request.getfixturevalue(name)
    (path,) = directory.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        CheckpointError, match=rf"{name}: transformers cannot open it: .*fetch the files again"
    ):
        opened(directory)
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: transformers cannot open it: .*no file"):
        opened(directory)
    (directory / "config.json").write_text('{"model_type": ')
    with pytest.raises(CheckpointError, match=r"config.json|JSON"):
        opened(directory)


def schedule_of(directory: Path, start: Path, config: TextConfig, *settings: str) -> list[str]:
    """The rungs of a run that starts there."""
    path = write_recipe(directory)
    document = json.loads(path.read_text())
    document["model"] = {"start": str(start)}
    path.write_text(json.dumps(document))
    return list(make_schedule(Recipe.from_file(path, settings), config).rungs)


def test_a_start_is_trained_at_the_plans_beside_it_alone(text: Path, tmp_path: Path) -> None:
    config = nest(start(text))
    assert schedule_of(tmp_path, text, config) == ["e2b", "e4b"]  # `full` is e4b again
    (text / "plans.json").write_text('{"one": {}}')
    assert schedule_of(tmp_path, text, config) == ["one"]
    named = "objective.rungs={one: 1, e2b: 1}"  # which has to be said
    assert schedule_of(tmp_path, text, config, named) == ["one", "e2b"]


def test_a_plan_that_the_shape_does_not_allow_is_named(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, model__plans={"small": {"layers": [0, 4, 5]}, "large": {}})
    recipe = Recipe.from_file(path)
    with pytest.raises(PlanError, match=r"^model.plans.small: layer 1 cannot be skipped"):
        make_schedule(recipe, nest(make_model(recipe.model, 0).model))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 65}, r"The hidden size \(65\) is not a multiple of the number of att"),
        ({"num_attention_heads": 3}, r"The hidden size \(32\) is not a multiple"),
    ],
)
def test_a_shape_that_transformers_refuses_is_one_of_the_recipe(
    changes: dict[str, int], said: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^model.config: {said}"):
        make_model(ModelRecipe(config={**CONFIG, **changes}, plans={"large": {}}), 0)


def test_a_packed_start_says_how_to_unpack_it() -> None:
    with pytest.raises(CheckpointError, match=rf"`matryo unpack DIR -m {TOKENIZER}` writes"):
        start(TOKENIZER)


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("TimmWrapperModel requires the timm library but it was not found", TIMM),
        ("Loading a GGUF checkpoint requires both PyTorch and GGUF>=0.10.0", "'matryo[train]'"),
    ],
)
def test_a_package_that_is_not_there_is_named_with_what_installs_it(
    text: Path, monkeypatch: pytest.MonkeyPatch, said: str, advice: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ImportError(said)

    monkeypatch.setattr("transformers.Gemma3nForCausalLM.from_pretrained", fails)
    with pytest.raises(CheckpointError, match=r"text: needs ") as told:
        start(text)
    assert advice in str(told.value) and "fetch" not in str(told.value)
    page = Path(__file__).parents[2] / "docs" / "training.md"
    assert page.read_text("utf-8").count(TIMM) == 2
    assert needed(ImportError("No module", name="tiktoken")).endswith("pip install tiktoken")
