"""Whole runs: they learn, they survive being killed, they stop where a number is none."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

import matryo
from helpers.recipes import PLANS, VOCABULARY, write_recipe
from matryo.errors import CapacityError, CheckpointError, ConfigError, TrainingError
from matryo.train import export, journal, loop, resume
from matryo.train.journal import line, read
from matryo.train.loop import Report, _drawn, main
from matryo.train.recipe import Recipe
from matryo.train.step import accumulate

RUN = """
import sys
from matryo.train import importable
importable.install()
from pathlib import Path
from matryo.train.loop import main
from matryo.train.recipe import Recipe
main(Recipe.from_file(Path(sys.argv[1])))
"""
CURVE = ("losses", "divergences", "rate", "gradient_norm")


def quiet(message: str) -> None:
    """Nobody reads along."""


def run(path: Path, *settings: str) -> Report:
    return main(Recipe.from_file(path, settings), say=quiet)


def curve(output: Path) -> list[dict[str, Any]]:
    """What must be the same however often a run was stopped."""
    return [
        {key: record.get(key) for key in ("step", *CURVE)}
        for record in read(output)
        if "losses" in record
    ]


def killed_after(path: Path, step: int) -> None:
    """Runs a recipe in a process of its own and kills it once it has logged `step`."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    log = path.parent / "out" / "log.jsonl"
    with subprocess.Popen([sys.executable, "-c", RUN, str(path)], env=environment) as process:
        until = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < until:
            if log.exists() and len(log.read_text().splitlines()) >= step:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL


