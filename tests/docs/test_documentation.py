"""Code in the documentation runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from matryo.cli.app import COMMANDS, app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [
        body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language
    ]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_python(code: str, directory: Path) -> str:
    """Run code in a new process in an empty directory; returns its output."""
    environment = {**os.environ, "MATRYO_HOME": str(directory / "home"), "MATRYO_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=page_id)
def test_python_blocks_of_a_page_run_one_after_another(page: Path, tmp_path: Path) -> None:
    run_python("\n".join(blocks(page, "python")), tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=page_id)
def test_an_example_runs_and_prints(example: Path, tmp_path: Path) -> None:
    assert run_python(example.read_text(encoding="utf-8"), tmp_path).strip()


def commands(page: Path) -> list[str]:
    lines = "\n".join(blocks(page, "console")).splitlines()
    found = [
        line.split("#")[0].removeprefix("$ ").strip() for line in lines if line.startswith("$ ")
    ]
    return [
        part.strip()
        for line in found
        for part in line.split("|")
        if part.strip().startswith("matryo ")
    ]


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=page_id)
def test_commands_of_a_page_exist_with_their_options(page: Path) -> None:
    for line in commands(page):
        _, name, *arguments = shlex.split(line)
        if arguments and f"{name} {arguments[0]}" in COMMANDS:
            name = f"{name} {arguments.pop(0)}"
        result = CliRunner().invoke(app, [name, "--help"])
        assert result.exit_code == 0, line
        options = [word.split("=")[0] for word in arguments if re.match(r"--?[a-z]", word)]
        assert [
            option for option in options if not re.search(rf"{option}\b", result.output)
        ] == [], line


def test_the_command_line_page_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "docs.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_inside_the_repository_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [link.split("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []
