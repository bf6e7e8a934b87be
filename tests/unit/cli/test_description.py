"""A description of a checkpoint counts what its files hold, and says which files its sizes need."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from matryo.checkpoint.convert import convert
from matryo.checkpoint.text_tensors import text_shapes
from matryo.cli.description import (
    bytes_per_token,
    describe_checkpoint,
    describe_size,
    first_missing,
)
from matryo.cli.info import architecture, by_plan, encoders
from matryo.cli.outcome import CommandError
from matryo.config import TextConfig
from matryo.errors import PlanError
from matryo.plan import Plan, full_plan, presets

E4B = TextConfig.from_json({"model_type": "gemma3n_text"})
E4B_PLANS = presets(E4B)


def test_parameters_are_those_of_the_tensors(tiny_checkpoint: Path) -> None:
    described = describe_checkpoint(tiny_checkpoint, weights="q4", kv="bf16")
    tensors = text_shapes(described.config)
    assert described.sizes["full"].parameters.total == sum(
        prod(shape) for shape in tensors.values()
    )


def test_encoders_are_described_whether_their_files_are_there_or_not(
    multimodal_checkpoint: Path, tmp_path: Path
) -> None:
    described = describe_checkpoint(multimodal_checkpoint, weights="q4", kv="bf16")
    words = dict(encoders(described.towers))
    assert words["pictures"] == "MobileNet-V5, 16 tokens a picture"
    assert words["sound"] == "3 conformer layers of 64, a token each 160 ms, 12 tokens a clip"
    convert(multimodal_checkpoint, tmp_path / "packed", "q8")
    (tmp_path / "packed" / "audio.safetensors").unlink()
    described = describe_checkpoint(tmp_path / "packed", weights="q4", kv="bf16")
    assert dict(encoders(described.towers)) == words
    files = {file.name: file for file in described.files}
    assert files["vision.safetensors"].present and not files["audio.safetensors"].present
    assert files["audio.safetensors"].holds == "the encoder of sound"
    assert described.ledger.row("vision.safetensors").resident_bytes == 0
    assert described.to_json()["encoders"]["vision"]["ids"]["count"] == 16


def test_kv_of_e4b() -> None:
    # 20 layers write 2 heads of 256 keys and values each; 4 of them see everything.
    sizes = {name: by_kind(name) for name in ("f32", "bf16", "int8")}
    assert sizes["bf16"] == (20 * 2 * 2 * 256 * 2, 4 * 2 * 2 * 256 * 2)
    assert sizes["f32"] == (2 * sizes["bf16"][0], 2 * sizes["bf16"][1])
    assert sizes["int8"] == (20 * 2 * 2 * (256 + 4), 4 * 2 * 2 * (256 + 4))


def by_kind(kind: str) -> tuple[int, int]:
    size = describe_size(E4B, full_plan(E4B), "q4", kind)
    return size.kv_bytes_per_token, size.kv_bytes_kept_per_token


def test_a_token_reads_fewer_bytes_of_a_smaller_plan_and_of_a_smaller_kind() -> None:
    by_plan_ = [bytes_per_token(E4B, E4B_PLANS[name], "q4") for name in ("e2b", "e4b")]
    by_kind_ = [
        bytes_per_token(E4B, E4B_PLANS["e4b"], kind) for kind in ("q4", "q8", "bf16", "f32")
    ]
    assert by_plan_ == sorted(set(by_plan_))
    assert by_kind_ == sorted(set(by_kind_))
    assert by_kind_[3] == pytest.approx(2 * by_kind_[2])


def test_the_first_file_on_the_way_to_a_plan_is_the_missing_one() -> None:
    small, large = E4B_PLANS["e2b"], E4B_PLANS["e4b"]
    between = Plan(large.layers, (8192,) * 35, large.num_owners)
    shells = {"shell-0": small, "shell-1": between, "shell-2": large}
    assert first_missing(small, shells, {"shell-1", "shell-2"}) is None
    assert first_missing(between, shells, {"shell-1", "shell-2"}) == "shell-1"
    assert first_missing(large, shells, {"shell-1", "shell-2"}) == "shell-1"
    assert first_missing(large, shells, {"shell-2"}) == "shell-2"
    assert first_missing(large, shells, set()) is None


def test_one_size_can_be_asked_for(tiny_checkpoint: Path) -> None:
    assert list(
        describe_checkpoint(tiny_checkpoint, weights="q4", kv="bf16", size="e2b").sizes
    ) == ["e2b"]
    with pytest.raises(PlanError, match="no plan named 'other'"):
        describe_checkpoint(tiny_checkpoint, weights="q4", kv="bf16", size="other")


def test_a_hugging_face_directory_has_no_checksums(tiny_checkpoint: Path) -> None:
    with pytest.raises(CommandError, match="only a packed directory"):
        describe_checkpoint(tiny_checkpoint, weights="q4", kv="bf16", verify=lambda *_: None)


def test_mapped_files_are_in_the_ledger(tiny_checkpoint: Path) -> None:
    described = describe_checkpoint(tiny_checkpoint, weights="q4", kv="bf16")
    row = described.ledger.row("model.safetensors")
    assert (row.kind, row.total_bytes) == ("mapped", described.files[0].bytes)


def test_names_of_one_plan_share_a_row(tiny_checkpoint: Path) -> None:
    described = describe_checkpoint(tiny_checkpoint, weights="q4", kv="bf16")
    assert [names for names, _ in by_plan(described.sizes)] == [["e2b"], ["e4b", "full"]]


def test_the_architecture_of_e4b_in_words() -> None:
    words = dict(architecture(E4B))
    assert words["layers"] == "35: 20 write K/V, 15 read theirs"
    assert words["attention"].startswith("8 heads, 2 for K/V, of 256")
    assert "K/V of 16 layers over a window of 512, of 4 over everything" in words["attention"]
    assert words["cut units"] == "95% of the FFN in 10 layers"
    assert words["context"] == "32768 tokens"
