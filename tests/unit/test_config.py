"""Config files: what is accepted, what is derived, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from matryo.config import FULL, SLIDING, TextConfig
from matryo.errors import ConfigError

BASE: dict[str, Any] = {"model_type": "gemma3n_text"}


def parse(**values: Any) -> TextConfig:
    return TextConfig.from_json({**BASE, **values})


def test_defaults_are_e4b() -> None:
    config = parse()
    assert (config.num_layers, config.hidden_size, config.num_owners) == (35, 2048, 20)
    assert config.ffn_width == (16_384,) * 35
    assert config.producers == {18, 19} and config.last_owner == 19
    assert config.kv_source[:20] == tuple(range(20))
    assert config.kv_source[20:25] == (18, 18, 18, 18, 19)
    assert config.window[:5] == (512, 512, 512, 512, 0)
    assert config.rope_theta[3:5] == (10_000.0, 1_000_000.0)
    assert (
        config.sparsity_z[9] == pytest.approx(1.6448536, abs=1e-6) and config.sparsity_z[10] == 0.0
    )
    assert config.eos_ids == () and config.context_length == 32_768


def test_both_spellings_of_rope_agree() -> None:
    old = parse(rope_theta=5e5, rope_local_base_freq=2e4, rope_scaling=None)
    new = parse(
        rope_parameters={
            FULL: {"rope_theta": 5e5, "rope_type": "default"},
            SLIDING: {"rope_theta": 2e4, "rope_type": "default"},
        }
    )
    assert old == new
    assert old.rope_theta[4] == 5e5 and old.rope_theta[0] == 2e4


def test_multimodal_configs_hold_the_text_config() -> None:
    nested = {
        "model_type": "gemma3n",
        "torch_dtype": "bfloat16",
        "text_config": {"num_hidden_layers": 30},
    }
    config = TextConfig.from_json({**nested, "vision_config": {"anything": 1}})
    assert config.num_layers == 30
    assert config.embedding_scale == 45.25  # sqrt(2048) in bf16
    assert parse().embedding_scale == pytest.approx(math.sqrt(2048))


def test_per_layer_values() -> None:
    config = parse(
        num_hidden_layers=4,
        num_kv_shared_layers=0,
        intermediate_size=[32, 64, 96, 128],
        activation_sparsity_pattern=[0.5, None, 0, 0.9],
        layer_types=[FULL, SLIDING, FULL, FULL],
    )
    assert config.ffn_width == (32, 64, 96, 128)
    assert config.sparsity == (0.5, 0.0, 0.0, 0.9)
    assert 0.0 < config.sparsity_z[0] < 1e-30  # cut at the mean, yet not dense
    assert config.window == (0, 512, 0, 0)
    assert config.producers == {3}


def test_one_sparsity_for_all_layers() -> None:
    assert parse(activation_sparsity_pattern=0.9).sparsity == (0.9,) * 35
    assert parse(num_hidden_layers=10, num_kv_shared_layers=0).sparsity == (0.0,) * 10


def test_stop_tokens() -> None:
    assert parse(eos_token_id=1).eos_ids == (1,)
    assert parse(eos_token_id=[1, 106]).eos_ids == (1, 106)


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 0},
        {"num_hidden_layers": -1},
        {"num_hidden_layers": 10**30},
        {"num_hidden_layers": True},
        {"num_hidden_layers": "35"},
        {"num_hidden_layers": 35.0},
        {"num_kv_shared_layers": 35},
        {"num_kv_shared_layers": 31},  # leaves four sliding owners and full readers
        {"hidden_size": 0},
        {"head_dim": 255},
        {"head_dim": 1 << 19, "num_attention_heads": 8},
        {"num_attention_heads": 7},
        {"num_key_value_heads": 16},
        {"intermediate_size": 100},
        {"intermediate_size": [16_384] * 34},
        {"intermediate_size": [True] * 35},
        {"intermediate_size": float("nan")},
        {"activation_sparsity_pattern": [0.95] * 10},
        {"activation_sparsity_pattern": 1.0},
        {"activation_sparsity_pattern": 0.2},
        {"activation_sparsity_pattern": float("nan")},
        {"activation_sparsity_pattern": "most"},
        {"layer_types": [SLIDING] * 3},
        {"layer_types": ["linear"] * 35},
        {"layer_types": SLIDING},
        {"rms_norm_eps": float("nan")},
        {"rms_norm_eps": 0},
        {"rope_theta": float("inf")},
        {"rope_theta": -1.0},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
        {"rope_scaling": "linear"},
        {"rope_parameters": {FULL: {"rope_type": "linear"}}},
        {"rope_parameters": {FULL: {"factor": 2.0}}},
        {"rope_parameters": {"other": {}}},
        {"rope_parameters": {FULL: 3}},
        {"rope_parameters": []},
        {"sliding_window": 0},
        {"final_logit_softcapping": -1.0},
        {"vocab_size": 0},
        {"eos_token_id": 262_400},
        {"eos_token_id": ["1"]},
        {"bos_token_id": -1},
        {"hidden_activation": "silu"},
        {"attention_bias": True},
        {"tie_word_embeddings": False},
        {"altup_num_inputs": 2},
        {"altup_num_inputs": 4.0},
        {"altup_active_idx": 1},
        {"altup_correct_scale": False},
        {"dtype": "int8"},
        {"torch_dtype": 16},
        {"attention_chunk_size": 64},
    ],
)
def test_hostile_and_unsupported_values_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(**values)
    assert len(str(caught.value)) < 400


def test_messages_name_the_key() -> None:
    with pytest.raises(
        ConfigError, match=r"intermediate_size\[3\] is 100; allowed: a multiple of 32"
    ):
        parse(intermediate_size=[16_384] * 3 + [100] + [16_384] * 31)
    with pytest.raises(ConfigError, match="unknown key 'attention_chunk_size'"):
        parse(attention_chunk_size=64)


@pytest.mark.parametrize(
    "document", [None, [], "x", {}, {"model_type": "llama"}, {"model_type": "gemma3n"}]
)
def test_other_documents_are_refused(document: object) -> None:
    with pytest.raises(ConfigError):
        TextConfig.from_json(document)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(ConfigError, match="cannot read"):
        TextConfig.from_file(path)
    for text in (
        "{",
        "[" * 100_000,
        '{"model_type": "gemma3n_text", "hidden_size": NaN}',
        "\ud800",
    ):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(ConfigError):
            TextConfig.from_file(path)
    path.write_text(json.dumps(BASE))
    assert TextConfig.from_file(path) == parse()
