"""Our own contender does every case, on a tiny random checkpoint with both sizes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("gguf")

from benchmarks.case import Case, Options
from benchmarks.checkpoints import write_checkpoints
from benchmarks.contenders import ours
from benchmarks.needed import needed_bytes
from benchmarks.sizes_picture import by_size
from benchmarks.synthetic import vocabulary
from benchmarks.synthetic.shapes import Dimensions

import matryo

DIMENSIONS = Dimensions(
    layers=15, owners=5, sparse_layers=3, hidden=64, ffn=256, heads=4, kv_heads=2, head_dim=32,
    per_layer=32, laurel_rank=32, vocabulary=1280, per_layer_vocabulary=1024, sliding_window=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed E4B with a plan named e2b inside, as the benchmarks use it."""
    from matryo.checkpoint.convert import convert

    directory = tmp_path_factory.mktemp("ours")
    pieces = vocabulary.made_up(DIMENSIONS.vocabulary)
    write_checkpoints(directory, ["e4b"], ["hf"], DIMENSIONS, pieces, seed=0)
    narrow = '{"e2b": {"layers": [0, 1, 2, 3, 4, 10, 11, 12, 13, 14], "ffn_width": 128}}'
    (directory / "e4b-hf" / "plans.json").write_text(narrow)
    convert(directory / "e4b-hf", directory / "e4b-q4", "q4")
    return directory


@pytest.fixture(scope="module")
def state(folder: Path) -> Iterator[ours.State]:
    module: ModuleType = ours
    opened: ours.State = module.load(Options(models=str(folder), threads=1))
    yield opened
    ours.close(opened)


def test_prefill_and_decode_count_their_tokens(state: ours.State) -> None:
    prefill = ours.run(state, Case("prefill", "e2b", prompt=12))
    assert (prefill.tokens, prefill.seconds > 0) == (12, True)
    decode = Case("decode", "e2b", generate=4, context=12)
    first, second = ours.run(state, decode), ours.run(state, decode)
    assert first.tokens == second.tokens == 4
    assert len(state.context) == 13, "repetitions must not lengthen the shared context"
    assert float(first.details["needed_bytes"]) > 0


def test_sizes_cost_more_and_more(state: ours.State) -> None:
    found = by_size(ours.run(state, Case("sizes", "e2b", generate=3, context=12)).details)
    assert next(iter(found)) == "e2b"
    assert list(found)[-1] == "e4b"
    read = [one["MB/token"] for one in found.values()]
    assert read == sorted(read)
    assert all(one["tokens/s"] > 0 and one["resident GB"] > 0 for one in found.values())


def test_a_switch_reports_both_sizes(state: ours.State) -> None:
    details = ours.run(state, Case("switch", "e2b", generate=3, context=12)).details
    assert float(details["e2b_tokens_per_second"]) > 0
    assert float(details["switch_microseconds"]) > 0


def test_log_probabilities_are_those_of_the_model(state: ours.State, tmp_path: Path) -> None:
    ids = np.arange(300, 316, dtype=np.int32)
    np.save(tmp_path / "ids.npy", ids)
    ours.run(state, Case("logits", "e2b", prompt=16, note=str(tmp_path / "ours.npz")))
    saved = np.load(tmp_path / "ours.npz")
    values = saved["values"]
    assert values.shape == (7, 1280)
    np.testing.assert_allclose(np.exp(values.astype(np.float64)).sum(1), 1.0, rtol=1e-4)
    model = ours.model_of(state, "e2b")
    logits = model.logits(ids.tolist(), plan="e2b")[8:15]
    np.testing.assert_array_equal(values.argmax(1), logits.argmax(1))


def test_a_start_is_a_whole_process(state: ours.State) -> None:
    result = ours.run(state, Case("start", "e2b", prompt=4, cold=True))
    inside = sum(float(result.details[f"{step}_seconds"]) for step in ("import", "load", "token"))
    assert 0 < inside < result.seconds


def test_needed_bytes_count_the_cache_of_the_layers_that_read_it(state: ours.State) -> None:
    model = ours.model_of(state, "e2b")
    weights = model.cost("e2b").bytes
    # Token 99: 8 sliding layers see 8 tokens, 2 full ones 100; keys and values of 2 heads of 32.
    values = (8 * 8 + 2 * 100) * 2 * 2 * 32
    assert needed_bytes(model, "e2b", 99) == weights + 2 * values
    assert needed_bytes(model, "e2b", 99, "f32") == weights + 4 * values
    assert isinstance(model.plan("e2b"), matryo.Plan)
