"""What every test shares: a clean environment, a seeded generator, the instruction sets, tiny
checkpoints.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from matryo.train import importable

if TYPE_CHECKING:
    from transformers import Gemma3nForCausalLM

NEEDED_BYTES = 1 << 30  # measured: 0.5 GB at most at a time

# On import: conftest files below this one import transformers before pytest_configure runs.
importable.install()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "parity: compares with transformers; needs torch")
    config.addinivalue_line("markers", "weights: needs a released checkpoint on this machine")


def pytest_sessionstart(session: pytest.Session) -> None:
    """A full disk fails a thousand tests; this says it once."""
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free
    if free < NEEDED_BYTES:
        pytest.exit(
            f"{place} has {free >> 20} MB free, the tests take up to {NEEDED_BYTES >> 20}: "
            "make room, or set TMPDIR to another disk",
            returncode=2,
        )


def pytest_report_header() -> list[str]:
    """The CPU and the versions that decide what the tests exercise."""
    try:
        from matryo import kernels

        native = f"{kernels.isa()} of {', '.join(kernels.isas())}, {kernels.threads()} threads"
    except (
        Exception
    ) as error:  # a missing or broken build must show here, not hide the tests that need none
        native = f"unavailable ({error})"
    return [f"machine: {platform.machine()}, kernels: {native}, numpy {np.__version__}"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer reaches a test, and nothing is written outside tmp_path.
    MATRYO_ISA and
    MATRYO_THREADS stay: they choose what a whole run tests."""
    for name in list(os.environ):
        if name.startswith("HF_") or name in ("MATRYO_HOME", "NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MATRYO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the name of the test."""
    return np.random.default_rng(list(request.node.nodeid.encode()))


@pytest.fixture
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set this CPU has, in use."""
    from matryo import kernels

    before = kernels.isa()
    kernels.set_isa(request.param)
    yield request.param
    kernels.set_isa(before)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "isa" in metafunc.fixturenames:
        from matryo import kernels

        metafunc.parametrize("isa", kernels.isas(), indirect=True)


@pytest.fixture(scope="session")
def tiny_hf_model() -> Gemma3nForCausalLM:
    """A tiny random text model of transformers; see helpers/tiny.py. Do not change it."""
    from helpers.tiny import tiny_model

    return tiny_model()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_hf_model: Any) -> Path:
    """The same model as save_pretrained writes it, float32, without a tokenizer. Read only."""
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_hf_model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_multimodal_model() -> Any:
    """A tiny random multimodal model of transformers; see helpers/tiny_multimodal.py."""
    from helpers.tiny_multimodal import tiny_multimodal

    return tiny_multimodal()


@pytest.fixture(scope="session")
def multimodal_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tiny_multimodal_model: Any
) -> Path:
    """The same as a Hugging Face directory with tokenizer and chat template. Read only."""
    from helpers.media_text import write_text_files
    from helpers.tiny_multimodal import write_multimodal

    directory = write_multimodal(
        tiny_multimodal_model, tmp_path_factory.mktemp("multimodal") / "tiny"
    )
    write_text_files(directory)
    return directory


@pytest.fixture(scope="session")
def seeing_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random multimodal model that can be talked to; see helpers/seeing.py. Read only."""
    from helpers.seeing import make_seeing

    return make_seeing(tmp_path_factory.mktemp("multimodal"))