def test_a_killed_run_continues_with_the_same_curve(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    # More steps than can be taken between the line that is waited for and the kill.
    options: dict[str, Any] = {"optimizer__name": "muon", "schedule__steps": 14}
    whole, torn = (write_recipe(tmp_path / name, **options) for name in "ab")
    killed_after(torn, 4)
    saved = resume.newest(tmp_path / "b" / "out" / "checkpoints")
    assert saved is not None and len(curve(tmp_path / "b" / "out")) < 14
    report = run(torn)
    assert report.steps == 14 and len(report.exported) == 1
    run(whole)
    assert curve(tmp_path / "b" / "out") == curve(tmp_path / "a" / "out")
    final = [resume.newest(tmp_path / n / "out" / "checkpoints") for n in "ab"]
    ours, theirs = (torch.load(path, weights_only=True) for path in final if path)
    for name, value in ours["weights"].items():
        assert torch.equal(value, theirs["weights"][name]), name


def test_a_run_learns_measures_and_exports_every_size(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path,
        schedule__steps=16,
        objective={"mode": "sum", "divergence": 0.2, "hidden": 0.1},
        optimizer__rate=0.03,
        data__held_out=["held-out.txt"],
        data__held_out_rows=4,
        evaluate_every=8,
        save_every=100,
        export__packed=["q8"],
    )
    said: list[str] = []
    report = main(Recipe.from_file(path), say=said.append)
    out = tmp_path / "out"
    first, last = read(out)[0]["losses"], report.losses
    for rung in ("small", "large"):
        assert last[rung] < first[rung] - 1.0
        assert report.held_out[rung]["loss"] < first[rung] - 1.0
        assert 0.1 < report.held_out[rung]["bits_per_byte"] < 8
    assert [one.path for one in report.exported] == [out / "hf", out / "q8"]
    with matryo.load(out / "q8") as model:
        assert set(model.plans) >= {"small", "large"}
        assert model.logits([2, 105], "small").shape == (2, VOCABULARY)
    assert (out / "loss.svg").read_text().count("held out") >= 2
    assert list((out / "tensorboard").glob("events.*"))
    record = read(out)[0]
    assert record["tokens_per_second"] > 0 and 0 < record["peak_share"] <= 1
    assert line(record) in said and "tokens/s" in line(record) and "left" in line(record)
    assert any(text.startswith("step 16  held out: small ") for text in said)
    # The pad row of the per-layer table, which stands for pictures and sounds, did not move.
    weights = torch.load(next((out / "checkpoints").iterdir()), weights_only=True)["weights"]
    assert not weights["model.embed_tokens_per_layer.weight"][0].any()


def test_accumulated_steps_are_those_of_larger_ones(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    options: dict[str, Any] = {"schedule__steps": 4, "export__tokens": 8}
    run(write_recipe(tmp_path / "a", rows=4, **options))
    run(write_recipe(tmp_path / "b", rows=2, accumulate=2, **options))
    for ours, theirs in zip(curve(tmp_path / "a/out"), curve(tmp_path / "b/out"), strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)


def test_a_loss_that_is_no_number_stops_before_the_weights_are_spoilt(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, save_every=1, keep=1)
    run(path, "schedule.steps=2")
    with pytest.raises(TrainingError) as caught:
        broken = resume.newest(tmp_path / "out" / "checkpoints")
        assert broken is not None
        state = torch.load(broken, weights_only=True)
        state["weights"]["model.layers.1.mlp.up_proj.weight"].fill_(torch.nan)
        torch.save(state, broken)
        run(path, "schedule.steps=4")
    message = str(caught.value)
    assert "is not a number at step 3, rows " in message and "step-00000002.pt" in message
    assert [r["step"] for r in read(tmp_path / "out")] == [1, 2]


def test_weights_that_are_no_numbers_are_not_saved_and_what_is_advised_helps(
    tmp_path: Path,
) -> None:
    path = write_recipe(tmp_path, save_every=1, keep=1)
    run(path, "schedule.steps=2")
    with pytest.raises(TrainingError, match=r"after step 3, which is not saved.*lower opt") as told:
        run(path, "schedule.steps=4", "optimizer.rate=1e300")
    saved = tmp_path / "out/checkpoints/step-00000002.pt"
    assert str(saved) in str(told.value)
    assert list((tmp_path / "out/checkpoints").iterdir()) == [saved]
    advised = ["rate=0.001", "embedding_rate=0.001", "vector_rate=0.001", "clip=0.5"]
    assert run(path, "schedule.steps=4", *(f"optimizer.{one}" for one in advised)).steps == 4


def test_a_rate_that_was_changed_is_the_one_of_the_next_step(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, keep=2, optimizer__name="muon")
    run(path, "schedule.steps=2")
    run(path, "schedule.steps=3", "optimizer.rate=0")
    saved = resume.every(tmp_path / "out" / "checkpoints")
    before, after = (torch.load(one, weights_only=True)["weights"] for one in saved)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_held_out_loss_that_is_no_number_stops_after_the_step_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(tmp_path, data__held_out=["held-out.txt"], schedule__steps=2)
    with monkeypatch.context() as patched:
        patched.setattr(loop, "evaluate", lambda *_: {"small": {"loss": float("nan")}})
        with pytest.raises(TrainingError, match=r"held-out loss of small.*step-00000002.pt; lower"):
            run(path)
    assert ["losses" in record for record in read(tmp_path / "out")] == [True, True]
    # What is still to be measured is measured when the run goes on.
    assert run(path).held_out["small"]["loss"] > 0
    assert [record["step"] for record in read(tmp_path / "out")] == [1, 2, 2]


def test_held_out_texts_that_fill_no_row_are_refused_before_the_first_step(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, data__held_out=["held-out.txt"])
    (tmp_path / "held-out.txt").write_text("the house")
    with pytest.raises(ConfigError, match=r"data.held_out has \d tokens; one row needs 17: add"):
        run(path)
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_a_finished_run_reports_what_it_reported(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, data__held_out=["held-out.txt"], evaluate_every=2)
    first, log = run(path), read(tmp_path / "out")
    assert run(path) == first and read(tmp_path / "out") == log
    assert set(first.losses) == {name for record in log for name in record.get("losses", {})}
    assert set(first.held_out) == set(PLANS)


@pytest.mark.parametrize("place", ["log.jsonl", "model.safetensors"])
def test_a_disk_that_fills_elsewhere_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = write_recipe(tmp_path, schedule__steps=2)

    def full(*_: object) -> None:
        if place == "log.jsonl":
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        raise SafetensorError("Error while serializing: I/O error: ... (os error 28)")

    with monkeypatch.context() as patched:
        name = "save_file" if place == "model.safetensors" else "replace_text"
        patched.setattr(export if place == "model.safetensors" else journal, name, full)
        with pytest.raises(CapacityError, match=r"out: .*: free some space and run the same comm"):
            run(path)
    assert len(run(path).exported) == 1


def test_an_error_of_torch_that_is_no_full_disk_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("cannot pickle")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="cannot pickle"):
        run(write_recipe(tmp_path))


def test_every_process_draws_otherwise_and_the_same_again() -> None:
    drawn = {_drawn(seed, step, rank) for seed in (0, 7) for step in (0, 1) for rank in (0, 1)}
    assert len(drawn) == 8 and drawn == {
        _drawn(seed, step, rank) for seed in (0, 7) for step in (0, 1) for rank in (0, 1)
    }


def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = write_recipe(tmp_path, save_every=1), torch.save

    def full(state: dict[str, Any], file: Any) -> None:
        file.write(b"begun")
        if state["step"] == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        file.seek(0)
        write(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CapacityError, match=r"step-00000003.pt: No space left.*from step-00000002"):
        run(path)
    assert [f.name for f in sorted((tmp_path / "out/checkpoints").iterdir())] == [
        "step-00000001.pt",
        "step-00000002.pt",
    ]
    monkeypatch.setattr(torch, "save", write)
    assert run(path).steps == 6


def test_another_recipe_in_the_same_place_is_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    run(path, "schedule.steps=1")
    tokens = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/tokens").iterdir()}
    (tmp_path / "other.txt").write_text("the house was old. " * 20)
    with pytest.raises(ConfigError, match=r"another recipe: data.files was "):
        run(path, "data.files=[other.txt]")
    assert tokens == {f: f.stat().st_mtime_ns for f in (tmp_path / "out/tokens").iterdir()}
    with pytest.raises(ConfigError, match="another recipe: rows was 2, is 4"):
        run(path, "rows=4")
    texts = tmp_path / "texts.jsonl"
    texts.write_text(texts.read_text() + texts.read_text())
    with pytest.raises(ConfigError, match="texts or media have changed since step 1"):
        run(path)
    next((tmp_path / "out" / "checkpoints").iterdir()).write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="is broken: delete it"):
        run(path)


