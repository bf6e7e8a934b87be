"""Training tests share the cores of one machine, and a nested copy of the tiny model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from matryo.train.nested import nest


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def nested_model(tiny_hf_model: Any) -> Any:
    """The tiny text model, able to follow plans. Gradients are left as the last test made them."""
    model = copy.deepcopy(tiny_hf_model)
    nest(model)
    return model
