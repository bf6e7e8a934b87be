"""A dense model becomes elastic: every width better than a raw prefix, the full one as it was."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from helpers.dense import dense_directory, write_texts
from helpers.recipes import sentences
from matryo.checkpoint.slice_dense import DenseCheckpoint, find_width, slice_dense
from matryo.cli.app import app
from matryo.errors import (
    CapacityError,
    CheckpointError,
    ConfigError,
    InputError,
    PlanError,
    TrainingError,
)
from matryo.train import elasticize as elasticize_module
from matryo.train import recover as recover_module
from matryo.train.elasticize import Options, elasticize
from matryo.train.recover import Recovery

QUESTIONS = '{"query": "the house was", "choices": ["old", "rain and a garden"], "gold": 0}\n'


def quiet(message: str) -> None:
    """Nobody reads along."""


def options(directory: Path, target: str = "out", **changes: Any) -> Options:
    recovery = Recovery(steps=6, rows=2, vocabulary=512, save_every=2, rate=1e-3)
    values: dict[str, Any] = {
        "source": directory / "model",
        "target": directory / target,
        "texts": (directory / "texts.txt",),
        "shares": (25, 50),
        "calibration": 8,
        "measured": 4,
        "sequence": 24,
        "recovery": recovery,
        "dtype": "f32",
        "threads": 1,
    }
    return Options(**{**values, **changes})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("elastic")
    dense_directory(directory / "model", "gemma3_text")
    write_texts(directory)
    (directory / "questions.jsonl").write_text(QUESTIONS * 3)
    yield directory


@pytest.fixture(scope="module")
def made(place: Path) -> Any:
    return elasticize(
        options(place, "made", questions={"garden": place / "questions.jsonl"}), say=quiet
    )


def test_every_width_is_measured_at_every_stage(made: Any, place: Path) -> None:
    assert made.widths == {"w25": 32, "w50": 64, "w100": 128}
    assert list(made.stages) == ["before", "ordered", "fitted", "recovered"]
    for stage, widths in made.stages.items():
        assert list(widths) == ["w25", "w50", "w100"]
        for found in widths.values():
            assert found["perplexity"].low <= found["perplexity"].value
            assert ("garden" in found) == (stage != "fitted")
    assert made.stages["before"]["w100"] == made.stages["ordered"]["w100"]
    assert "perplexity [95 %" in made.table() and "garden [95 %" in made.table()
    written = json.loads((place / "made" / "elastic.json").read_text())
    assert written == json.loads(json.dumps(made.to_json()))


def test_the_files_are_an_ordinary_checkpoint(made: Any, place: Path) -> None:
    names = sorted(path.name for path in (place / "made").iterdir())
    assert names == sorted(
        ["config.json", "elastic.json", "generation_config.json", "log.jsonl", "model.safetensors",
         "plans.json", "tokenizer.json", "tokenizer_config.json"]
    )  # fmt: skip
    plans = json.loads((place / "made" / "plans.json").read_text())
    assert plans["w25"] == {"layers": [0, 1, 2], "ffn_width": [32] * 3}
    before, after = (load_file(place / d / "model.safetensors") for d in ("model", "made"))
    assert before.keys() == after.keys()
    for name in before:
        same = torch.equal(before[name], after[name])
        assert same == (".mlp." not in name), name


def test_order_alone_changes_no_answer(place: Path) -> None:
    o = options(place, "ordered", fit=False, recovery=Recovery(steps=0))
    report = elasticize(o, say=quiet)
    assert list(report.stages) == ["before", "ordered"]
    ids = torch.tensor([[2, 5, 300, 41, 7]])
    first, second = (
        AutoModelForCausalLM.from_pretrained(place / d, dtype=torch.float32)
        for d in ("model", "ordered")
    )
    with torch.no_grad():
        assert torch.allclose(first(ids).logits, second(ids).logits, atol=1e-5)
    weights = load_file(place / "ordered" / "model.safetensors")
    assert not torch.equal(weights["model.layers.0.mlp.down_proj.weight"],
                           load_file(place / "model" / "model.safetensors")[
                               "model.layers.0.mlp.down_proj.weight"])  # fmt: skip


def test_a_slice_is_the_width(made: Any, place: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["slice", str(place / "made"), str(tmp_path / "w50"), "--size", "w50"]
    )
    assert result.exit_code == 0, result.output
    assert "FFN 64; for transformers" in result.stderr
    small = AutoModelForCausalLM.from_pretrained(tmp_path / "w50", dtype=torch.float32)
    assert small.config.intermediate_size == 64
    assert AutoTokenizer.from_pretrained(tmp_path / "w50")("the house").input_ids
    from matryo.train.dense import at_width, open_dense

    whole, _ = open_dense(place / "made")
    ids = torch.tensor([[2, 5, 300, 41, 7]])
    with torch.no_grad(), at_width(whole, 64):
        assert torch.allclose(whole(ids).logits, small(ids).logits, atol=1e-5)


def test_widths_that_are_not_there_are_named(made: Any, place: Path, tmp_path: Path) -> None:
    checkpoint = DenseCheckpoint.open(place / "made")
    assert find_width(checkpoint, "96") == 96
    with pytest.raises(PlanError, match="no width named 'w75'; there are w25, w50, w100"):
        find_width(checkpoint, "w75")
    for units in ("40", "160"):
        with pytest.raises(PlanError, match="a multiple of 32 up to the 128"):
            find_width(checkpoint, units)
    with pytest.raises(CheckpointError, match="run `matryo elasticize` first"):
        find_width(DenseCheckpoint.open(place / "model"), "w50")
    odd = dataclasses.replace(checkpoint, config={**checkpoint.config, "intermediate_size": 192})
    with pytest.raises(CheckpointError, match="is no FFN of this width"):
        slice_dense(odd, 64, tmp_path / "x")
    assert not (tmp_path / "x").exists()


class Stopped(Exception):
    """What stands for a killed process."""


def test_a_stopped_run_continues_with_the_same_numbers(
    made: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss_of, calls = recover_module._loss, 0

    def stop(*rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Stopped
        return loss_of(*rest)

    o = options(place, "torn", questions={"garden": place / "questions.jsonl"})
    monkeypatch.setattr(recover_module, "_loss", stop)
    with pytest.raises(Stopped):
        elasticize(o, say=quiet)
    with pytest.raises(ConfigError, match=r"other options: calibration was 8, is 4"):
        elasticize(dataclasses.replace(o, calibration=4), say=quiet)
    with pytest.raises(CheckpointError, match="is unfinished"):
        DenseCheckpoint.open(place / "torn")
    monkeypatch.setattr(recover_module, "_loss", loss_of)
    said: list[str] = []
    report = elasticize(o, say=said.append)
    assert "continuing after step 2" in said
    assert report == made
    for name in ("model.safetensors", "elastic.json"):
        assert (place / "torn" / name).read_bytes() == (place / "made" / name).read_bytes()
    with pytest.raises(ConfigError, match="holds a finished model"):
        elasticize(o, say=quiet)


def test_other_questions_are_asked_at_every_stage_of_a_continued_run(
    made: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*rest: Any) -> Any:
        raise Stopped

    (place / "other.jsonl").write_text(QUESTIONS.replace('"gold": 0', '"gold": 1') * 2)
    first = options(
        place, "asked", questions={"garden": place / "other.jsonl", "old": place / "other.jsonl"}
    )
    with monkeypatch.context() as patched:
        patched.setattr(recover_module, "_loss", stop)
        with pytest.raises(Stopped):
            elasticize(first, say=quiet)
    both = {"more": place / "other.jsonl", "garden": place / "questions.jsonl"}
    report = elasticize(dataclasses.replace(first, questions=both), say=quiet)
    for stage, widths in report.stages.items():
        for name, found in widths.items():
            # `garden` is another file now, `old` is asked no more.
            wanted = ["perplexity"] if stage == "fitted" else ["perplexity", "more", "garden"]
            assert list(found) == wanted
            known = made.stages[stage][name]
            assert {task: found[task] for task in known} == known


def test_the_distillation_pulls_every_width_to_the_model_as_it_was(tmp_path: Path) -> None:
    dense_directory(tmp_path / "model", "llama")
    write_texts(tmp_path)
    recovery = Recovery(steps=40, rows=2, vocabulary=0, rate=1e-2)
    report = elasticize(options(tmp_path, fit=False, recovery=recovery, shares=(25,)), say=quiet)
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    narrow = [record["losses"]["w25"] for record in log if "w25" in record["losses"]]
    whole = [record["losses"]["w100"] for record in log if "w100" in record["losses"]]
    assert sum(narrow[-5:]) < 0.9 * sum(narrow[:5])
    assert max(whole) < min(narrow) and narrow and whole
    assert report.stages["recovered"]["w100"]["perplexity"].value == pytest.approx(
        report.stages["before"]["w100"]["perplexity"].value, rel=0.1
    )


def test_the_loss_is_a_plain_computation_and_leaves_the_teacher_alone(place: Path) -> None:
    from torch.nn import functional

    from matryo.train.dense import at_width, open_dense
    from matryo.train.recover import _loss, ffn_weights

    model, _ = open_dense(place / "model")
    teacher, _ = open_dense(place / "model")
    model.requires_grad_(False)
    original = ffn_weights(model)
    for layer in model.model.layers:
        layer.mlp.requires_grad_(True)
        with torch.no_grad():
            layer.mlp.down_proj.weight.add_(0.1)
    ids = torch.randint(1, 4096, (2, 11), generator=torch.Generator().manual_seed(1))
    kept = torch.arange(0, 4096, 3)
    loss, divergence = _loss(model, original, ids, 64, kept, 0.5)
    with torch.no_grad(), at_width(model, 64):
        ours = torch.log_softmax(model(ids).logits[..., kept], -1)
        states = model.model(ids).last_hidden_state
        theirs = torch.log_softmax(teacher(ids).logits[..., kept], -1)
        wanted = teacher.model(ids).last_hidden_state
    expected = functional.kl_div(ours, theirs, log_target=True, reduction="none").sum(-1).mean()
    distance = (states - wanted).square().sum(-1) / wanted.square().sum(-1)
    assert divergence == pytest.approx(float(expected), rel=1e-4)
    assert loss.item() == pytest.approx(float(expected + 0.5 * distance.mean()), rel=1e-4)
    loss.backward()
    grads = model.model.layers[0].mlp.up_proj.weight.grad
    assert grads[:64].any() and not grads[64:].any()
    assert model.model.embed_tokens.weight.grad is None
    assert all(weight.grad is None for layer in original for weight in layer)


def test_what_cannot_be_used_is_said(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no calibration text is given"):
        options(place, texts=())
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(InputError, match="no text"):
        elasticize(options(place, "a", texts=(tmp_path / "empty.txt",)), say=quiet)
    (tmp_path / "short.txt").write_text("the house")
    with pytest.raises(InputError, match="too few to measure on a part of them"):
        elasticize(options(place, "b", texts=(tmp_path / "short.txt",)), say=quiet)
    dense_directory(tmp_path / "narrow", "llama", vocab_size=1024)
    with pytest.raises(ConfigError, match="the tokenizer has 8196 tokens, the model 1024"):
        elasticize(options(place, "c", source=tmp_path / "narrow"), say=quiet)
    dense_directory(tmp_path / "broken", "llama")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "broken")
    model.model.layers[1].mlp.up_proj.weight.data.fill_(torch.nan)
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(CheckpointError, match="layer 1: holds weights that are no numbers"):
        elasticize(options(place, "d", source=tmp_path / "broken"), say=quiet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shares": ()}, "no width besides the full one"),
        ({"shares": (100,)}, "no width besides the full one"),
        ({"threads": 0}, "threads is 0; expected at least 1"),
        ({"sequence": 1}, "sequence is 1; expected at least 2"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
    ],
)
def test_options_out_of_range_are_named(place: Path, change: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        options(place, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps is -1; expected at least 0"),
        ({"rows": 0}, "rows is 0; expected at least 1"),
        ({"vocabulary": -1}, "vocabulary is -1; expected at least 0"),
        ({"save_every": 0}, "save_every is 0; expected at least 1"),
        ({"rate": 0.0}, "rate is 0; expected a number above 0"),
        ({"rate": float("nan")}, "rate is nan; expected a number above 0"),
        ({"hidden": -0.5}, "hidden is -0.5; expected a number from 0"),
    ],
)
def test_a_distillation_out_of_range_is_named(change: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recovery(**change)


@pytest.mark.parametrize(
    ("option", "value"),
    [("threads", "0"), ("rows", "0"), ("rate", "-1"), ("steps", "-1"), ("vocabulary", "-1"),
     ("calibration", "0"), ("measured", "0"), ("sequence", "1"), ("seed", "-1")],
)  # fmt: skip
def test_the_command_names_the_option_that_is_out_of_range(option: str, value: str) -> None:
    words = ["elasticize", "model", "out", "--texts", "t.txt", f"--{option}", value]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 2 and f"Invalid value for '--{option}'" in done.stderr


def test_what_cannot_be_begun_leaves_the_directory_as_it_was(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    o = dataclasses.replace(options(place), target=target)
    with pytest.raises(CheckpointError, match="expected a Hugging Face directory"):
        elasticize(dataclasses.replace(o, source=tmp_path), say=quiet)
    assert not target.exists()
    (target / "work").mkdir(parents=True)
    (target / "letter.txt").write_text("dear")
    with pytest.raises(CheckpointError, match=r"target: the directory is not empty"):
        elasticize(o, say=quiet)
    assert sorted(path.name for path in target.iterdir()) == ["letter.txt", "work"]


def test_a_full_disk_is_named_at_every_stage(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*rest: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left (os error 28)")

    o = options(place, "full", recovery=Recovery(steps=0), fit=False)
    with monkeypatch.context() as patched:
        patched.setattr(elasticize_module, "save_file", full)
        with pytest.raises(CapacityError, match=r"full: No space left.*run the same command again"):
            elasticize(o, say=quiet)
    assert elasticize(o, say=quiet).widths == {"w25": 32, "w50": 64, "w100": 128}


def test_weights_that_are_no_numbers_are_not_saved(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Any) -> None:
        self.param_groups[0]["params"][0].data.fill_(torch.nan)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    o = options(place, "bad", recovery=Recovery(steps=1, rows=1, vocabulary=64))
    with pytest.raises(TrainingError, match=r"a weight is not a number after step 1.*lower the"):
        elasticize(o, say=quiet)
    assert not list((place / "bad" / "work").rglob("step-*"))
    assert not (place / "bad" / "config.json").exists()


def test_a_loss_that_is_no_number_stops(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*rest: Any) -> tuple[torch.Tensor, float]:
        loss, divergence = loss_of(*rest)
        return loss * float("nan"), divergence

    loss_of = recover_module._loss
    monkeypatch.setattr(recover_module, "_loss", none)
    with pytest.raises(TrainingError, match=r"loss at w\d+ is not a number at step 1, rows "):
        elasticize(options(place, "nan"), say=quiet)


def test_the_command(place: Path, tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text(sentences(900, 40))
    command = ["elasticize", str(place / "model"), str(tmp_path / "cli"), "--texts"]
    command += [str(place / "texts.txt"), "--held-out", str(tmp_path / "held.txt"), "--widths"]
    command += ["50", "--steps", "2", "--rows", "1", "--sequence", "16", "--threads", "1"]
    command += ["--calibration", "4", "--measured", "2", "--questions"]
    command += [f"garden={place / 'questions.jsonl'}"]
    bad = CliRunner().invoke(app, [*command, "--measure", "size"])
    assert bad.exit_code == 1 and "expected one of taylor, activation, weight" in bad.stderr
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "recovered w50: perplexity" in done.stderr and "95 % interval" in done.stderr
    config = json.loads((tmp_path / "cli" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
