"""`Model`: what it computes, counts and refuses; the arithmetic itself is in tests/parity."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import matryo
from helpers.files import write_checkpoint
from helpers.random_weights import SHAPE
from matryo import kernels
from matryo.checkpoint.convert import convert
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.checkpoint.slice import slice_checkpoint
from matryo.config import TextConfig
from matryo.errors import CheckpointError, InputError, PlanError
from matryo.loading import Model
from matryo.loading.model import left_padding, suppressed_ids
from matryo.model.cost import KIND_BITS, decode_bytes
from matryo.model.parameters import count_parameters
from matryo.plan import Plan
from matryo.quantize import WEIGHTS

IDS = [2, 17, 300, 5, 9, 400, 33, 8, 120]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    write_checkpoint(directory)
    return directory


@pytest.fixture(scope="module")
def model(hub: Path) -> Iterator[Model]:
    with matryo.load(hub, weights="f32") as opened:
        yield opened


def test_the_last_position_alone_is_the_last_of_all(model: Model) -> None:
    everywhere, last = model.logits(IDS), model.logits(IDS, positions="last")
    assert (everywhere.shape, last.shape) == ((len(IDS), 544), (1, 544))
    assert np.array_equal(everywhere[-1:], last)
    assert np.array_equal(model.logits(IDS, chunk=4), everywhere)


def test_rows_of_a_batch_are_what_they_are_alone(model: Model) -> None:
    batch = np.array([[0, 0, 0, 7, 8, 9], [1, 2, 3, 4, 5, 6]])
    mask = np.array([[0, 0, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    everywhere = model.logits(batch, mask=mask)
    last = model.logits(batch, positions="last", mask=mask)
    assert (everywhere.shape, last.shape) == ((2, 6, 544), (2, 1, 544))
    assert np.array_equal(everywhere[0, 3:], model.logits([7, 8, 9]))
    assert not everywhere[0, :3].any()
    assert np.array_equal(everywhere[1], model.logits(batch[1]))
    assert np.array_equal(last[:, 0], everywhere[:, -1])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"ids": []}, "at least one"),
    ({"ids": [544]}, "out of range"),
    ({"ids": [-1]}, "out of range"),
    ({"ids": [1.5]}, "whole numbers"),
    ({"ids": [1], "positions": "first"}, "positions"),
    ({"ids": [1], "chunk": 0}, "chunk"),
    ({"ids": [1], "mask": [1]}, "a mask belongs to ids"),
    ({"ids": [[1, 2]], "mask": [[1, 0]]}, "padding"),
    ({"ids": [[1, 2]], "mask": [[0, 0]]}, "padding"),
    ({"ids": [[1, 2]], "mask": [[1]]}, "shape of the ids"),
    ({"ids": [1], "kv": "q4"}, "kv"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_arguments_that_cannot_be_used_are_refused(
    model: Model, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.logits(**arguments)


def test_plans_go_from_small_to_large_and_the_default_is_the_largest(model: Model) -> None:
    widths = [sum(plan.ffn_width) for plan in model.plans.values()]
    assert widths == sorted(widths)
    assert model.default_plan == model.plans["full"] == model.plan() == model.plan("e4b")
    with pytest.raises(PlanError, match="no plan named 'huge'"):
        model.plan("huge")
    with pytest.raises(PlanError, match="exceeds the 128 of the checkpoint"):
        model.plan(Plan(tuple(range(7)), (160,) * 7, 3))
    with pytest.raises(TypeError):
        model.plans["x"] = model.default_plan  # type: ignore[index]


def num_values(weights: Any) -> int:
    """Elements of every matrix and vector in it, without the padding of what is stored."""
    if isinstance(weights, kernels.Matrix):
        return weights.rows * weights.cols
    if isinstance(weights, np.ndarray):
        return weights.size
    if is_dataclass(weights):
        return sum(num_values(getattr(weights, field.name)) for field in fields(weights))
    return sum(map(num_values, weights)) if isinstance(weights, tuple) else 0


@pytest.mark.parametrize("kind", WEIGHTS)
def test_costs_are_counted_from_what_is_stored(hub: Path, kind: str) -> None:
    with matryo.load(hub, weights=kind) as model:
        for plan in model.plans.values():
            cost, counted = model.cost(plan), count_parameters(model.config, plan)
            assert cost.parameters == counted.total
            assert cost.effective_parameters == counted.effective
            assert cost.bytes == sum(cost.bytes_by_part.values())
            assert cost.prompt_macs < cost.macs
            # From shapes alone there are no vectors, embedding rows and padding to whole groups.
            bits = dict.fromkeys(cost.bytes_by_part, KIND_BITS[kind])
            assert decode_bytes(model.config, plan, bits) < cost.bytes < cost.stored_bytes
        stored = sum(array.nbytes for array in model._opened.arrays)
        assert model.cost().stored_bytes == stored
        assert model.cost().parameters == num_values(model._opened.weights)
        sizes = [model.cost(plan).bytes for plan in ("narrow", "middle", "full")]
        assert sizes == sorted(set(sizes))


def test_a_mixed_plan_between_two_shells_costs_what_it_reads(model: Model) -> None:
    """Of half of a sparse layer's last segment: its gate whole, a twentieth of up and down."""
    middle = model.plans["middle"]
    more = Plan(middle.layers, (96, *middle.ffn_width[1:]), middle.num_owners)
    row = 4 * model.config.hidden_size
    extra = model.cost(more).bytes - model.cost(middle).bytes
    assert extra == 32 * row + 2 * round(32 * row * (1.0 - model.config.sparsity[0]))


