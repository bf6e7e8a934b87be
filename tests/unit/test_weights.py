"""Packed arrays become weights if every one is there and has the shape of its place.

Otherwise its name is in the error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from helpers.packing import PlainMatrix, packed_tensors
from helpers.random_weights import SMALL, config_of, random_state
from matryo.config import TextConfig
from matryo.errors import CheckpointError, PlanError
from matryo.plan import Plan, full_plan
from matryo.weights import build_weights

Arrays = dict[str, npt.NDArray[Any]]
CONFIG = config_of(SMALL)
INNER = Plan((0, 1, 2, 4), (32, 64, 64, 32), 3)
SHELLS = [INNER, full_plan(CONFIG)]
KINDS = ("f32", "bf16", "q8", "q4")


@pytest.fixture(scope="module")
def arrays() -> dict[str, Arrays]:
    """Packed tensors by kind."""
    state = random_state(CONFIG)
    return {kind: packed_tensors(state, CONFIG, SHELLS, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_follows_from_the_array(arrays: dict[str, Arrays], kind: str) -> None:
    weights = build_weights(CONFIG, arrays[kind], SHELLS, PlainMatrix)
    layer = weights.layers[0]
    assert layer is not None and layer.k is not None
    assert {weights.embed.kind, layer.q.kind, layer.k.kind, layer.segments[1].up.kind} == {kind}
    assert [segment.num_units for segment in layer.segments] == [32, 96]
    assert (layer.segments[0].up.layout, layer.segments[0].down.layout) == (
        "rows",
        "rows",
    )  # sparse
    dense = weights.layers[4]
    assert dense is not None
    assert (dense.k, dense.v, dense.k_norm) == (None, None, None)
    assert (dense.segments[0].up.layout, dense.segments[0].down.rows) == (
        "panel",
        CONFIG.hidden_size,
    )
    assert [table.layers for table in weights.ple] == [(0, 1, 2, 4), (3, 5, 6, 7, 8)]


def test_arrays_are_wrapped_not_copied(arrays: dict[str, Arrays]) -> None:
    weights = build_weights(CONFIG, arrays["q4"], SHELLS, PlainMatrix)
    assert weights.embed.data is arrays["q4"]["embed"]
    assert weights.final_norm is arrays["q4"]["final_norm"]


def test_the_first_shell_alone_is_enough_for_its_plan(arrays: dict[str, Arrays]) -> None:
    first = packed_tensors(random_state(CONFIG), CONFIG, SHELLS[:1], "q4")
    weights = build_weights(CONFIG, first, SHELLS[:1], PlainMatrix)
    assert [layer is not None for layer in weights.layers] == [
        n in INNER.layers for n in range(CONFIG.num_layers)
    ]
    weights.check(INNER)
    with pytest.raises(PlanError, match="needs 64 FFN units of layer 0, 32 are here"):
        weights.check(Plan((0, 1, 2, 4), (64, 64, 64, 32), 3))
    with pytest.raises(PlanError, match="needs 32 FFN units of layer 3, 0 are here"):
        weights.check(Plan((0, 1, 2, 3), (32,) * 4, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_needed_and_named(arrays: dict[str, Arrays], kind: str) -> None:
    for name in arrays[kind]:
        rest = {other: array for other, array in arrays[kind].items() if other != name}
        with pytest.raises(CheckpointError, match=f"{name} is missing"):
            build_weights(CONFIG, rest, SHELLS, PlainMatrix)


Change = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
CHANGES: dict[str, Change] = {
    "one row less": lambda a: a[:-1],
    "one axis more": lambda a: a[None],
    "flat": lambda a: a.reshape(-1) if a.ndim > 1 else a[:, None],
    "other dtype": lambda a: a.astype(np.float64),
    "bytes": lambda a: a.view(np.int8),
    "empty": lambda a: a[:0],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["f32", "q4"])
def test_every_misshapen_tensor_is_named(arrays: dict[str, Arrays], kind: str, change: str) -> None:
    for name, array in arrays[kind].items():
        broken = {**arrays[kind], name: CHANGES[change](array)}
        with pytest.raises(CheckpointError, match=f"tensor {name}: expected"):
            build_weights(CONFIG, broken, SHELLS, PlainMatrix)


def test_media_rows_are_optional_and_have_their_shape(arrays: dict[str, Arrays]) -> None:
    assert build_weights(CONFIG, arrays["f32"], SHELLS, PlainMatrix).multimodal is None
    table = np.ones((32, CONFIG.hidden_size), np.float32)
    assert (
        build_weights(
            CONFIG, {**arrays["f32"], "multimodal": table}, SHELLS, PlainMatrix
        ).multimodal
        is table
    )
    with pytest.raises(CheckpointError, match="tensor multimodal: expected float32"):
        build_weights(CONFIG, {**arrays["f32"], "multimodal": table[1:]}, SHELLS, PlainMatrix)


def test_the_native_matrix_takes_what_passed_the_checks(arrays: dict[str, Arrays]) -> None:
    from matryo import kernels

    config: TextConfig = CONFIG
    weights = build_weights(config, arrays["q8"], SHELLS, kernels.Matrix)
    assert (weights.embed.rows, weights.embed.cols) == (config.vocab_size, config.hidden_size)
