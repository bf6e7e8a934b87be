"""The tables of generated pages are what the stored results say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "script",
    [
        "scripts.evaluation_pages",
        "scripts.elastic_pages",
        "scripts.elastic.page",
        "scripts.nano.page",
    ],
)
def test_the_tables_are_fresh(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", script, "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
