"""The attention block: what it stores, what it computes, the same bits for any batch and team."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.attention import I32, Shape, Tables, angles, random_layer, rows
from helpers.matrices import F32, KINDS, guarded, guards_hold, normal
from matryo import kernels
from matryo.kernels import reference
from matryo.kernels.layer import Layer
from matryo.kernels.reference_pages import KV_KINDS, PAGE, _loaded

SHAPE = Shape()
D = 64


class Call:
    """The rows of one call: inputs, angles, and the native layer."""

    def __init__(
        self, rng: np.random.Generator, layer: Layer, sequences: I32, positions: I32
    ) -> None:
        self.layer, self.native = layer, kernels.layer_handle(layer)
        self.sequences, self.positions = sequences, positions
        self.normed, self.active = (normal(rng, len(positions), D) for _ in range(2))
        self.cos, self.sin = angles(positions, layer.head_dim)

    def part(self, chosen: slice) -> Call:
        part = object.__new__(Call)
        part.layer, part.native = self.layer, self.native
        for name in ("sequences", "positions", "normed", "active", "cos", "sin"):
            setattr(part, name, getattr(self, name)[chosen])
        return part

    def run(self, tables: Tables, write_kv: bool = True) -> F32:
        hidden, buffer = guarded(len(self.normed), D)
        kernels.attention(
            self.native, self.normed, self.active, tables.native, self.sequences, self.positions,
            self.cos, self.sin, write_kv, hidden,
        )  # fmt: skip
        assert guards_hold(buffer)
        return hidden

    def write(self, tables: Tables) -> None:
        kernels.write_kv(
            self.native,
            self.normed,
            tables.native,
            self.sequences,
            self.positions,
            self.cos,
            self.sin,
        )

    def twin(self, tables: Tables) -> F32:
        """What the numpy block makes of the pages as they are."""
        hidden = np.empty_like(self.normed)
        reference.attention(
            self.layer, self.normed, self.active, tables.twin, self.sequences, self.positions,
            self.cos, self.sin, False, hidden,
        )  # fmt: skip
        return hidden


def same_pages(one: Tables, other: Tables) -> bool:
    return all(
        np.array_equal(*pair)
        for own, theirs in zip(one.pages, other.pages, strict=True)
        for pair in zip(own, theirs, strict=True)
    )


def expect_block(got: F32, wanted: F32, kind: str) -> None:
    """Float32 rounds by 2^-24 in each of the few hundred steps of the block.

    Where a product quantises, an activation near a tie may round to the other side: a step of 1/127
    of the largest value of a group. In one of the 24 columns of `laurel_right`, the narrowest, this
    is 1/127/sqrt(24) of a typical row; a few may meet.
    """
    scale = np.sqrt(np.mean(wanted.astype(np.float64) ** 2))
    limit = 6 * 2.0**-24 * 300 if kind in ("f32", "bf16") else 4 / 127 / np.sqrt(24)
    assert np.abs(got - wanted).max() <= limit * scale


@pytest.mark.parametrize("kv_kind", KV_KINDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [0, 70])
def test_the_block_equals_its_twin(
    isa: str, kind: str, kv_kind: str, window: int, rng: np.random.Generator
) -> None:
    layer = random_layer(rng, kind, SHAPE)
    tables = Tables(kv_kind, SHAPE, window, [5, 1])
    tables.fill(rng, [150, 0])
    call = Call(rng, layer, *rows((0, 150, 3), (1, 0, 5), (0, 153, 60)))
    got = call.run(tables)
    expect_block(got, call.twin(tables), kind)
    reader = random_layer(rng, kind, SHAPE, reader=True)
    before = tables.copied()
    call = Call(rng, reader, *rows((0, 212, 1), (1, 4, 1)))
    expect_block(call.run(tables, write_kv=False), call.twin(tables), kind)
    assert all(
        np.array_equal(a, b)
        for own, old in zip(tables.pages, before, strict=True)
        for a, b in zip(own, old, strict=True)
    )


@pytest.mark.parametrize("kv_kind", KV_KINDS)
def test_keys_and_values_are_stored_as_their_twin(
    isa: str, kv_kind: str, rng: np.random.Generator
) -> None:
    """Within one step of the stored type; float32 within the rounding of norm and rotation."""
    layer = random_layer(rng, "f32", SHAPE)
    native, twin = Tables(kv_kind, SHAPE, 0, [3, 2]), Tables(kv_kind, SHAPE, 0, [3, 2])
    call = Call(rng, layer, *rows((0, 60, 80), (1, 0, 2), (1, 100, 1)))
    call.write(native)
    reference.write_kv(
        layer, call.normed, twin.twin, call.sequences, call.positions, call.cos, call.sin
    )
    written = set(zip(call.sequences.tolist(), call.positions.tolist(), strict=True))
    for sequence in range(2):
        for page in range(len(native.pages[sequence])):
            got, wanted = native.twin.view(sequence, page), twin.twin.view(sequence, page)
            for one, other in zip(
                [*got.keys, *got.values], [*wanted.keys, *wanted.values], strict=True
            ):
                wide = [
                    x.astype(np.float64 if kv_kind == "f32" else np.int64) for x in (one, other)
                ]
                assert np.abs(wide[0] - wide[1]).max() <= (1e-5 if kv_kind == "f32" else 1)
            if got.scales is not None and wanted.scales is not None:
                assert np.allclose(got.scales, wanted.scales, rtol=1e-5, atol=0)
            unwritten = [s for s in range(PAGE) if (sequence, page * PAGE + s) not in written]
            assert all((keys[:, unwritten] == 0).all() for keys in got.keys)
            assert all((values[unwritten] == 0).all() for values in got.values)


def test_the_block_writes_what_write_kv_writes(isa: str, rng: np.random.Generator) -> None:
    layer = random_layer(rng, "q4", SHAPE)
    for kv_kind in KV_KINDS:
        one, other = Tables(kv_kind, SHAPE, 0, [3]), Tables(kv_kind, SHAPE, 0, [3])
        call = Call(rng, layer, *rows((0, 0, 130)))
        call.run(one)
        call.write(other)
        assert same_pages(one, other) and one.pages[0][2].any()


@pytest.mark.parametrize("kv_kind", KV_KINDS)
def test_vanishing_values_are_stored_as_zeros(
    isa: str, kv_kind: str, rng: np.random.Generator
) -> None:
    """An input of zeros has no direction: nothing divides by its size."""
    layer = random_layer(rng, "f32", SHAPE)
    tables = Tables(kv_kind, SHAPE, 0, [1])
    tables.pages[0][0][:] = 1
    call = Call(rng, layer, *rows((0, 5, 1)))
    call.normed[:] = 0
    call.write(tables)
    view = tables.twin.view(0, 0)
    assert all((_loaded(keys, None)[:, 5] == 0).all() for keys in view.keys)
    assert all((_loaded(values, None)[5] == 0).all() for values in view.values)
    assert view.scales is None or (view.scales[:, :, 5] == 0).all()
    assert np.isfinite(call.run(tables)).all()


@pytest.mark.parametrize("kv_kind", KV_KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_same_bits_in_any_chunk_and_batch(
    isa: str, kind: str, kv_kind: str, rng: np.random.Generator
) -> None:
    layer = random_layer(rng, kind, SHAPE)
    window, pages = 70, [4, 4]
    whole, chunked = (Tables(kv_kind, SHAPE, window, pages) for _ in range(2))
    call = Call(rng, layer, *rows((0, 0, 90), (1, 0, 40)))
    expected = call.run(whole)
    sizes = [1, 2, 3, 17, 1, 40, 26, 1, 39]
    ends = np.cumsum(sizes)
    parts = [
        call.part(slice(end - size, end)).run(chunked)
        for size, end in zip(sizes, ends, strict=True)
    ]
    assert np.array_equal(np.concatenate(parts), expected)
    assert same_pages(whole, chunked)


@pytest.mark.parametrize("kv_kind", KV_KINDS)
def test_the_bits_do_not_depend_on_the_threads(
    isa: str, kv_kind: str, rng: np.random.Generator
) -> None:
    before = kernels.threads()
    for kind, head_dim in (("q4", 32), ("f32", 24), ("q8", 24)):
        layer = random_layer(rng, kind, Shape(4, 2, head_dim))
        results = []
        long, short = Call(rng, layer, *rows((0, 0, 300))), Call(rng, layer, *rows((0, 300, 1)))
        for threads in (1, 2, 3):
            kernels.set_threads(threads)
            tables = Tables(kv_kind, Shape(4, 2, head_dim), 0, [5])
            results.append((long.run(tables), short.run(tables), tables))
        kernels.set_threads(before)
        for other in results[1:]:
            assert np.array_equal(results[0][0], other[0]) and np.array_equal(
                results[0][1], other[1]
            )
            assert same_pages(results[0][2], other[2])


def test_the_position_counts(isa: str, rng: np.random.Generator) -> None:
    """Rotation by position: two equal tokens at other distances attend differently."""
    layer = random_layer(rng, "f32", SHAPE)
    results = []
    for shift in (0, 1):
        tables = Tables("f32", SHAPE, 0, [1])
        call = Call(rng, layer, *rows((0, 0, 3)))
        call.normed[:] = np.arange(D) / D - 0.3
        call.active[:] = 0
        call.normed[2] *= -1
        call.cos, call.sin = angles(
            call.positions * np.array([1, 1, 1 + shift], np.int32), SHAPE.head_dim
        )
        results.append(call.run(tables)[2])
    assert not np.allclose(results[0], results[1], atol=1e-4)


def test_wrong_arguments_are_refused(rng: np.random.Generator) -> None:
    call = Call(rng, random_layer(rng, "f32", SHAPE), *rows((0, 10, 3)))
    tables = Tables("f32", SHAPE, 0, [1])
    good: dict[str, Any] = {
        "layer": call.native, "normed": call.normed, "active": call.active, "table": tables.native,
        "sequences": call.sequences, "positions": call.positions, "cos": call.cos, "sin": call.sin,
        "write_kv": True, "hidden": np.empty_like(call.normed),
    }  # fmt: skip
    arrays = ("normed", "active", "sequences", "positions", "cos", "sin", "hidden")
    writing = {
        name: value for name, value in good.items() if name not in ("active", "hidden", "write_kv")
    }
    for function, arguments in ((kernels.attention, good), (kernels.write_kv, writing)):
        function(**arguments)
        for name in (name for name in arrays if name in arguments):
            value = arguments[name]
            for bad in (value.astype(np.float64), np.repeat(value, 2, axis=0)[::2]):
                with pytest.raises(TypeError):
                    function(**{**arguments, name: bad})
            if name != "normed":
                with pytest.raises(ValueError, match=f"{name} has shape"):
                    function(**{**arguments, name: value[:2]})
        with pytest.raises(ValueError, match=r"(normed|active) has shape"):
            function(**{**arguments, "normed": call.normed[:, :32].copy()})
        for bad in (np.array([10, 11, 64], np.int32), np.array([-1, 0, 1], np.int32)):
            with pytest.raises(ValueError, match="positions"):
                function(**{**arguments, "positions": bad})
        with pytest.raises(ValueError, match="sequences"):
            function(**{**arguments, "sequences": np.ones(3, np.int32)})
        for heads, head_dim in ((1, 32), (2, 64)):
            other = kernels.PageTable("f32", heads, head_dim, 0)
            with pytest.raises(ValueError, match="the table has"):
                function(**{**arguments, "table": other})


def test_a_reader_has_nothing_to_write(rng: np.random.Generator) -> None:
    call = Call(rng, random_layer(rng, "f32", SHAPE, reader=True), *rows((0, 0, 1)))
    tables = Tables("f32", SHAPE, 0, [1])
    with pytest.raises(ValueError, match="reads an owner's pages"):
        call.run(tables)
    with pytest.raises(ValueError, match="reads an owner's pages"):
        call.write(tables)


def test_a_ring_too_small_for_the_chunk_is_refused(rng: np.random.Generator) -> None:
    """Its later rows would overwrite keys that earlier rows still see."""
    call = Call(rng, random_layer(rng, "f32", SHAPE), *rows((0, 100, 90)))
    with pytest.raises(ValueError, match="2 pages, these positions need 3"):
        call.run(Tables("f32", SHAPE, 64, [2]))
    call.run(Tables("f32", SHAPE, 64, [3]))
