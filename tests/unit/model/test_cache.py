"""The K/V cache: rings, growth, trimming, forks, saved pages. Tokens are marked by writing their
number into K and V.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from matryo.config import TextConfig
from matryo.errors import CapacityError, InputError
from matryo.kernels.reference_pages import PAGE, PageTable, page_bytes, write_rows
from matryo.model.cache import KVCache

WINDOW, CHUNK, CONTEXT = 100, 70, 1024
CONFIG = TextConfig.from_json(
    {
        "model_type": "gemma3n_text",
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 1,
        "layer_types": [
            "sliding_attention",
            "full_attention",
            "sliding_attention",
            "sliding_attention",
        ],
        "sliding_window": WINDOW,
        "max_position_embeddings": CONTEXT,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "hidden_size": 32,
    }
)
OWNERS = (0, 1, 2)
KINDS = ["f32", "bf16", "int8"]


def new_cache(kind: str = "f32", config: TextConfig = CONFIG) -> KVCache:
    return KVCache(config, OWNERS, kind=kind, chunk=CHUNK, make_table=PageTable)


def extend(cache: KVCache, count: int, offset: float = 0.0) -> None:
    """Writes `count` tokens; every element of token t is t + offset (keys) or -(t + offset)
    (values).
    """
    cache.reserve(count)
    positions = np.arange(cache.length, cache.length + count, dtype=np.int32)
    marks = np.zeros((count, 2, 4), np.float32) + (positions + offset)[:, None, None].astype(
        np.float32
    )
    for table in cache.tables:
        write_rows(table, np.zeros(count, np.int32), positions, marks, -marks)
    cache.commit(count)


def grow(cache: KVCache, length: int, offset: float = 0.0) -> None:
    while cache.length < length:
        extend(cache, min(CHUNK, length - cache.length), offset)


def seen(cache: KVCache, owner: int, position: int) -> float:
    """The mark of a position as a kernel would read it; keys, values and heads must agree."""
    view = cache.tables[owner].view(0, position // PAGE)
    slot = position % PAGE
    scale = 1.0 if view.scales is None else float(view.scales[1, 0, slot])
    key, value = (
        np.asarray(a).astype(np.float64) for a in (view.keys[1][3, slot], view.values[1][slot, 0])
    )
    assert abs(key) == abs(value) or cache.kind == "bf16"
    return float(key) * scale


def assert_holds(cache: KVCache, offset: float = 0.0) -> None:
    """Everything the next token can see is there: the window in sliding layers, all of it in the
    full one.
    """
    for owner, window in enumerate(CONFIG.window[:3]):
        first = max(0, cache.length - window + 1) if window else 0
        got = [seen(cache, owner, position) for position in range(first, cache.length)]
        assert got == pytest.approx(
            [position + offset for position in range(first, cache.length)], rel=1e-5
        )


@pytest.mark.parametrize("kind", ["f32", "int8"])
def test_rings_wrap_and_full_layers_grow(kind: str) -> None:
    cache = new_cache(kind)
    for step in (1, 62, 2, 70, 70, 1, 70, 70, 70, 70, 3, 70):
        extend(cache, step)
        assert_holds(cache)
    ring = -(-(WINDOW + CHUNK) // PAGE) + 1
    pages = [len(table.sequences[0]) for table in cache.tables]
    assert pages == [ring, -(-cache.length // PAGE), ring]
    assert cache.nbytes == sum(pages) * page_bytes(kind, 2, 4)


def test_a_window_stays_readable_while_a_chunk_is_written() -> None:
    cache = new_cache()
    for length in range(200, 840, 80):
        grow(cache, length)
        before = cache.length
        cache.reserve(CHUNK)
        positions = np.arange(before, before + CHUNK, dtype=np.int32)
        rows = np.zeros((CHUNK, 2, 4), np.float32)
        write_rows(cache.tables[0], np.zeros(CHUNK, np.int32), positions, rows, rows)
        # The first row of the chunk sees WINDOW - 1 tokens before itself.
        for position in range(before - WINDOW + 1, before):
            assert seen(cache, 0, position) == position
        extend(cache, CHUNK)


def test_pages_are_aligned_and_zeroed() -> None:
    cache = new_cache()
    cache.reserve(CHUNK)
    for table in cache.tables:
        for page in table.sequences[0]:
            assert page.ctypes.data % 64 == 0 and not page.any()


def test_limits() -> None:
    cache = new_cache()
    with pytest.raises(InputError, match="chunk of 70"):
        cache.reserve(CHUNK + 1)
    with pytest.raises(InputError, match="cannot commit 1"):
        cache.commit(1)
    grow(cache, CONTEXT - 1)
    with pytest.raises(CapacityError, match="1025 tokens exceed the context of 1024"):
        cache.reserve(2)
    extend(cache, 1)
    assert_holds(cache)
    with pytest.raises(InputError, match="K/V kind is 'int4'"):
        new_cache("int4")


def test_trim_within_the_ring_and_beyond_it() -> None:
    cache = new_cache()
    grow(cache, 500)
    assert (
        cache.can_trim(0)
        and cache.can_trim(20)
        and not cache.can_trim(501)
        and not cache.can_trim(-1)
    )
    cache.trim(20)
    assert cache.length == 480
    assert_holds(cache)
    extend(cache, 50, offset=0.5)
    assert seen(cache, 0, 479) == 479 and seen(cache, 1, 480) == 480.5
    assert not cache.can_trim(400)
    with pytest.raises(InputError, match="overwritten"):
        cache.trim(400)
    cache.trim(cache.length)
    assert cache.length == 0 and len(cache.tables[1].sequences[0]) == 0
    extend(cache, 3)
    assert_holds(cache)


def test_trimming_never_claims_what_the_ring_has_lost(rng: np.random.Generator) -> None:
    for _ in range(10):
        cache = new_cache()
        for _ in range(12):
            extend(cache, int(rng.integers(1, CHUNK + 1)))
            drop = int(rng.integers(0, cache.length + 1))
            if rng.random() < 0.5 and cache.can_trim(drop):
                cache.trim(drop)
            assert_holds(cache)


def test_short_sequences_trim_to_anything() -> None:
    cache = new_cache()
    grow(cache, 150)
    for length in (149, 60, 1):
        cache.trim(cache.length - length)
        assert_holds(cache)


def test_forks_are_independent() -> None:
    cache = new_cache()
    grow(cache, 290)
    fork = cache.fork()
    assert fork.tables[1].sequences[0][0] is cache.tables[1].sequences[0][0]  # shared until written
    extend(fork, 40, offset=0.25)
    extend(cache, 40, offset=0.5)
    for side, offset in ((fork, 0.25), (cache, 0.5)):
        assert seen(side, 0, 289) == 289
        for position in range(290, 330):
            assert seen(side, 0, position) == seen(side, 1, position) == position + offset
    second = fork.fork()
    second.trim(40)
    extend(second, 40)
    assert_holds(second)
    assert seen(fork, 2, 300) == 300.25


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 1, 64, 99, 101, 333, 512])
def test_saved_pages_restore(kind: str, length: int) -> None:
    cache = new_cache(kind)
    grow(cache, length)
    saved = cache.export()
    restored = new_cache(kind)
    restored.import_(length, saved)
    assert restored.length == length
    for owner, window in enumerate(CONFIG.window[:3]):
        first = max(0, length - window + 1) if window else 0
        for position in range(first, length):
            assert seen(restored, owner, position) == seen(cache, owner, position)
    extend(restored, 70)
    extend(cache, 70)
    assert seen(restored, 0, length + 69) == seen(cache, 0, length + 69)


@pytest.mark.parametrize(("length", "dropped"), [(333, 0), (512, 30), (640, 0), (650, 64)])
def test_a_restored_cache_can_be_trimmed_as_far(length: int, dropped: int) -> None:
    cache = new_cache()
    grow(cache, length)
    cache.trim(dropped)
    restored = new_cache()
    restored.import_(cache.length, cache.export())
    for _ in range(3):
        drops = range(cache.length + 1)
        possible = [drop for drop in drops if cache.can_trim(drop)]
        assert [drop for drop in drops if restored.can_trim(drop)] == possible
        furthest = max(drop for drop in possible if drop < cache.length)
        assert furthest > 0
        for drop in (furthest // 2, furthest):
            fork = restored.fork()
            fork.trim(drop)
            assert_holds(fork)
        extend(cache, 45)
        extend(restored, 45)


def test_a_cache_with_shorter_rings_takes_what_fits() -> None:
    cache = new_cache()
    grow(cache, 640)
    shorter = KVCache(CONFIG, OWNERS, kind="f32", chunk=2, make_table=PageTable)
    shorter.import_(640, cache.export())
    assert len(shorter.tables[0].sequences[0]) < len(cache.tables[0].sequences[0])
    assert_holds(shorter)
    furthest = max(drop for drop in range(640) if shorter.can_trim(drop))
    shorter.trim(furthest)
    assert_holds(shorter)
    extend(shorter, 2)
    assert_holds(shorter)


def test_pages_of_the_window_alone_are_enough() -> None:
    """As files of version 0.1.0 have them."""
    cache = new_cache()
    grow(cache, 640)
    saved = cache.export()
    for name in ("kv.0", "kv.2"):
        saved[name] = saved[name][-(640 // PAGE - (640 - WINDOW + 1) // PAGE) :]
    restored = new_cache()
    restored.import_(640, saved)
    assert_holds(restored)
    assert not restored.can_trim(WINDOW)
    extend(restored, 3)
    assert_holds(restored)


def test_saved_pages_do_not_carry_dropped_tokens() -> None:
    cache = new_cache("int8")
    grow(cache, 120)
    cache.trim(20)
    last = cache.export()["kv.1"][-1]
    table = PageTable("int8", 2, 4, 0)
    table.set([last])
    view = table.view(0, 0)
    assert view.scales is not None
    assert (
        view.values[0][35].any()
        and not view.values[0][36:].any()
        and not view.keys[1][:, 36:].any()
    )
    assert not view.scales[:, :, 36:].any()


@pytest.mark.parametrize(
    "change",
    [
        lambda saved: saved.pop("kv.1"),
        lambda saved: saved.update({"kv.3": saved["kv.1"]}),
        lambda saved: saved.update({"kv.1": saved["kv.1"][:-1]}),
        lambda saved: saved.update({"kv.0": saved["kv.0"][2:]}),
        lambda saved: saved.update({"kv.0": saved["kv.0"].repeat(2, axis=0)}),
        lambda saved: saved.update({"kv.0": saved["kv.0"][0]}),
        lambda saved: saved.update({"kv.0": saved["kv.0"].astype(np.int8)}),
        lambda saved: saved.update({"kv.2": saved["kv.2"][:, :-1]}),
    ],
)
def test_saved_pages_that_do_not_fit(change: object) -> None:
    cache = new_cache()
    grow(cache, 150)
    saved: dict[str, npt.NDArray[np.uint8]] = cache.export()
    assert callable(change)
    change(saved)
    restored = new_cache()
    with pytest.raises(InputError):
        restored.import_(150, saved)
    assert restored.length == 0 and restored.nbytes == 0
    with pytest.raises(InputError, match="cannot restore"):
        restored.import_(CONTEXT + 1, saved)


@pytest.mark.parametrize("length", [30, 300])
def test_a_converted_cache_holds_the_same_keys_and_values(length: int) -> None:
    """As if it had been written in the other kind: the marks are the same numbers in both."""
    cache, expected = new_cache("bf16"), new_cache("int8")
    for one in (cache, expected):
        for start in range(0, length, 60):
            extend(one, min(60, length - start))
    fork = cache.fork()
    before = fork.export()
    cache.convert("int8")
    assert cache.kind == "int8" and cache.length == length
    assert cache.nbytes == expected.nbytes
    restored, wanted = cache.export(), expected.export()
    size = page_bytes("int8", 2, 4)
    for name, array in restored.items():
        scales = array.shape[1] - size + 2 * 2 * PAGE * 4
        assert np.array_equal(array[:, :-scales], wanted[name][:, :-scales])
        got, want = (
            np.ascontiguousarray(pages[:, -scales:]).view(np.float32)
            for pages in (array, wanted[name])
        )
        np.testing.assert_allclose(got, want, rtol=0.01)  # bf16 rounds numbers above 256
    assert all(np.array_equal(array, fork.export()[name]) for name, array in before.items())
    extend(cache, 40)
    with pytest.raises(InputError, match="K/V kind"):
        cache.convert("q4")


def test_converting_back_changes_kinds_not_values() -> None:
    cache = new_cache("f32")
    extend(cache, 70)
    wanted = cache.export()
    cache.convert("bf16")
    cache.convert("f32")
    assert all(np.array_equal(array, cache.export()[name]) for name, array in wanted.items())