def test_a_run_may_be_moved_and_measured_otherwise(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    run(write_recipe(tmp_path / "a", schedule__steps=1))
    (tmp_path / "a").rename(tmp_path / "b")
    moved = write_recipe(tmp_path / "b", schedule__steps=2, data__held_out=["held-out.txt"])
    assert run(moved, "recompute=true").held_out
    assert [record["step"] for record in read(tmp_path / "b" / "out")] == [1, 2, 2]


def test_a_packed_model_is_no_start(tmp_path: Path) -> None:
    document = json.loads(write_recipe(tmp_path).read_text())
    document["model"] = {"start": str(Path(matryo.__file__).parent / "data" / "nano")}
    (tmp_path / "recipe.yaml").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="is packed"):
        run(tmp_path / "recipe.yaml")


def test_a_directory_belongs_to_one_run(tmp_path: Path) -> None:
    from matryo.checkpoint.atomic import alone

    path = write_recipe(tmp_path)
    (tmp_path / "out").mkdir()
    with alone(tmp_path / "out", wait=False), pytest.raises(CheckpointError, match="another"):
        run(path)


def test_a_finished_model_is_trained_further(tmp_path: Path) -> None:
    (tmp_path / "next").mkdir()
    run(write_recipe(tmp_path, schedule__steps=2, export__dtype="f32"))
    path = write_recipe(tmp_path / "next", schedule__steps=1, optimizer__rate=0.0)
    document = json.loads(path.read_text())
    document["model"] = {"start": "../out/hf"}
    document["export"] = {"dtype": "f32"}
    path.write_text(json.dumps(document))
    run(path)
    with matryo.load(tmp_path / "out/hf", weights="f32") as before:
        with matryo.load(tmp_path / "next/out/hf", weights="f32") as after:
            assert list(before.plans) == list(after.plans)
            assert np.array_equal(before.logits([2, 9, 4]), after.logits([2, 9, 4]))


def test_ctrl_c_says_what_the_same_command_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(tmp_path, save_every=2)
    said: list[str] = []
    left = [0]

    def stopped(*given: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return accumulate(*given)

    monkeypatch.setattr(loop, "accumulate", stopped)
    for steps, expected in ((1, "stopped before a .* to begin again"), (3, "step-00000002.pt is")):
        left[0] = steps
        with pytest.raises(KeyboardInterrupt):
            main(Recipe.from_file(path), say=said.append)
        assert re.search(expected, said[-1]), said[-1]


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    (tmp_path / "out").touch()
    for output in ("out", "out/in"):
        with pytest.raises(ConfigError, match=r"output: .* in a file; expected a directory"):
            run(path, f"output={output}")
