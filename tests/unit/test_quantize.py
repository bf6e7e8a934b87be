"""Which kind a tensor gets, what is stored, and how far that may be from the weights."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.matrices import KINDS, LAYOUTS, empty_storage, normal
from matryo.errors import ConfigError
from matryo.kernels import reference
from matryo.quantize import (
    GROUP,
    KIND_POLICY,
    WEIGHTS,
    empty,
    family,
    kind_of,
    pack,
    stored_as,
    unpack,
)

SIZES = [(16, 32), (1, 32), (17, 33), (48, 96), (5, 1), (33, 160)]
NARROW = ("laurel_left", "laurel_right", "ple_gate", "ple_projection", "ple_model_projection",
          "altup_projection.0", "altup_unembed.2")  # fmt: skip


@pytest.mark.parametrize("weights", WEIGHTS)
def test_large_tensors_get_what_was_asked_for_and_narrow_ones_at_least_eight_bits(
    weights: str,
) -> None:
    for name in (
        "embed",
        "ple.0",
        "layers.3.q",
        "layers.3.ffn.1.gate",
        "layers.3.ffn.0.down",
        "layers.3.o",
    ):
        assert kind_of(name, weights) == weights
    for name in NARROW:
        full = name if name.startswith("altup") else f"layers.11.{name}"
        assert kind_of(full, weights) == ("q8" if weights == "q4" else weights)


def test_every_packed_matrix_has_a_family() -> None:
    assert family("layers.30.ffn.2.up") == "up"
    assert family("ple.1") == "ple"
    assert family("altup_projection.2") == "altup_projection"
    assert all(len(policy) == len(KIND_POLICY["f32"]) for policy in KIND_POLICY.values())


def test_unknown_weights_and_layouts_are_refused() -> None:
    with pytest.raises(ConfigError, match="weights is 'q5'; allowed: f32, bf16, q8, q4"):
        kind_of("embed", "q5")
    with pytest.raises(ConfigError, match="no storage for kind 'q4' in layout 'columns'"):
        stored_as("q4", "columns", 16, 32)


@pytest.mark.parametrize(("rows", "cols"), SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_storage_is_what_the_architecture_page_says(
    kind: str, layout: str, rows: int, cols: int
) -> None:
    expected = empty_storage(kind, layout, rows, cols)
    got = empty(kind, layout, rows, cols)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    tag, shape = stored_as(kind, layout, rows, cols)
    assert shape == expected.shape
    assert tag == {"float32": "F32", "uint16": "BF16", "uint8": "U8"}[expected.dtype.name]


@pytest.mark.parametrize(("rows", "cols"), SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_packing_is_the_reference_and_unpacking_its_inverse(
    kind: str, layout: str, rows: int, cols: int, rng: np.random.Generator
) -> None:
    dense = normal(rng, rows, cols)
    stored = pack(kind, layout, dense)
    expected = empty_storage(kind, layout, rows, cols)
    reference.pack(kind, layout, dense, expected)
    assert np.array_equal(stored, expected)
    again = unpack(kind, layout, rows, cols, stored)
    assert np.array_equal(pack(kind, layout, again), stored) or kind in ("q8", "q4")
    assert np.abs(again - dense).max() <= step_of(kind, dense)


def step_of(kind: str, dense: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> float:
    """The largest error that rounding may make: half a step, a whole one at the end that q4 clips,
    and the rounding of the scale, which is a bfloat16."""
    largest = float(np.abs(dense).max())
    return {"f32": 0.0, "bf16": largest * 2.0**-8, "q8": largest / 127, "q4": largest / 7}[kind] * (
        1 + 2.0**-8
    )


@pytest.mark.parametrize("kind", ["q8", "q4"])
def test_a_group_is_quantised_by_itself(kind: str, rng: np.random.Generator) -> None:
    """So that a nested width is a prefix of whole groups, whatever lies beyond it."""
    dense = normal(rng, 16, 4 * GROUP)
    louder = dense.copy()
    louder[:, 2 * GROUP :] *= 1000
    one, other = (pack(kind, "panel", values) for values in (dense, louder))
    assert np.array_equal(one[:, :2], other[:, :2])
    narrow = pack(kind, "panel", np.ascontiguousarray(dense[:, : 2 * GROUP]))
    assert np.array_equal(one[:, :2], narrow)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_zeros(kind: str, layout: str) -> None:
    stored = pack(kind, layout, np.zeros((20, 70), np.float32))
    assert not unpack(kind, layout, 20, 70, stored).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_number_is_refused_by_row_and_column(kind: str, bad: float) -> None:
    dense = np.zeros((40, 64), np.float32)
    dense[33, 7] = bad
    with pytest.raises(ValueError, match="row 33, column 7"):
        pack(kind, "panel", dense)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_numbers_stay_finite(kind: str, layout: str) -> None:
    """Up to what the reader lets through; infinity times zero would be no number."""
    dense = np.zeros((16, 32), np.float32)
    dense[0, 0], dense[1, 3] = 1e37, np.finfo(np.float32).tiny
    assert np.isfinite(unpack(kind, layout, 16, 32, pack(kind, layout, dense))).all()
