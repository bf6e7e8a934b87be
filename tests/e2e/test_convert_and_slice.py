"""`matryo convert` and `matryo slice`: what they write is what other commands read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from e2e.program import invoke, matryo

SHORT = ("--seed", "3", "-n", "16")


def text_of(model: Path, *arguments: str | Path, home: Path) -> str:
    done = invoke("run", "-m", model, "the a", *SHORT, *arguments, home=home)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


@pytest.mark.parametrize("weights", ["f32", "bf16", "q8", "q4"])
def test_every_kind_is_packed_and_answers_as_in_memory(
    home: Path, checkpoint: Path, tmp_path: Path, weights: str
) -> None:
    target = tmp_path / weights
    done = invoke("convert", checkpoint, target, "--weights", weights, home=home)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert {
        "matryo.json",
        "shell-0.safetensors",
        "config.json",
        "plans.json",
        "tokenizer.json",
    } <= set(names(target))
    assert text_of(target, home=home) == text_of(checkpoint, "--weights", weights, home=home)


def test_convert_says_what_it_wrote_as_json(home: Path, checkpoint: Path, tmp_path: Path) -> None:
    done = invoke("convert", checkpoint, tmp_path / "new", "--json", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert isinstance(json.loads(done.stdout), dict)


def test_converting_again_changes_nothing(home: Path, checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "twice"
    for _ in range(2):
        done = invoke("convert", checkpoint, target, home=home)
        assert done.returncode == 0, done.stderr
    assert invoke("info", target, "--verify", home=home).returncode == 0


@pytest.mark.parametrize("size", ["small", "medium"])
def test_a_slice_is_a_checkpoint_with_the_answers_of_the_plan(
    home: Path, checkpoint: Path, tmp_path: Path, size: str
) -> None:
    target = tmp_path / size
    done = matryo("slice", checkpoint, target, "--size", size, home=home)
    assert done.returncode == 0, done.stderr
    assert text_of(target, "--weights", "f32", home=home) == text_of(
        checkpoint, "--weights", "f32", "--size", size, home=home
    )
    described: dict[str, Any] = json.loads(invoke("info", target, "--json", home=home).stdout)
    whole: dict[str, Any] = json.loads(invoke("info", checkpoint, "--json", home=home).stdout)
    counted = described["plans"]["full"]["parameters"]["effective"]
    assert counted == whole["plans"][size]["parameters"]["effective"]


def test_a_slice_of_a_packed_directory_is_one_with_the_answers_of_the_plan(
    home: Path, checkpoint: Path, tmp_path: Path
) -> None:
    packed, target = tmp_path / "packed", tmp_path / "small"
    done = invoke("convert", checkpoint, packed, "--weights", "bf16", home=home)
    assert done.returncode == 0, done.stderr
    done = invoke("slice", packed, target, "--size", "small", "--json", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    written = json.loads(done.stdout)
    assert written["files"] == ["shell-0.safetensors", "shell-1.safetensors"]
    assert written["bytes"] == sum((target / name).stat().st_size for name in written["files"])
    assert text_of(target, home=home) == text_of(packed, "--size", "small", home=home)
    assert invoke("info", target, "--verify", home=home).returncode == 0


@pytest.mark.parametrize("command", [("convert",), ("slice", "--size", "small")])
def test_a_bad_source_leaves_nothing_behind(
    home: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    name, *options = command
    done = invoke(name, tmp_path / "nowhere", tmp_path / "target", *options, home=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert names(tmp_path / "target") == []


def test_a_slice_of_no_such_size_leaves_nothing_behind(
    home: Path, checkpoint: Path, tmp_path: Path
) -> None:
    done = invoke("slice", checkpoint, tmp_path / "target", "--size", "enormous", home=home)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no plan named 'enormous'")
    assert names(tmp_path / "target") == []


def test_pull_without_a_network_is_one_line(home: Path) -> None:
    done = invoke("pull", "nobody/nothing-of-this-name", home=home)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_unpacking_and_packing_again_gives_the_same_answers(
    home: Path, checkpoint: Path, tmp_path: Path
) -> None:
    assert invoke("convert", checkpoint, tmp_path / "q8", "--weights", "q8", home=home).stdout == ""
    done = invoke("unpack", tmp_path / "hf", "-m", tmp_path / "q8", "--json", home=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["from"] == "q8"
    invoke("convert", tmp_path / "hf", tmp_path / "again", "--weights", "q8", home=home)
    assert text_of(tmp_path / "again", home=home) == text_of(tmp_path / "q8", home=home)


def test_what_is_not_packed_is_not_unpacked(home: Path, checkpoint: Path, tmp_path: Path) -> None:
    for name, files in (("empty", ()), ("torn", ("config.json", "matryo.unfinished"))):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
    for source, message in (
        (checkpoint, "is a Hugging Face directory already"),
        (tmp_path / "empty", "no packed model here"),
        (tmp_path / "torn", "is unfinished: run the command that was writing it again"),
    ):
        done = invoke("unpack", tmp_path / "hf", "-m", source, home=home)
        assert done.returncode == 1 and f"error: {source}: {message}" in done.stderr
        assert not (tmp_path / "hf").exists()


def test_a_file_is_no_place_for_a_model(home: Path, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = invoke("unpack", tmp_path / "file", "-m", packed, home=home)
    assert done.returncode == 1 and "file: is a file; expected a directory" in done.stderr
    assert (tmp_path / "file").read_text() == "x"
