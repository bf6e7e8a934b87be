"""Every form a public checkpoint comes in is read; whatever does not fit is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.files import (
    F32,
    hub_config,
    rounded,
    stored,
    to_bf16,
    write_checkpoint,
    write_json,
    write_tensors,
)
from helpers.random_weights import SMALL, config_of, random_state
from matryo.checkpoint.huggingface import HuggingFaceSource
from matryo.errors import CheckpointError, ConfigError

READER = 5  # a layer of SMALL that reads the K/V of another
DEAD = [f"layers.{READER}.self_attn.{name}.weight" for name in ("k_proj", "v_proj", "k_norm")]
Weights = dict[str, F32]


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_state(config_of(SMALL))


def same(source: HuggingFaceSource, weights: Weights, dtype: str = "F32") -> bool:
    return all(
        np.array_equal(source.read(name), rounded(weights[name], dtype)) for name in source.shapes
    )


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_every_dtype_alone_and_in_shards(
    tmp_path: Path, weights: Weights, dtype: str, shards: int
) -> None:
    write_checkpoint(tmp_path, state=weights, dtype=dtype, shards=shards)
    source = HuggingFaceSource(tmp_path)
    assert len(source.files) == shards
    assert same(source, weights, dtype)


@pytest.mark.parametrize(
    "prefix", ["model.", "model.language_model.", "language_model.model.", "language_model.", ""]
)
def test_every_prefix_that_releases_have_used(
    tmp_path: Path, weights: Weights, prefix: str
) -> None:
    write_checkpoint(tmp_path, state=weights, prefix=prefix)
    assert same(HuggingFaceSource(tmp_path), weights)


def test_a_multimodal_checkpoint_is_read_beside_its_towers(
    tmp_path: Path, weights: Weights
) -> None:
    config = {
        "model_type": "gemma3n",
        "dtype": "bfloat16",
        "text_config": {"model_type": "gemma3n_text", **SMALL},
    }
    towers = {
        "model.vision_tower.stem.weight": ("F32", np.ones((2, 3, 1, 1), np.float32)),
        "model.vision_tower.bn.num_batches_tracked": ("I64", np.array(3)),
        "model.embed_audio.embedding.weight": ("BF16", to_bf16(np.ones((4, 2), np.float32))),
    }
    write_checkpoint(
        tmp_path, state=weights, config=config, prefix="model.language_model.", more=towers
    )
    source = HuggingFaceSource(tmp_path)
    assert same(source, weights)
    assert set(source.others) == set(towers)
    for name, (_, values) in towers.items():
        assert np.array_equal(source.bits(name), values)


def test_keys_and_values_of_reader_layers_are_never_read(tmp_path: Path, weights: Weights) -> None:
    poisoned = {name: np.full_like(w, np.nan) if name in DEAD else w for name, w in weights.items()}
    write_checkpoint(tmp_path / "with", state=poisoned)
    write_checkpoint(
        tmp_path / "without", state={n: w for n, w in weights.items() if n not in DEAD}
    )
    one, other = HuggingFaceSource(tmp_path / "with"), HuggingFaceSource(tmp_path / "without")
    assert not set(DEAD) & set(one.shapes)
    assert same(one, weights) and same(other, weights)


def test_both_spellings_of_rope_and_of_the_widths_mean_the_same(
    tmp_path: Path, weights: Weights
) -> None:
    old = hub_config(rope_theta=5e5, rope_local_base_freq=2e4, rope_scaling=None)
    new = hub_config(
        intermediate_size=[SMALL["intermediate_size"]] * SMALL["num_hidden_layers"],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
        },
    )
    write_checkpoint(tmp_path / "old", state=weights, config=old)
    write_checkpoint(tmp_path / "new", state=weights, config=new)
    assert HuggingFaceSource(tmp_path / "old").config == HuggingFaceSource(tmp_path / "new").config
    assert set(HuggingFaceSource(tmp_path / "old").config.rope_theta) == {5e5, 2e4}


def test_parts_are_read_as_the_whole(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path)
    source, name = HuggingFaceSource(tmp_path), "layers.1.mlp.down_proj.weight"
    assert np.array_equal(source.read(name, slice(3, 9)), weights[name][3:9])
    assert np.array_equal(
        source.read_block(name, slice(None), slice(32, 64)), weights[name][:, 32:64]
    )
    assert np.array_equal(
        source.read_block(name, slice(3, 9), slice(2, 5)), weights[name][3:9, 2:5]
    )
    source.forget(name, slice(3, 9))
    assert np.array_equal(source.read(name), weights[name])


def test_the_identity_changes_with_the_checkpoint_and_only_then(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    before = HuggingFaceSource(tmp_path).identity
    assert HuggingFaceSource(tmp_path).identity == before
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))
    touched = HuggingFaceSource(tmp_path).identity
    write_json(tmp_path / "config.json", hub_config(rms_norm_eps=1e-5))
    assert len({before, touched, HuggingFaceSource(tmp_path).identity}) == 3


def test_an_output_head_may_repeat_the_embedding_and_nothing_else(
    tmp_path: Path, weights: Weights
) -> None:
    embedding = weights["embed_tokens.weight"]
    write_checkpoint(tmp_path, state=weights, more={"lm_head.weight": stored(embedding, "F32")})
    assert "lm_head.weight" not in dict(HuggingFaceSource(tmp_path).stored_names())
    other = embedding.copy()
    other[-1, -1] += 1
    write_checkpoint(tmp_path, state=weights, more={"lm_head.weight": stored(other, "F32")})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight: differs from embed_tokens"):
        HuggingFaceSource(tmp_path)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("layers.2.mlp.up_proj.weight", (5, 17)),
        ("embed_tokens_per_layer.weight", (500, 100)),
        ("norm.weight", (9,)),
    ],
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.3e38, -2e37])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_weight_that_is_no_number_is_named_by_row_and_column(
    tmp_path: Path, weights: Weights, name: str, place: tuple[int, ...], bad: float, dtype: str
) -> None:
    values = weights[name].copy()
    kind, kept = stored(values, dtype)
    kept[place] = np.float32(bad).view(np.uint32) >> 16 if dtype == "BF16" else bad
    write_checkpoint(tmp_path, state={n: w for n, w in weights.items() if n != name},
                     dtype=dtype, more={"model." + name: (kind, kept)})  # fmt: skip
    source = HuggingFaceSource(tmp_path)
    wanted = f"model.{name}: row {place[0]}" + "".join(f", column {index}" for index in place[1:])
    with pytest.raises(CheckpointError, match=f"{wanted} is not (finite|a weight)"):
        source.read(name, slice(place[0], place[0] + 1))
    if len(place) == 2:
        with pytest.raises(CheckpointError, match=wanted):
            source.read_block(name, slice(None), slice(place[1], place[1] + 1))


Break = Callable[[Path, Weights], Any]


def _without(directory: Path, weights: Weights) -> None:
    write_checkpoint(
        directory, state={n: w for n, w in weights.items() if n != "layers.4.mlp.up_proj.weight"}
    )


def _misshapen(directory: Path, weights: Weights) -> None:
    write_checkpoint(directory, state={**weights, "norm.weight": np.ones(65, np.float32)})


def _transposed(directory: Path, weights: Weights) -> None:
    name = "layers.0.mlp.gate_proj.weight"
    write_checkpoint(directory, state={**weights, name: np.ascontiguousarray(weights[name].T)})


def _integers(directory: Path, weights: Weights) -> None:
    rest = {name: values for name, values in weights.items() if name != "norm.weight"}
    write_checkpoint(
        directory, state=rest, more={"model.norm.weight": ("I32", np.ones(64, np.int32))}
    )


def _unknown(directory: Path, weights: Weights) -> None:
    write_checkpoint(directory, state={**weights, "layers.0.mlp.bias": np.ones(64, np.float32)})


def _twice(directory: Path, weights: Weights) -> None:
    write_checkpoint(directory, state=weights, shards=2)
    write_tensors(
        directory / "extra.safetensors",
        {"model.norm.weight": stored(weights["norm.weight"], "F32")},
    )
    where = {"model.norm.weight": "model-00001-of-00002.safetensors", "x": "extra.safetensors",
             "y": "model-00002-of-00002.safetensors"}  # fmt: skip
    write_json(directory / "model.safetensors.index.json", {"weight_map": where})


def _index(where: dict[str, Any]) -> Break:
    def broken(directory: Path, weights: Weights) -> None:
        write_checkpoint(directory, state=weights)
        write_json(directory / "model.safetensors.index.json", {"weight_map": where})

    return broken


def _raw_index(text: str) -> Break:
    def broken(directory: Path, weights: Weights) -> None:
        write_checkpoint(directory, state=weights)
        (directory / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    return broken


def _no_language_model(directory: Path, weights: Weights) -> None:
    write_checkpoint(directory, state=weights, prefix="other.")


def _pickles(directory: Path, _: Weights) -> None:
    directory.mkdir(exist_ok=True)
    write_json(directory / "config.json", hub_config())
    (directory / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")


def _half_written(directory: Path, weights: Weights) -> None:
    write_checkpoint(directory, state=weights)
    (directory / "matryo.unfinished").touch()


def _truncated(directory: Path, weights: Weights) -> None:
    write_checkpoint(directory, state=weights)
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


_NOT_HERE = "a .safetensors file in the same directory"
BROKEN: dict[str, tuple[Break, str]] = {
    "a tensor is missing": (_without, r"model\.layers\.4\.mlp\.up_proj\.weight: tensor is missing"),
    "a longer tensor": (_misshapen, r"norm\.weight: wrong shape \(expected .64,., got .65,.\)"),
    "a tensor is transposed": (_transposed, r"layers\.0\.mlp\.gate_proj\.weight: wrong shape"),
    "a tensor of integers": (_integers, r"norm\.weight: wrong dtype \(expected .*, got I32"),
    "a tensor nobody knows": (_unknown, r"model\.layers\.0\.mlp\.bias: unknown tensor"),
    "a tensor in two shards": (_twice, r"model\.norm\.weight: also in"),
    "no language model": (_no_language_model, "no language model"),
    "pickles": (_pickles, "pickled weights can run code and are never read"),
    "unfinished": (_half_written, "is unfinished"),
    "truncated": (_truncated, "does not end where its tensors end"),
    "index outside": (_index({"x": "../model.safetensors"}), _NOT_HERE),
    "index absolute": (_index({"x": "/etc/model.safetensors"}), _NOT_HERE),
    "index backslash": (_index({"x": "..\\model.safetensors"}), _NOT_HERE),
    "index to a pickle": (_index({"x": "model.bin"}), _NOT_HERE),
    "index of numbers": (_index({"x": 1}), _NOT_HERE),
    "index to nothing": (_index({"x": "none.safetensors"}), "none.safetensors: cannot open"),
    "index of no tensor": (_index({"x": "model.safetensors"}), "x: the index names a tensor"),
    "empty index": (_index({}), "weight_map must be an object"),
    "index is a list": (_raw_index("[]"), "not a shard index|weight_map must be"),
    "index is deep": (_raw_index("[" * 200_000), "not a shard index"),
    "index is no JSON": (_raw_index("{"), "not a shard index"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_checkpoint_is_refused_by_name(
    tmp_path: Path, weights: Weights, case: str
) -> None:
    break_, message = BROKEN[case]
    break_(tmp_path, weights)
    with pytest.raises(CheckpointError, match=message):
        HuggingFaceSource(tmp_path)


def test_a_checkpoint_may_be_links_to_files_elsewhere(tmp_path: Path, weights: Weights) -> None:
    """The hub's own cache is laid out so."""
    write_checkpoint(tmp_path / "blobs", state=weights)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in (tmp_path / "blobs").iterdir():
        (snapshot / path.name).symlink_to(path)
    assert same(HuggingFaceSource(snapshot), weights)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 200_000,
        '{"model_type": "llama"}',
        "\udcff",
        '{"model_type": 1e999}',
    ],
)
def test_a_config_that_is_none_is_a_config_error(
    tmp_path: Path, weights: Weights, text: str
) -> None:
    write_checkpoint(tmp_path, state=weights)
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"config\.json|model_type"):
        HuggingFaceSource(tmp_path)


def test_no_directory_no_config_and_a_config_beyond_reason(
    tmp_path: Path, weights: Weights
) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        HuggingFaceSource(tmp_path / "none")
    write_checkpoint(tmp_path / "big", state=weights)
    with (tmp_path / "big" / "config.json").open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(ConfigError, match="larger than"):
        HuggingFaceSource(tmp_path / "big")
    shutil.rmtree(tmp_path / "big")
