"""Both encoders are trained, alone and with the decoder; what is exported sees and hears."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import matryo
from helpers.media_rows import write_media_recipe
from matryo.errors import ConfigError
from matryo.train.auxiliary import Auxiliary, spoken
from matryo.train.journal import read
from matryo.train.loop import Report, main
from matryo.train.recipe import Recipe


def run(path: Path, *settings: str) -> Report:
    return main(Recipe.from_file(path, settings), say=lambda message: None)


def weights(output: Path, step: int) -> dict[str, torch.Tensor]:
    path = output / "checkpoints" / f"step-{step:08d}.pt"
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["weights"]
    return found


def test_a_run_teaches_every_part_and_exports_what_it_taught(tmp_path: Path) -> None:
    path = write_media_recipe(
        tmp_path, export__packed=["q8"], save_every=1, keep=9, data__held_out=["rows.jsonl"],
        objective__divergence=0.3, objective__mode="sum",
    )  # fmt: skip
    report = run(path)
    assert [one.path.name for one in report.exported] == ["hf", "q8"]
    assert set(report.held_out) == {"small", "large", "classes", "ctc"}
    before, after = weights(tmp_path / "out", 1), weights(tmp_path / "out", 4)
    for name in (
        "vision_tower.timm_model.conv_stem.conv.weight", "embed_vision.embedding_projection.weight",
        "audio_tower.subsample_conv_projection.conv_0.conv.weight", "embed_audio.embedding.weight",
        "audio_tower.conformer.2.ffw_layer_end.ffw_layer_1.weight",
        "language_model.layers.3.self_attn.k_proj.weight",
    ):  # fmt: skip
        assert not torch.equal(before[f"model.{name}"], after[f"model.{name}"]), name
    with matryo.load(tmp_path / "out" / "q8") as model:
        session = model.session()
        picture = {"type": "image", "image": tmp_path / "media/0.png"}
        session.prefill([{"role": "user", "content": [picture, {"type": "text", "text": "a"}]}])
        assert len(session.ids) > 16


def test_stages_follow_each_other_and_frozen_parts_stay(tmp_path: Path) -> None:
    path = write_media_recipe(tmp_path, model__freeze=["text"], save_every=1, keep=9)
    run(path, "objective.decoder=false", "schedule.steps=2", "export.dtype=f32")
    losses = read(tmp_path / "out")[0]["losses"]
    assert set(losses) <= {"classes", "ctc"} and losses
    settings = [
        "output=next", "model.start=out/hf", "model.config={}", "model.plans={}",
        "model.freeze=[vision, audio]", "objective.classes=0", "objective.ctc=0",
        "schedule.steps=2", "export.dtype=f32",
    ]  # fmt: skip
    run(path, *settings)
    # Checkpoints hold what learns, so that the exported directories are compared.
    first, second = (load_file(tmp_path / n / "hf/model.safetensors") for n in ("out", "next"))
    assert first.keys() == second.keys()
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed and all(".language_model." in name for name in changed)
    frozen = "model.freeze=[text, vision_tower, audio_tower]"
    run(path, *settings, frozen, "output=third", "schedule.steps=4")
    third = load_file(tmp_path / "third/hf/model.safetensors")
    changed = {name for name in first if not torch.equal(first[name], third[name])}
    assert changed and all(".embed_vision." in name or ".embed_audio." in name for name in changed)


def test_a_stopped_run_continues_with_its_pictures_and_heads(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    whole, torn = (write_media_recipe(tmp_path / name, save_every=2) for name in "ab")
    run(whole)
    run(torn, "schedule.steps=2", "schedule.decay=0")
    run(torn, "schedule.decay=0")
    run(whole, "schedule.decay=0", "output=again")

    def curve(output: Path) -> list[Any]:
        return [(one["losses"], one["gradient_norm"]) for one in read(output)]

    assert curve(tmp_path / "b/out") == curve(tmp_path / "a/again")


def test_classes_and_letters_are_learned() -> None:
    torch.manual_seed(0)
    heads = Auxiliary(8, ["cat", "dog"], ["Aba!"], classes=1.0, ctc=1.0)
    soft = torch.randn(2, 3, 8, requires_grad=True)
    optimizer = torch.optim.Adam([soft, *heads.parameters()], 0.1)
    for _ in range(60):
        shown, said = heads.classes(soft, [["dog"], []]), heads.ctc(soft, [3, 1], ["aba", "ab"])
        assert shown is not None and said is not None
        optimizer.zero_grad()
        (shown + said).backward()
        optimizer.step()
    assert heads.right(soft, [["dog"], ["fox"]], ["cat", "dog", "fox"]) == (1, 1)
    assert said is not None and said.item() < 0.1
    # What no head knows, and what does not fit into its sound, teaches nothing.
    assert heads.classes(soft, [["fox"], []]) is None
    assert heads.ctc(soft, [3, 1], [None, "aaaa"]) is None
    assert spoken("  L'été, 3 fois… ") == "l'été 3 fois"


def test_the_labels_of_a_picture_are_equally_likely() -> None:
    heads = Auxiliary(4, ["cat", "dog", "pet", "tree"], [], classes=1.0, ctc=0.0)
    soft = torch.randn(1, 3, 4)
    both = heads.classes(soft, [["pet", "cat"]])
    each = [heads.classes(soft, [[name]]) for name in ("pet", "cat")]
    assert both is not None and each[0] is not None and each[1] is not None
    assert both.item() == pytest.approx((each[0] + each[1]).item() / 2)
    # A label that was not trained on counts for nothing.
    assert heads.classes(soft, [["pet", "cat", "fox"]]) == both
    best = max(heads.labels, key=lambda name: heads.right(soft, [[name]], heads.labels)[0])
    assert heads.right(soft, [["fox", best]], heads.labels) == (1, 1)
    other = next(name for name in heads.labels if name != best)
    assert heads.right(soft, [[other]], heads.labels) == (0, 1)
    assert heads.right(soft, [[other]], [other, "fox"]) == (1, 1)  # the best is no answer here


def test_a_recipe_that_cannot_run_says_why(tmp_path: Path) -> None:
    path = write_media_recipe(tmp_path)
    with pytest.raises(ConfigError, match="no row has a label"):
        run(path, "data.label=concept")
    with pytest.raises(ConfigError, match="give classes or ctc a weight"):
        run(path, "objective.decoder=false", "objective.classes=0", "objective.ctc=0")
    with pytest.raises(ConfigError, match="nothing to train"):
        run(path, "model.freeze=[text, vision, audio]")
    with pytest.raises(ConfigError, match="either files, one source, or mix"):
        run(path, "data.files=[rows.jsonl]")
    with pytest.raises(ConfigError, match="expected more than 0"):
        run(path, "data.mix=[{files: [rows.jsonl], weight: 0}]")


def test_the_draw_of_sources_follows_their_weights() -> None:
    from matryo.train.data import Corpus
    from matryo.train.mixture import Mixture

    texts = [Corpus(np.arange(n, dtype=np.int32), 1, 1, (), str(n), n) for n in (41, 61)]
    mixture = Mixture(texts, [3.0, 1.0], 4, seed=0)
    position: Sequence[int] = mixture.start
    seen: list[tuple[int, int]] = []
    for step in range(40):
        rows, after = mixture.rows(step, position, 10)
        assert mixture.rows(step, position, 10) == (rows, after)
        seen, position = seen + rows, after
    assert position[0] + position[1] == 400 and 270 < position[0] < 330
    # Every row once an epoch.
    assert len({row for source, row in seen if source == 0}) == 10
