"""The first run of docs/training.md works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

import matryo
from matryo.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "training.md"


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "texts.jsonl").write_text(block("json"))
    (tmp_path / "recipe.yaml").write_text(block("yaml"))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "recipe.yaml", "--set", "threads=1", "--json"])
    assert result.exit_code == 0, result.output
    assert "step 20/20  large " in result.stderr and "tokens/s" in result.stderr
    assert '"steps": 20' in result.stdout
    with matryo.load("out/q8") as model:
        assert {"small", "large"} <= set(model.plans)
        events = list(model.session(plan="small").generate("The house", max_tokens=3))
        assert events[-1].kind == "done"


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
