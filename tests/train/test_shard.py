"""Two processes that split the weights take the steps of one that holds them all."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from helpers.recipes import write_recipe
from matryo.train import resume
from matryo.train.average import WeightMean
from matryo.train.journal import read
from matryo.train.loop import main
from matryo.train.optimizer import make_optimizers
from matryo.train.recipe import OptimizerRecipe, Recipe
from matryo.train.shard import are_finite, assembled, part_of, whole_state

RUN = """
import sys
from matryo.train import importable
importable.install()
from pathlib import Path
from matryo.train.loop import main
from matryo.train.recipe import Recipe
main(Recipe.from_file(Path(sys.argv[1]), sys.argv[2:]), say=lambda message: None)
"""
OPTIONS: dict[str, Any] = {
    "objective": {"mode": "sum", "mixes": 1, "divergence": 0.5},
    "optimizer__name": "muon",
    "export__dtype": "f32",
    "schedule__average": 0.5,
    "schedule__decay": 0.0,  # else it would depend on where a run is stopped
}


def quiet(message: str) -> None:
    """Nobody reads along."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def launch(path: Path, *settings: str) -> None:
    """The recipe in two processes, as a launcher starts them."""
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root), *sys.path]),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, str(path), *settings],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1].decode() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)[-4000:]


@pytest.fixture
def first_of_two() -> Iterator[DeviceMesh]:
    """This process as the first of two that split tensors; nothing is sent."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    try:
        yield init_device_mesh("cpu", (2,))
    finally:
        torch.distributed.destroy_process_group()


def test_a_part_keeps_none_of_the_whole(first_of_two: DeviceMesh) -> None:
    like = distribute_tensor(torch.zeros(4, 3), first_of_two, [Shard(0)], src_data_rank=None)
    part = part_of(torch.arange(12.0).view(4, 3), like)
    assert isinstance(part, DTensor)
    local = part.to_local()
    assert local.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert local.untyped_storage().nbytes() == 4 * 6


def test_a_process_that_does_not_write_keeps_none_of_the_state(
    nested_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(nested_model)
    optimizers = make_optimizers(model, OptimizerRecipe(name="muon"))
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    for optimizer in optimizers:
        optimizer.step()
    mean = WeightMean(model, 1)
    mean.update(1)
    kept = set[int]()
    monkeypatch.setattr(torch, "save", lambda state, file: kept.update(sizes(state)))
    for write in (False, True):
        state = mean.state(write=write)
        assert bool(sizes(state)) == write
        progress = {"step": 1, "recipe": {}, "mean": state}
        assert all(bool(sizes(whole_state(one, keep=write))) == write for one in optimizers)
        resume.save(tmp_path, model, optimizers, progress, 1, write=write)
        assert bool(kept) == write
        assert (assembled(model, keep=write) is model) != write


def sizes(state: Any) -> list[int]:
    """Of all tensors in it."""
    if isinstance(state, torch.Tensor):
        return [state.numel()]
    if isinstance(state, dict):
        return [size for value in state.values() for size in sizes(value)]
    return [size for value in state for size in sizes(value)] if isinstance(state, list) else []


def test_a_value_that_is_no_number_is_found_wherever_it_is() -> None:
    good = [torch.tensor(1.0), torch.zeros(2, 2, dtype=torch.bfloat16), torch.empty(0, 3)]
    assert are_finite(good)
    for bad in (torch.nan, torch.inf, -torch.inf):
        assert not are_finite([*good, torch.tensor([[1.0, 2.0], [bad, 3.0]])])


def test_two_processes_that_split_the_weights_are_one(tmp_path: Path) -> None:
    """Begun by one, continued by two, ended by one: a checkpoint does not know who wrote it."""
    for name in "ab":
        (tmp_path / name).mkdir()
    main(Recipe.from_file(write_recipe(tmp_path / "a", **OPTIONS)), say=quiet)
    torn = write_recipe(tmp_path / "b", shard=True, **OPTIONS)
    main(Recipe.from_file(torn, ["shard=false", "schedule.steps=2"]), say=quiet)
    launch(torn, "schedule.steps=4")
    saved = resume.newest(tmp_path / "b" / "out" / "checkpoints")
    assert saved is not None
    weights = torch.load(saved, weights_only=True)["weights"]
    assert weights["model.layers.0.mlp.gate_proj.weight"].shape == (64, 32)
    # Written by two processes, from weights put together, and compared with the engine there.
    assert (tmp_path / "b/out/hf/model.safetensors").is_file()
    main(Recipe.from_file(torn, ["shard=false"]), say=quiet)
    ours, theirs = (
        [record for record in read(tmp_path / name / "out") if "losses" in record] for name in "ba"
    )
    assert [record["step"] for record in ours] == [1, 2, 3, 4, 5, 6]
    for got, wanted in zip(ours, theirs, strict=True):
        assert got["losses"] == pytest.approx(wanted["losses"], rel=1e-4)
        assert got["gradient_norm"] == pytest.approx(wanted["gradient_norm"], rel=1e-3)
