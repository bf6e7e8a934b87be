"""Choosing an instruction set: what exists can be used, all else is an error; nothing leaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from matryo import kernels

OBJECTS = sorted(
    Path(__file__).parents[2].glob("build/**/matryo_isa_*.dir/native/isa.cpp.o"),
)


def run_start(**settings: str) -> subprocess.CompletedProcess[str]:
    code = "from matryo import kernels; kernels.start(); print(kernels.isa(), kernels.threads())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **settings}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )


def test_scalar_is_always_there_and_last() -> None:
    assert kernels.isas()[-1] == "scalar"
    assert len(set(kernels.isas())) == len(kernels.isas())


def test_an_instruction_set_can_be_chosen(isa: str) -> None:
    assert kernels.isa() == isa


@pytest.mark.parametrize("name", ["avx5l2", "", "AVX2", "scalar "])
def test_an_unknown_instruction_set_is_refused(name: str) -> None:
    before = kernels.isa()
    with pytest.raises(ValueError, match=r"expected one of .*scalar"):
        kernels.set_isa(name)
    assert kernels.isa() == before


def test_the_environment_chooses() -> None:
    result = run_start(MATRYO_ISA="scalar", MATRYO_THREADS="3")
    assert result.stdout.split() == ["scalar", "3"], result.stderr


@pytest.mark.parametrize(
    ("setting", "value"),
    [("MATRYO_ISA", "avx5l2"), ("MATRYO_THREADS", "0"), ("MATRYO_THREADS", "two")],
)
def test_a_misspelt_setting_is_an_error(setting: str, value: str) -> None:
    result = run_start(**{setting: value})
    assert result.returncode != 0
    assert "KernelError" in result.stderr and setting in result.stderr


@pytest.mark.skipif(not OBJECTS or shutil.which("nm") is None, reason="no build tree or no nm")
def test_an_object_exports_one_symbol() -> None:
    """An inline function compiled for AVX-512 must never stand in for its baseline copy."""
    for path in OBJECTS:
        listing = subprocess.run(
            ["nm", "--defined-only", "--extern-only", str(path)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        symbols = [line.split()[-1] for line in listing.splitlines() if line.strip()]
        assert len(symbols) == 1 and "kernels_" in symbols[0], (path, symbols)
