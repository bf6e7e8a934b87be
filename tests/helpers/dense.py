"""Tiny random dense decoders of transformers, and directories that hold them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from helpers.recipes import TOKENIZER, VOCABULARY, sentences

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
# Bias in the FFN, a cap of the logits, a window: what families differ in.
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma3_text": {"sliding_window": 8, "final_logit_softcapping": 3.0},
    "llama": {"mlp_bias": True},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
}


def dense_model(family: str, seed: int = 0, **changes: Any) -> Any:
    """A random model in float32, its weights large enough that its answers differ."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family, **{**SHAPE, **FAMILIES.get(family, {}), **changes})
    model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(std=0.2 if "embed" in name or "lm_head" in name else 0.3)
            elif "bias" in name:
                weight.normal_(std=0.3)
    return model.eval()


def dense_directory(directory: Path, family: str, **changes: Any) -> Path:
    """The model in a directory, with the embedded model's tokenizer."""
    dense_model(family, **changes).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, directory / name)
    return directory


def write_texts(directory: Path, count: int = 60) -> Path:
    """A .txt file."""
    path = directory / "texts.txt"
    path.write_text("\n".join(sentences(seed, 4) for seed in range(count)))
    return path
