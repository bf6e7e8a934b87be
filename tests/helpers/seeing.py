"""A tiny random checkpoint that can be talked to about pictures and sound.

The soft tokens are fewer than Gemma 3n's: 16 a picture, 12 a clip, which are 1.92 s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.readable import make_readable
from helpers.text_files import CHAT_TEMPLATE
from helpers.tiny_multimodal import tiny_multimodal, write_multimodal
from helpers.towers import IDS

CONTEXT = 1024
CLIP_SECONDS = 1.92
SPELLED = {
    "boi_token_id": "<start_of_image>",
    "image_token_id": "<image_soft_token>",
    "eoi_token_id": "<end_of_image>",
    "boa_token_id": "<start_of_audio>",
    "audio_token_id": "<audio_soft_token>",
    "eoa_token_id": "<end_of_audio>",
}
_TEXT_ITEM = "{{ item['text'] | trim }}"
_ANY_ITEM = (
    "{%- if item['type'] == 'text' -%}{{ item['text'] | trim }}"
    "{%- else -%}{{ '<' + item['type'] + '_soft_token>' }}{%- endif -%}"
)


def make_seeing(directory: Path) -> Path:
    """Write the checkpoint with tokenizer, chat template and plans."""
    bare = write_multimodal(tiny_multimodal(), directory / "bare")
    target = make_readable(bare, directory / "seeing")
    _change(target / "config.json", _with_context)
    _change(target / "tokenizer.json", _with_media_tokens)
    (target / "preprocessor_config.json").write_text('{"size": {"height": 64, "width": 64}}')
    template = CHAT_TEMPLATE.replace(_TEXT_ITEM, _ANY_ITEM)
    assert template != CHAT_TEMPLATE
    (target / "chat_template.jinja").write_text(template, encoding="utf-8")
    return target


def _with_context(document: dict[str, Any]) -> None:
    document["text_config"]["max_position_embeddings"] = CONTEXT


def _with_media_tokens(document: dict[str, Any]) -> None:
    vocabulary, added = document["model"]["vocab"], document["added_tokens"]
    for name, spelling in SPELLED.items():
        for word in [word for word, index in vocabulary.items() if index == IDS[name]]:
            del vocabulary[word]
        vocabulary[spelling] = IDS[name]
        added.append({**added[0], "id": IDS[name], "content": spelling})


def _change(path: Path, change: Any) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
