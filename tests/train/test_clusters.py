"""The predicted figures of docs/clusters.md are those of the script that makes them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


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
    assert script().table() in (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")


def test_more_accelerators_need_less_each_and_take_less_time() -> None:
    made = script()
    config, kind = made.e4b(), made.ACCELERATORS[0]
    needed = [made.bytes_needed(config, count) for count in (2, 4, 8)]
    assert needed == sorted(needed, reverse=True)
    # The state alone: 6.9 billion weights of 16 bytes.
    assert 100e9 < made.bytes_needed(config, 1) < 150e9
    computing, sending = made.seconds(config, kind, 16)
    assert 0 < computing < made.seconds(config, kind, 8)[1] + computing < computing + sending
