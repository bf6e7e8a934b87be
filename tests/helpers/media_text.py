"""Tokenizer and chat template of the tiny multimodal model, as Gemma's are built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from helpers.text_files import gemma_like
from helpers.towers import IDS

SPECIAL = {
    "<pad>": 0, "<eos>": 1, "<bos>": 2, "<start_of_turn>": 490, "<end_of_turn>": 491,
    "<start_of_image>": IDS["boi_token_id"], "<start_of_audio>": IDS["boa_token_id"],
    "<end_of_image>": IDS["eoi_token_id"], "<image_soft_token>": IDS["image_token_id"],
    "<end_of_audio>": IDS["eoa_token_id"], "<audio_soft_token>": IDS["audio_token_id"],
}  # fmt: skip
NAMES = {
    "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>", "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>", "audio_token": "<audio_soft_token>",
}  # fmt: skip
IMAGE_SIDE = 64
TEMPLATE = """{{ bos_token }}
{%- for message in messages -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\n' }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<image_soft_token>' }}
            {%- elif item['type'] == 'audio' -%}{{ '<audio_soft_token>' }}
            {%- else -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}
"""


def tokenizer_json() -> dict[str, Any]:
    """Gemma's parts, line breaks that join into one token, and the tokens of pictures and sound."""
    document = gemma_like()
    vocabulary = document["model"]["vocab"]
    vocabulary |= {"\n": 320, "\n\n\n": 321, "\n\n\n\n": 322, **SPECIAL}
    document["model"]["merges"] = [["\n", "\n"], ["\n\n", "\n"], ["\n\n", "\n\n"]]
    plain = document["added_tokens"][0]
    document["added_tokens"] = [
        {**plain, "id": token, "content": spelling} for spelling, token in SPECIAL.items()
    ]
    return document


def write_text_files(directory: Path) -> None:
    """Tokenizer, template, and the size of pictures, beside the weights."""
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer_json()), encoding="utf-8")
    (directory / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    size = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    (directory / "preprocessor_config.json").write_text(json.dumps({"size": size}))
