"""A dense decoder runs at the first units of its FFNs, and is the model that is cut out there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.dense import FAMILIES, dense_directory, dense_model
from matryo.errors import CheckpointError, ConfigError, InputError
from matryo.train.dense import (
    at_width,
    check_head,
    ffns,
    full_width,
    hidden_states,
    make_narrowable,
    open_dense,
    widths_of,
)

IDS = torch.tensor([[2, 300, 0, 41, 540, 7, 99, 512, 13, 5, 8, 1]])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_width_is_the_model_cut_out_there(family: str) -> None:
    model, plain = dense_model(family), dense_model(family)
    make_narrowable(model)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, plain(IDS).logits)
        with at_width(model, 64):
            got = model(IDS).logits
        assert torch.equal(model(IDS).logits, plain(IDS).logits)
    small = dense_model(family, intermediate_size=64)
    state = {}
    for name, value in plain.state_dict().items():
        part = name.split(".")[-2]
        if part in ("gate_proj", "up_proj"):
            value = value[:64]
        elif part == "down_proj" and value.ndim == 2:
            value = value[:, :64]
        state[name] = value
    small.load_state_dict(state)
    with torch.no_grad():
        wanted = small(IDS).logits
    assert torch.allclose(got, wanted, atol=1e-5)
    assert not torch.allclose(got, plain(IDS).logits, atol=0.05)


def test_widths_are_shares_of_the_full_one() -> None:
    model = dense_model("llama")
    make_narrowable(model)
    assert full_width(model) == 128
    assert widths_of(model, (25, 50, 60)) == {"w25": 32, "w50": 64, "w60": 96, "w100": 128}
    with pytest.raises(InputError, match="percentages from 1 to 100"):
        widths_of(model, (0,))
    with pytest.raises(InputError, match="60 % of 128 FFN units is 96, as another width is"):
        widths_of(model, (55, 60))


def test_what_cannot_be_narrowed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"layer 0 of phi3 .*gate_up_proj"):
        make_narrowable(dense_model("phi3"))
    with pytest.raises(ConfigError, match="layer 0 of gpt_neox has no gated FFN"):
        make_narrowable(dense_model("gpt_neox"))
    with pytest.raises(ConfigError, match=r"layer 0 of qwen3_moe .*plain matrices"):
        make_narrowable(dense_model("qwen3_moe", num_experts=4, num_experts_per_tok=2))
    with pytest.raises(CheckpointError, match=r"expected a Hugging Face directory .*or a .gguf"):
        open_dense(tmp_path)
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, but no more")
    with pytest.raises(CheckpointError, match="transformers cannot open it"):
        open_dense(tmp_path / "broken.gguf")


def test_an_ffn_that_computes_more_is_refused() -> None:
    model = dense_model("llama")
    kind: Any = type(model.model.layers[1].mlp)

    class Doubled(kind):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = 2 * super().forward(x)
            return result

    model.model.layers[1].mlp.__class__ = Doubled
    with pytest.raises(ConfigError, match="the FFN of layer 1 of llama computes more"):
        make_narrowable(model)


def test_gemma_3n_is_elastic_already(tiny_hf_model: Any) -> None:
    with pytest.raises(ConfigError, match="elastic already: train it with `matryo train`"):
        make_narrowable(tiny_hf_model)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_are_a_product_and_a_cap(family: str) -> None:
    check_head(dense_model(family))


def test_a_head_that_is_more_is_refused() -> None:
    with pytest.raises(ConfigError, match="cohere computes its logits from more"):
        check_head(dense_model("cohere", logit_scale=0.25))


def test_a_directory_opens_with_its_tokenizer(tmp_path: Path) -> None:
    model, tokenizer = open_dense(dense_directory(tmp_path, "gemma3_text"))
    assert len(ffns(model)) == 3 and not model.training
    assert hidden_states(model, torch.tensor([tokenizer("the house").input_ids])).shape[2] == 32
