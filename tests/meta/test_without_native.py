"""What must work before anything is compiled, and what is said when it was not."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_NATIVE = """
import sys
sys.modules["matryo._native"] = None  # any import of it is an ImportError
"""


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NATIVE + program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_reference_computes() -> None:
    printed = run("""
import numpy as np
from matryo.kernels import reference
x, out = np.array([[3.0, 4.0]], np.float32), np.zeros((1, 2), np.float32)
reference.rms_norm(x, None, 0.0, out)
print(float((out**2).mean()))
""")
    assert float(printed) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("use", ["kernels.matmul", "kernels.start()", "kernels.layer_handle"])
def test_a_missing_kernel_says_what_to_do(use: str) -> None:
    printed = run(f"""
from matryo import kernels
from matryo.errors import KernelError
try:
    {use}
except KernelError as error:
    print(error)
""")
    assert "the compiled kernels are missing" in printed and "install matryo with pip" in printed


def test_an_unknown_name_is_an_attribute_error() -> None:
    printed = run("""
from matryo import kernels
print(hasattr(kernels, "matmulx"))
""")
    assert printed == "False"