def test_a_slice_has_the_logits_of_its_plan(hub: Path, tmp_path: Path, model: Model) -> None:
    source = HuggingFaceSource(hub)
    mixed = Plan((0, 1, 2, 4, 5), (64, 96, 32, 128, 64), 3)
    for number, plan in enumerate((model.plans["middle"], mixed)):
        slice_checkpoint(source, plan, tmp_path / str(number))
        with matryo.load(tmp_path / str(number), weights="f32") as cut:
            np.testing.assert_allclose(cut.logits(IDS), model.logits(IDS, plan=plan), atol=2e-4)


def test_the_ledger_names_files_or_memory(hub: Path, model: Model, tmp_path: Path) -> None:
    assert model.ledger().row("weights").total_bytes == model.cost().stored_bytes
    convert(hub, tmp_path / "packed", "q8")
    with matryo.load(tmp_path / "packed") as opened:
        opened.logits(IDS)
        rows = {row.name: row for row in opened.ledger().rows}
        for path in (tmp_path / "packed").glob("*.safetensors"):
            row = rows[path.name]
            assert (row.kind, row.total_bytes) == ("mapped", path.stat().st_size)
        assert "weights" not in rows


def test_a_closed_model_says_so_and_lets_go_of_its_weights(hub: Path) -> None:
    model = matryo.load(hub)
    session = model.session()
    session.prefill(IDS)
    array = weakref.ref(model._opened.arrays[0])
    for _ in range(2):
        model.close()
    for call in (
        lambda: model.logits(IDS),
        lambda: model.session(),
        lambda: model.plan("full"),
        lambda: model.cost(),
        lambda: list(session.generate([5])),
        lambda: session.prefill([5]),
        lambda: session.reanchor(),
    ):
        with pytest.raises(InputError, match="closed"):
            call()
    assert session.ids == IDS
    gc.collect()
    assert array() is None


def test_files_are_let_go_with_the_model(hub: Path, tmp_path: Path) -> None:
    convert(hub, tmp_path / "packed", "q4")

    def is_mapped() -> bool:
        return str(tmp_path / "packed") in Path("/proc/self/maps").read_text()

    model = matryo.load(tmp_path / "packed")
    assert is_mapped()
    model.close()
    gc.collect()
    assert not is_mapped()


def test_a_saved_session_goes_on_with_the_same_weights_and_no_others(
    hub: Path, tmp_path: Path
) -> None:
    with matryo.load(hub, weights="q8") as model:
        session = model.session()
        session.prefill(IDS)
        session.save(tmp_path / "x.session")
    with matryo.load(hub, weights="q8") as again:
        restored = again.restore(tmp_path / "x.session")
        assert (restored.ids, restored.num_cached) == (IDS, len(IDS) - 1)
    with matryo.load(hub, weights="q4") as other:
        with pytest.raises(CheckpointError, match="other weights"):
            other.restore(tmp_path / "x.session")


def test_ids_without_text_are_never_chosen() -> None:
    config = TextConfig.from_json({"model_type": "gemma3n_text", **SHAPE, "pad_token_id": 0})
    assert suppressed_ids(config, frozenset({1})).tolist() == [0, *range(512, 544)]
    assert suppressed_ids(config, frozenset({0})).tolist() == list(range(512, 544))


def test_padding_is_zeros_on_the_left() -> None:
    assert left_padding(None, (2, 3)) == [0, 0]
    assert left_padding(np.array([[0, 0, 1], [1, 1, 1]]), (2, 3)) == [2, 0]


def test_a_model_describes_itself(model: Model) -> None:
    assert repr(model) == "<matryo.Model tiny f32 plans: narrow, e2b, middle, e4b, full>"
    assert (model.name, model.weights) == ("tiny", "f32")
    for part in ("tokenizer", "chat_template"):
        with pytest.raises(InputError, match="has no"):
            getattr(model, part)
