"""A step's gradients and losses are those of its rows, however these are split into batches."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from helpers.media_rows import write_media_recipe
from matryo.inputs.tokenizer import Tokenizer
from matryo.plan import Plan, full_plan
from matryo.train.features import KINDS, EncoderTeacher
from matryo.train.mixture import Mixture
from matryo.train.nested import nest
from matryo.train.objective import LossWeights, NestedObjective
from matryo.train.recipe import Recipe
from matryo.train.sources import make_encoders, open_data
from matryo.train.start import make_model
from matryo.train.step import StepRows, accumulate, evaluate, prepare
from matryo.train.widths import Pass

ACCELERATOR: Any = SimpleNamespace(
    device=torch.device("cpu"), num_processes=1, process_index=0, autocast=nullcontext
)
PARTS = ("classes", "ctc", "vision features", "audio features")


def quiet(message: str) -> None:
    """Nobody reads along."""


class Prepared:
    """A model, its heads and its rows, as a run has them before its first step."""

    def __init__(self, directory: Path) -> None:
        path = write_media_recipe(directory, data__picture_changes=0.0, data__sound_changes=0.0)
        self.recipe = Recipe.from_file(path, ["data.mix=[]", "data.files=[rows.jsonl]"])
        start = make_model(self.recipe.model, 5)
        self.config = nest(start.model)
        tokenizer = Tokenizer.from_file(start.directory / "tokenizer.json", bos_id=2)
        corpora, _ = open_data(self.recipe, start, self.config, tokenizer, quiet)
        self.corpus = corpora[0]
        self.rows = Mixture(corpora, [1.0], self.recipe.data.sequence, 5)
        self.objective = NestedObjective(start.model, LossWeights())
        encoders = make_encoders(self.recipe, start, self.config, corpora)
        assert encoders is not None
        torch.manual_seed(1)
        teacher = EncoderTeacher(copy.deepcopy(start.model))
        for weight in teacher.model.model.embed_vision.parameters():
            weight.copy_(torch.randn(weight.shape))
        encoders.auxiliary.learn_features(self.config.hidden_size, teacher.width, KINDS, weight=1.0)
        self.encoders = replace(encoders, teacher=teacher)

    def taken(self, rows: int, count: int) -> StepRows:
        """Of nine rows: three with a picture, three with a clip, three with neither."""
        recipe = replace(self.recipe, rows=rows, accumulate=count)
        return prepare(self.rows, 0, self.rows.start, recipe, ACCELERATOR)

    def gradients(
        self, rows: StepRows, passes: tuple[Pass, ...], part: str
    ) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """By name, with one auxiliary loss alone beside the passes; and the losses."""
        auxiliary = self.encoders.auxiliary
        auxiliary.weights = {name: float(name == part) for name in PARTS}
        both = torch.nn.ModuleList([self.objective, auxiliary])
        both.zero_grad(set_to_none=True)
        values = accumulate(self.objective, self.encoders, passes, rows, ACCELERATOR)
        found = {n: w.grad.clone() for n, w in both.named_parameters() if w.grad is not None}
        return found, values["losses"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("step"))


@pytest.mark.parametrize("part", [*PARTS, "decoder"])
def test_a_step_is_the_same_however_its_rows_are_split(prepared: Prepared, part: str) -> None:
    passes = (Pass("large", full_plan(prepared.config), 1.0),) if part == "decoder" else ()
    wanted, losses = prepared.gradients(prepared.taken(8, 1), passes, part)
    got, again = prepared.gradients(prepared.taken(2, 4), passes, part)
    scale = max(float(value.abs().max()) for value in wanted.values())
    assert scale > 0 and got.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float((got[name] - value).abs().max()) <= 1e-4 * scale, name
    assert again == pytest.approx(losses, rel=1e-4)


def test_held_out_letters_count_the_same_however_rows_are_split(prepared: Prepared) -> None:
    alone = replace(prepared.recipe, objective=replace(prepared.recipe.objective, decoder=False))
    found = []
    for rows in (9, 2):
        recipe = replace(alone, rows=rows)
        values = evaluate(prepared.objective, prepared.encoders, {}, prepared.corpus, recipe)
        found.append(values["ctc"]["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_passes_of_one_name_are_one_mean(prepared: Prepared) -> None:
    wide = full_plan(prepared.config)
    narrow = Plan(wide.layers, (32,) * len(wide.layers), wide.num_owners)
    rows = prepared.taken(3, 1)
    alone = [
        prepared.gradients(rows, (Pass("mix", plan, 1.0),), "")[1]["mix"]
        for plan in (wide, narrow)
    ]  # fmt: skip
    assert alone[0] != alone[1]
    passes = (Pass("mix", wide, 0.5), Pass("mix", narrow, 0.5))
    _, losses = prepared.gradients(rows, passes, "")
    assert losses["mix"] == pytest.approx(sum(alone) / 2)
