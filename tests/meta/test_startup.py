"""Starting is cheap: nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    *("torch", "transformers", "tokenizers", "jinja2", "huggingface_hub", "psutil"),
    *("PIL", "av", "sounddevice"),
}
PRINT_MODULES = """
import json, sys
print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)
"""
HELP = """
from matryo.cli.app import main
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
"""


def modules_after(code: str, *arguments: str) -> set[str]:
    """Top-level modules that are loaded after `code` ran in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code + "\n" + PRINT_MODULES, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_importing_the_package_loads_numpy_at_most() -> None:
    loaded = modules_after("import matryo")
    assert not loaded & (HEAVY | {"typer", "rich"})


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_loads_neither_numpy_nor_anything_heavy(arguments: list[str]) -> None:
    loaded = modules_after(HELP, *arguments)
    assert not loaded & (HEAVY | {"numpy", "rich"})
