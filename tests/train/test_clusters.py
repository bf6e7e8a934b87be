"""The predicted figures of docs/clusters.md are those of the script that makes them."""

from __future__ import annotations

import importlib.util
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

from helpers.recipes import write_recipe
from matryo.train import loop
from matryo.train.recipe import Recipe
from train.test_shard import free_port

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "clusters.md"


def script() -> Any:
    spec = importlib.util.spec_from_file_location(
        "cluster_table", ROOT / "scripts" / "cluster_table.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


def test_the_table_is_fresh() -> None:
    assert script().table() in DOCUMENT.read_text(encoding="utf-8")


def test_processes_wait_for_the_one_that_prepares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group of one process, as a launcher makes it: how long it waits for another is said."""
    for key in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(key, "0")
    for key in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(key, "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    waited: list[timedelta] = []

    def seen(*_: object) -> None:
        group: Any = torch.distributed.group.WORLD
        waited.append(group._get_backend(torch.device("cpu")).options._timeout)

    monkeypatch.setattr(loop, "_run", seen)
    try:
        loop.main(Recipe.from_file(write_recipe(tmp_path)))
    finally:
        torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
    assert waited == [timedelta(hours=12)] and "twelve hours" in DOCUMENT.read_text("utf-8")


def test_more_accelerators_need_less_each_and_take_less_time() -> None:
    made = script()
    config, kind = made.e4b(), made.ACCELERATORS[0]
    needed = [made.bytes_needed(config, count) for count in (2, 4, 8)]
    assert needed == sorted(needed, reverse=True)
    # The state alone: 6.9 billion weights of 16 bytes.
    assert 100e9 < made.bytes_needed(config, 1) < 150e9
    computing, sending = made.seconds(config, kind, 16)
    assert 0 < computing < made.seconds(config, kind, 8)[1] + computing < computing + sending
