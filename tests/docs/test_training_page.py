"""The first run of docs/training.md works as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import matryo
from matryo.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The directory and the result of the first run."""
    directory = tmp_path_factory.mktemp("first")
    (directory / "texts.jsonl").write_text(block("json"))
    (directory / "recipe.yaml").write_text(block("yaml"))
    command = ["train", str(directory / "recipe.yaml"), "--set", "threads=1", "--json"]
    return directory, CliRunner().invoke(app, command)


def test_the_first_run(first: tuple[Path, Result]) -> None:
    directory, result = first
    assert result.exit_code == 0, result.output
    assert "step 20/20  large " in result.stderr and "tokens/s" in result.stderr
    assert '"steps": 20' in result.stdout
    with matryo.load(directory / "out/q8") as model:
        assert {"small", "large"} <= set(model.plans)
        events = list(model.session(plan="small").generate("The house", max_tokens=3))
        assert events[-1].kind == "done"


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_way_from_rows_to_a_model(
    first: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of the section, in order; the first is the first run."""
    directory, _ = first
    way = section("From a file of rows to your own model")
    found = dict(re.findall(r"^```(\w+)\n(.*?)^```$", way, re.MULTILINE | re.DOTALL))
    (directory / "chats.jsonl").write_text(found["json"])
    (directory / "tune.yaml").write_text(found["yaml"])
    monkeypatch.chdir(directory)
    said = ""
    for line in found["console"].splitlines()[1:]:
        words = shlex.split(line.removeprefix("$ matryo "), comments=True)
        if words[0] == "train":
            words += ["--set", "threads=1"]
        result = CliRunner().invoke(app, words, input="Is it old?\n")
        assert result.exit_code == 0, f"{line}: {result.output}"
        said = said + result.stderr
    before, after = map(float, re.findall(r"small +([\d.]+) -> ([\d.]+) nats", said)[0])
    assert after < before
    assert "warning: " not in said
    assert (directory / "tuned" / "adapter" / "adapter_model.safetensors").exists()
    with matryo.load("small-q8") as model:
        assert model.config.num_layers == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [("steps: 3", "unknown key steps"), ("output: out", "model is missing")],
)
def test_a_recipe_that_cannot_be_used_is_one_line(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(content)
    result = CliRunner().invoke(app, ["train", str(tmp_path / "recipe.yaml")])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and message in result.stderr


def test_without_the_extra_the_command_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("matryo.train.loop")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    result = CliRunner().invoke(app, ["train", "recipe.yaml"])
    assert result.exit_code == 1
    assert result.stderr == "error: training needs accelerate; pip install 'matryo[train]'\n"
