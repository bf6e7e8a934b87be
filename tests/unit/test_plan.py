"""Plans: presets, files, tables, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from matryo.config import TextConfig
from matryo.errors import PlanError
from matryo.plan import Plan, find_plan, full_plan, presets, read_plans


def config(**values: Any) -> TextConfig:
    return TextConfig.from_json({"model_type": "gemma3n_text", **values})


E4B = config()
E2B = config(num_hidden_layers=30, num_kv_shared_layers=10, intermediate_size=8192)
PLANS = presets(E4B)
HEADER = "name,# Layers,# Effective Params (B),MMLU PT accuracy,FFN Hidden Dims,Layers Skipped\n"


def table(tmp_path: Path, *rows: str, header: str = HEADER) -> Path:
    path = tmp_path / "configs.csv"
    path.write_text(header + "\n".join(rows) + "\n")
    return path


def test_presets_of_e4b() -> None:
    kept = (*range(20), *range(25, 35))
    assert PLANS["e2b"] == Plan(kept, (8192,) * 30, 20)
    assert PLANS["e4b"] == PLANS["full"] == Plan(tuple(range(35)), (16_384,) * 35, 20)
    assert PLANS["e2b"].describe() == "30 layers (0-19, 25-34), FFN 8192"


def test_the_released_e2b_has_no_e4b() -> None:
    plans = presets(E2B)
    assert plans["e2b"] == full_plan(E2B)
    with pytest.raises(PlanError, match="this checkpoint is E2B"):
        find_plan("e4b", plans, E2B)


def test_half_plans_keep_readers_unless_two_periods_exist_and_whole_groups() -> None:
    small = config(
        num_hidden_layers=15, num_kv_shared_layers=5, intermediate_size=96, hidden_size=64
    )
    assert presets(small)["e2b"] == Plan(tuple(range(15)), (64,) * 15, 10)


@pytest.mark.parametrize(
    ("layers", "widths", "reason"),
    [
        ((), (), "at least one layer"),
        ((0, 1), (32,), "give one each"),
        ((1, 0), (32, 32), "ascending"),
        ((0, 0), (32, 32), "ascending"),
        ((-1, 0), (32, 32), "ascending"),
        ((0, 1), (32, 0), "multiple of 32"),
        ((0, 1), (32, -32), "multiple of 32"),
        ((0, 1), (32, 48), "multiple of 32"),
    ],
)
def test_malformed_plans(layers: tuple[int, ...], widths: tuple[int, ...], reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        Plan(layers, widths, 20)


def without(*skipped: int, width: int = 8192) -> Plan:
    layers = tuple(n for n in range(35) if n not in skipped)
    return Plan(layers, (width,) * len(layers), 20)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (without(18), "layer 18 cannot be skipped"),
        (without(19), "layer 19 cannot be skipped"),
        (without(width=16_416), "exceeds the 16384"),
        (Plan(tuple(range(36)), (32,) * 36, 20), "layer 35 does not exist"),
        (Plan(tuple(range(35)), (32,) * 35, 10), "10 layers with K/V"),
    ],
)
def test_plans_a_checkpoint_cannot_run(plan: Plan, reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        plan.check(E4B)


def test_other_owners_may_be_skipped() -> None:
    plan = without(0, 7, 17, 22).check(E4B)
    assert plan.owners == tuple(n for n in range(20) if n not in (0, 7, 17))


def test_same_cache_is_the_exact_family() -> None:
    widths = list(PLANS["e4b"].ffn_width)
    above = Plan(tuple(range(35)), (*widths[:19], 32, *([64] * 15)), 20)
    below = Plan(tuple(range(35)), (*widths[:18], 32, *widths[19:]), 20)
    skipping = Plan((*range(20), 30), tuple(widths[:21]), 20)
    assert PLANS["e4b"].same_cache(above) and PLANS["e4b"].same_cache(skipping)
    assert not PLANS["e4b"].same_cache(below)
    assert not PLANS["e4b"].same_cache(PLANS["e2b"])
    assert not without(3, width=16_384).same_cache(PLANS["e4b"])


def test_contains() -> None:
    assert PLANS["e4b"].contains(PLANS["e2b"]) and not PLANS["e2b"].contains(PLANS["e4b"])
    assert not without(21, width=16_384).contains(without(22, width=32))


def test_json_plans(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"layers": [*range(20), 24, 29], "ffn_width": 4096}))
    plan = find_plan(str(path), PLANS, E4B)
    assert plan == Plan((*range(20), 24, 29), (4096,) * 22, 20)
    assert Plan.from_json(plan.to_json(), E4B) == plan
    assert Plan.from_json({}, E4B) == full_plan(E4B)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 100_000,
        '{"layer": [1]}',
        '{"layers": 3}',
        '{"layers": [0.5]}',
        '{"layers": [true]}',
        '{"layers": [1e400]}',
        '{"layers": [0, 18, 19], "ffn_width": "8192"}',
        '{"layers": [0, 18, 19], "ffn_width": [8192]}',
        '{"layers": [0, 18, 19, 99]}',
        '{"layers": [-1, 18, 19]}',
    ],
)
def test_broken_plan_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(PlanError):
        Plan.from_file(path, E4B)


def test_plans_beside_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "plans.json"
    assert read_plans(path, E4B) == PLANS
    path.write_text(json.dumps({"tiny": {"ffn_width": 32}, "e2b": {"ffn_width": 64}}))
    plans = read_plans(path, E4B)
    assert plans["tiny"].ffn_width == (32,) * 35 and plans["e2b"].ffn_width == (64,) * 35
    path.write_text(json.dumps({"bad": {"ffn_width": 33}}))
    with pytest.raises(PlanError, match="plan 'bad'"):
        read_plans(path, E4B)
    path.write_text("[]")
    with pytest.raises(PlanError, match="must hold an object"):
        read_plans(path, E4B)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(PlanError, match="there are e2b, e4b, full"):
        find_plan("e3b", PLANS, E4B)
    with pytest.raises(PlanError, match="cannot read"):
        find_plan("absent.json", PLANS, E4B)


def dims(*pairs: tuple[int, int]) -> str:
    """The spelling of the published table: `[2_048 * 4, 2_048 * 4, ...]`."""
    return (
        '"['
        + ", ".join(f"2_048 * {factor}" for factor, count in pairs for _ in range(count))
        + ']"'
    )


def test_published_table(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        f"Main model,35,3.98,62.30%,{dims((8, 35))},",
        f'Config for official E2B Model,30,1.91,50.90%,{dims((4, 30))},"[20, 21, 22, 23, 24]"',
        "Config for E2.54B "
        f"(layer-level),35,2.54,55.40%,{dims((4, 4), (8, 1), (4, 15), (8, 5), (4, 10))},",
        f"Config for E2.49B (block-level),35,2.49,54.50%,{dims((4, 20), (8, 5), (4, 10))},",
    )
    assert Plan.from_csv(path, "Main model", E4B) == PLANS["e4b"]
    assert Plan.from_csv(path, "official e2b", E4B) == PLANS["e2b"]
    mixed = find_plan(f"{path}:E2.54B", PLANS, E4B)
    assert [n for n, width in enumerate(mixed.ffn_width) if width == 16_384] == [
        4,
        20,
        21,
        22,
        23,
        24,
    ]
    with pytest.raises(PlanError, match="2 rows"):
        Plan.from_csv(path, "level", E4B)
    with pytest.raises(PlanError, match=r"no row of .* choose one of: Main model; "):
        Plan.from_csv(path, "E9", E4B)
    with pytest.raises(PlanError, match="use the checkpoint it was made for"):
        Plan.from_csv(path, "Main model", E2B)


def test_table_variants(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        'short,,[8192] * 30,"[20] + [21, 22, 23, 24]"',
        'whole,30,[8192] * 35,"[20, 21, 22, 23, 24]"',
        header="\ufeffName,Number of Layers,FFN Dims,Skipped Layers\n",
    )
    assert Plan.from_csv(path, "whole", E4B) == PLANS["e2b"]
    assert Plan.from_csv(path, "short", E4B) == PLANS["e2b"]


@pytest.mark.parametrize(
    "cell",
    [
        "8192",
        "[8192, 'x']",
        "[__import__('os')]",
        "[8192 ** 999]",
        "[1] * 999999999",
        "[[1] * 4096] * 4096",
        "(" * 500 + ")" * 500,
        "[-32]",
        "",
        "[8192] + 3",
    ],
)
def test_hostile_table_cells(tmp_path: Path, cell: str) -> None:
    path = table(tmp_path, f'row,,0,0,"{cell}",')
    with pytest.raises(PlanError):
        Plan.from_csv(path, "row", E4B)


def test_tables_without_columns(tmp_path: Path) -> None:
    for header in ("", "name,# Layers\n", "a,b,c,d\n"):
        with pytest.raises(PlanError, match="no column for"):
            Plan.from_csv(table(tmp_path, header=header), "row", E4B)
    with pytest.raises(PlanError, match="cannot read"):
        Plan.from_csv(tmp_path / "absent.csv", "row", E4B)
