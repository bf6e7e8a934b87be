"""The native test driver (native/tests) builds, and every kernel it knows passes.

It needs no Python, so it is also what runs under an emulator; here it is kept from going stale.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from matryo import kernels

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 600.0  # a limit for a hanging build, not an expectation


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} to build the native test driver")
    return found


def run(*words: str | Path) -> str:
    done = subprocess.run(
        list(map(str, words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def test_the_native_driver_builds_and_passes(tmp_path: Path) -> None:
    if not (ROOT / "CMakeLists.txt").exists():
        pytest.skip("needs the native sources")
    cmake, ninja = tool("cmake"), tool("ninja")
    if os.environ.get("CXX") is None:
        tool("c++")
    run(
        *(cmake, "-S", ROOT, "-B", tmp_path, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"),
        *("-DCMAKE_BUILD_TYPE=Quick", "-DMATRYO_MODULE=OFF", "-DMATRYO_TESTS=ON"),
    )
    run(cmake, "--build", tmp_path, "-j", "2")
    lines = run(tmp_path / "matryo_native_tests").splitlines()
    assert lines == ["pool ok", *(f"{isa} ok" for isa in kernels.isas())]
