"""The thread pool: sizes, turns, forks, exits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from helpers.matrices import F32, normal, stored
from matryo import kernels


@pytest.fixture(autouse=True)
def restore_threads() -> Iterator[None]:
    before = kernels.threads()
    yield
    kernels.set_threads(before)


def product(w: kernels.Matrix, x: F32) -> F32:
    out = np.full((len(x), w.rows), np.nan, np.float32)
    kernels.matmul(w, x, out)
    return out


@pytest.mark.parametrize("threads", [0, -1, 257, 2**31 - 1])
def test_a_size_out_of_range_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=r"expected 1\.\.256"):
        kernels.set_threads(threads)


def test_sizes_can_change_between_calls(rng: np.random.Generator) -> None:
    w, x = stored("q4", "panel", normal(rng, 300, 64)), normal(rng, 9, 64)
    wanted = product(w, x)
    for threads in (1, 4, 2, 7, 1, 3):
        kernels.set_threads(threads)
        assert kernels.threads() == threads
        assert np.array_equal(product(w, x), wanted)


def test_python_threads_take_turns(rng: np.random.Generator) -> None:
    kernels.set_threads(2)
    w = stored("q4", "panel", normal(rng, 300, 256))
    inputs = [normal(rng, 5, 256) for _ in range(4)]
    wanted = [product(w, x) for x in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(50):
            if not np.array_equal(product(w, inputs[index]), wanted[index]):
                wrong.append(index)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert not any(worker.is_alive() for worker in workers)
    assert not wrong


def test_more_threads_than_processors_change_no_bit(rng: np.random.Generator) -> None:
    w, x = stored("q4", "panel", normal(rng, 600, 256)), normal(rng, 7, 256)
    kernels.set_threads(1)
    wanted = product(w, x)
    # Threads that come too late for a region leave it to the others.
    kernels.set_threads(4 * (os.cpu_count() or 1) + 1)
    assert all(np.array_equal(product(w, x), wanted) for _ in range(200))


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


SETUP = """
import os, threading
import numpy as np
from matryo import kernels
kernels.set_threads(3)
data = np.zeros((4, 64, 16), np.float32)
data[...] = 1
w = kernels.Matrix("f32", "panel", 64, 64, data)
def product():
    out = np.zeros((8, 64), np.float32)
    kernels.matmul(w, np.ones((8, 64), np.float32), out)
    return float(out.sum())
wanted = 8 * 64 * 64
assert product() == wanted
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes() -> None:
    result = run(
        SETUP
        + """
child = os.fork()
if child == 0:
    os._exit(0 if product() == wanted and kernels.threads() == 3 else 1)
print(os.waitpid(child, 0)[1], product() == wanted)
"""
    )
    assert result.stdout.split() == ["0", "True"], result.stderr


def test_the_interpreter_exits_while_threads_sleep_or_work() -> None:
    result = run(
        SETUP
        + """
threading.Thread(target=lambda: [product() for _ in range(10**7)], daemon=True).start()
print("done")
"""
    )
    assert result.returncode == 0 and result.stdout.strip() == "done", result.stderr


def test_read_bandwidth_returns_one_rate_for_each_repeat() -> None:
    rates = kernels.read_bandwidth(1 << 22, 2, 3)
    assert len(rates) == 3 and all(rate > 0 for rate in rates)
    for arguments in ((100, 1, 1), (1 << 22, 0, 1), (1 << 22, 1, 0)):
        with pytest.raises(ValueError):
            kernels.read_bandwidth(*arguments)
