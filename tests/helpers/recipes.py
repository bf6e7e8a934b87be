"""A recipe small enough to train in a test, and its texts and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import matryo

TOKENIZER = Path(matryo.__file__).parent / "data" / "nano"
WORDS = "the house was old and a garden grew over its walls while rain fell on quiet fields".split()
VOCABULARY = 8196  # ids of the tokenizer, those that mark pictures and sounds included
CONFIG: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": 8192,
    "hidden_size": 32,
    "hidden_size_per_layer_input": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_kv_shared_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "sliding_window": 8,
    "max_position_embeddings": 64,
    "laurel_rank": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
    "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0, 0.0, 0.0],
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
PLANS = {"small": {"layers": [0, 1, 4, 5], "ffn_width": 32}, "large": {"ffn_width": 64}}


def sentences(seed: int, count: int) -> str:
    rng = np.random.default_rng(seed)
    return ". ".join(" ".join(rng.choice(WORDS, 9)) for _ in range(count)) + "."


def write_recipe(directory: Path, **changes: Any) -> Path:
    """`directory/recipe.yaml` beside its texts; JSON, which is YAML too. `a__b` changes a.b."""
    rows = [json.dumps({"text": sentences(seed, 6)}) for seed in range(40)]
    (directory / "texts.jsonl").write_text("\n".join(rows) + "\n")
    (directory / "held-out.txt").write_text(sentences(1000, 12))
    recipe: dict[str, Any] = {
        "output": "out",
        "seed": 3,
        "rows": 2,
        "threads": 1,
        "model": {"config": CONFIG, "plans": PLANS},
        "data": {"files": ["texts.jsonl"], "sequence": 16},
        "objective": {"mode": "sample", "mixes": 0.25, "divergence": 0.5},
        "optimizer": {"rate": 0.003},
        "schedule": {"steps": 6, "warmup": 2},
        "save_every": 3,
    }
    for key, value in changes.items():
        place = recipe
        *parents, last = key.split("__")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    path = directory / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path
