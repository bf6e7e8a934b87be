"""Parity tests run over the numpy twin and over the native kernels of every instruction set of this
CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from transformers import Gemma3nForCausalLM

from helpers.models import F32, I32
from helpers.runs import expected, greedy, our_model
from helpers.tiny import sliced_model
from matryo import kernels
from matryo.config import TextConfig
from matryo.model import TextModel
from matryo.plan import Plan, full_plan, presets

Slices = Callable[[str], Gemma3nForCausalLM]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "parity" in item.path.parts:
            item.add_marker(pytest.mark.parity)


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Both sides share the cores of one machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models(tiny_hf_model: Gemma3nForCausalLM) -> Callable[[str], TextModel]:
    """`models("native")`, `models("reference")`: the tiny model in our hands, f32 weights."""
    made: dict[str, TextModel] = {}

    def get(ops: str) -> TextModel:
        if ops not in made:
            made[ops] = our_model(tiny_hf_model, ops)
        return made[ops]

    return get


@pytest.fixture(params=["reference", *kernels.isas()])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """ "reference" or "native", once for each instruction set, which is then in use."""
    name: str = request.param
    if name == "reference":
        yield name
        return
    before = kernels.isa()
    kernels.set_isa(name)
    yield "native"
    kernels.set_isa(before)


@pytest.fixture
def ours(backend: str, models: Callable[[str], TextModel]) -> TextModel:
    """The tiny model over the backend, f32 weights."""
    return models(backend)


def plans_of(config: TextConfig) -> dict[str, Plan]:
    """The kinds of slice there are: everything, the released cut, skipping alone, mixed widths,
    skipped owners.
    """
    kept = (*range(5), *range(10, 15))
    owners = (1, 3, 4, 5, 7, 9, 11, 14)
    return {
        "full": full_plan(config),
        "e2b": presets(config)["e2b"],
        "skip": Plan(kept, (192,) * 10, 5),
        "mixed": Plan(tuple(range(15)), tuple(64 * (1 + layer % 3) for layer in range(15)), 5),
        "owners": Plan(owners, (192, 96, 32, 160, 192, 64, 128, 192), 5),
    }


class Oracle:
    """Logits and tokens of transformers for a kind of slice, computed once for all backends."""

    def __init__(self, slices: Slices) -> None:
        self._slices = slices
        self._known: dict[tuple[object, ...], object] = {}

    def logits(self, name: str, ids: I32) -> F32:
        """Logits (T, V) for one sequence."""
        key = ("logits", name, ids.tobytes())
        if key not in self._known:
            self._known[key] = expected(self._slices(name), ids)
        return self._known[key]  # type: ignore[return-value]

    def greedy(self, name: str, ids: I32, count: int) -> list[int]:
        """The tokens that `generate` appends."""
        key = ("greedy", name, ids.tobytes(), count)
        if key not in self._known:
            self._known[key] = greedy(self._slices(name), ids, count)
        return self._known[key]  # type: ignore[return-value]


PLAN_NAMES = ["full", "e2b", "skip", "mixed", "owners"]


@pytest.fixture(scope="session")
def slices(tiny_hf_model: Gemma3nForCausalLM, models: Callable[[str], TextModel]) -> Slices:
    """`slices("e2b")`: the plan as its own transformers model."""
    made: dict[str, Gemma3nForCausalLM] = {"full": tiny_hf_model}

    def get(name: str) -> Gemma3nForCausalLM:
        if name not in made:
            plan = plans_of(models("reference").config)[name]
            made[name] = sliced_model(tiny_hf_model, plan.layers, plan.ffn_width)
        return made[name]

    return get


@pytest.fixture(scope="session")
def oracle(slices: Slices) -> Oracle:
    return Oracle(slices)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Seeded by the test without its parameters: all backends and slices see the same ids."""
    return np.random.default_rng(list(request.node.originalname.encode()))
