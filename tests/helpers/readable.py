"""A tiny random checkpoint that can be talked to: tokenizer, chat template and named plans."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from helpers.random_weights import TEXT_VOCAB
from helpers.text_files import CHAT_TEMPLATE, gemma_like

TURN_MARKS = ("<start_of_turn>", "<end_of_turn>")
SMALL_LAYERS = [
    *range(5),
    *range(10, 15),
]  # of the 15 of helpers/tiny.py: without the first five readers
PLANS = {
    "small": {"layers": SMALL_LAYERS, "ffn_width": 96},
    "medium": {"ffn_width": 128},
    "large": {},
}


def make_readable(checkpoint: Path, target: Path, *, eos: tuple[int, ...] = (1,)) -> Path:
    """Copy a checkpoint of helpers/tiny.py and add what text needs: every text id has a text."""
    shutil.copytree(checkpoint, target)
    _write(target / "tokenizer.json", _tokenizer())
    _write(target / "plans.json", PLANS)
    _write(
        target / "generation_config.json",
        {"eos_token_id": list(eos), "temperature": 1.0, "top_k": 64},
    )
    (target / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return target


def _tokenizer() -> dict[str, Any]:
    document = gemma_like()
    vocabulary = document["model"]["vocab"]
    for index, mark in enumerate(TURN_MARKS):
        document["added_tokens"].append(
            {**document["added_tokens"][0], "id": TEXT_VOCAB - 2 + index, "content": mark}
        )
        vocabulary[mark] = TEXT_VOCAB - 2 + index
    for index in sorted(set(range(TEXT_VOCAB)) - set(vocabulary.values())):
        vocabulary[f"▁w{index}"] = index
    return document


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
