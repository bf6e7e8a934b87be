"""What quantisation costs: roundings, rounded checkpoints, figures and their tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf")

from benchmarks.checkpoints import write_checkpoints
from benchmarks.synthetic import vocabulary
from benchmarks.synthetic.shapes import Dimensions

from benchmarks import quality, quality_report, rounded_checkpoint, rounding

DIMENSIONS = Dimensions(
    layers=10, owners=5, sparse_layers=2, hidden=64, ffn=64, heads=2, kv_heads=1, head_dim=32,
    per_layer=32, laurel_rank=32, vocabulary=1280, per_layer_vocabulary=1024, sliding_window=8,
)  # fmt: skip


def test_plain_roundings_keep_their_range_and_their_extreme() -> None:
    matrix = np.random.default_rng(0).standard_normal((8, 64), dtype=np.float32)
    matrix[0, :32] = 0
    for function, levels in ((rounding.symmetric, 15), (rounding.signed, 16)):
        restored = function(matrix)
        assert restored.shape == matrix.shape
        assert (restored[0, :32] == 0).all()
        assert all(len(np.unique(group)) <= levels for group in restored.reshape(-1, 32))
        assert rounding.relative_error(matrix, restored) < 0.12
    group = matrix[1, :32]
    largest = np.abs(group).argmax()
    assert rounding.signed(matrix)[1, largest] == pytest.approx(group[largest], rel=0.005)


def test_the_packers_search_is_better_than_either() -> None:
    matrix = np.random.default_rng(0).standard_normal((64, 256), dtype=np.float32)
    error = {
        name: rounding.relative_error(matrix, function(matrix))
        for name, function in rounding.ROUNDINGS.items()
    }
    assert error["search"] < 0.97 * min(error["absmax / 7"], error["extreme / -8 (as Q4_0)"])
    assert error["8 bits"] < 0.1 * error["search"]


def test_columns_that_do_not_fill_a_group_are_kept() -> None:
    matrix = np.random.default_rng(0).standard_normal((4, 40), dtype=np.float32)
    assert rounding.relative_error(matrix, rounding.symmetric(matrix)) < 0.12


def test_only_the_chosen_families_are_rounded(tmp_path: Path) -> None:
    pieces = vocabulary.made_up(DIMENSIONS.vocabulary)
    write_checkpoints(tmp_path, ["e4b"], ["hf"], DIMENSIONS, pieces, seed=0)
    source, target = tmp_path / "e4b-hf", tmp_path / "rounded"
    rounded_checkpoint.write(source, target, {"down": rounding.symmetric})
    before, after = rounded_checkpoint.read(source), rounded_checkpoint.read(target)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {f"model.layers.{i}.mlp.down_proj.weight" for i in range(10)}
    assert (target / "tokenizer.json").is_file()


def test_every_matrix_of_a_checkpoint_has_a_family() -> None:
    from benchmarks.synthetic.shapes import tensors

    names = [spec.name for spec in tensors(DIMENSIONS) if len(spec.shape) == 2]
    unnamed = {name.split(".")[-2] for name in names if not rounded_checkpoint.family(name)}
    assert unnamed == {"correction_coefs", "prediction_coefs", "modality_router"}
    assert rounded_checkpoint.family("model.embed_tokens_per_layer.weight") == "ple"


def test_figures_of_equal_logits_are_perfect_and_of_others_not() -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((6, 50)).astype(np.float32) * 3
    ids = [1, 2, 3, 4, 5, 6]
    sums = quality.Collector()
    sums.add(logits, logits, ids)
    same = sums.figures("same", is_text=True)
    assert (same.kl, same.top1) == (0.0, 1.0)
    chosen = quality.log_softmax(logits)[np.arange(5), ids[1:]]
    assert same.perplexity == pytest.approx(float(np.exp(-chosen.mean())))
    sums = quality.Collector()
    sums.add(logits, np.roll(logits, 1, axis=1), ids)
    other = sums.figures("other", is_text=False)
    assert other.kl > 0.5
    assert other.top1 < 0.5
    assert other.perplexity == 0.0


def test_the_own_token_of_a_random_model_is_left_out() -> None:
    logits = np.zeros((2, 4), np.float32)
    logits[0, 1] = logits[1, 3] = 30.0
    hidden = quality.log_softmax(quality.without_own(logits, [1, 3]))
    np.testing.assert_allclose(np.exp(hidden[0]), [1 / 3, 0, 1 / 3, 1 / 3], atol=1e-6)
    assert logits[0, 1] == 30.0


def test_the_two_ends_of_the_plans_are_measured() -> None:
    small = {"layers": [0, 2], "ffn_width": [32, 32]}
    middle = {"layers": [0, 1, 2], "ffn_width": [32, 32, 32]}
    large = {"layers": [0, 1, 2], "ffn_width": [64, 64, 64]}
    plans = {"small": small, "mid": middle, "large": large, "e2b": small, "e4b": large}
    assert quality.smallest_and_largest(plans) == ["small", "large"]


def test_tables_show_what_is_shipped_apart_from_the_choices() -> None:
    rows = [
        {"variant": "f32", "kl": 0.0, "top1": 1.0, "perplexity": 10.0},
        {"variant": "q4", "kl": 0.02, "top1": 0.9, "perplexity": 10.5},
        {"variant": "weights alone: search", "kl": 0.01, "top1": 0.95, "perplexity": 10.2},
    ]
    errors = [{"rounding": "search", "gaussian": 0.08, "trained": 0.09}]
    document = {"time": "2026-01-01T00:00:00", "machine": {"commit": "abc"}}
    text = quality_report.section(
        [
            {"title": quality_report.ERRORS, "rows": errors, "document": document},
            {"title": "trained, large", "rows": rows, "document": document},
        ]
    )
    assert "| search | 8.00% | 9.00% |" in text
    shipped, choices = text.split("Weights alone")
    assert "| q4 | 0.02 | 90.0% | 10.50 (+5.00%) |" in shipped
    assert "| search | 0.01 | 95.0% | 10.20 (+2.00%) |" in choices
    assert "q4" not in choices
    assert quality_report.section([]) == ""
