"""Small tokenizer.json documents of the three kinds that decode differently, and Gemma's chat
template.
"""

from __future__ import annotations

import json
from typing import Any

BYTES = {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
PIECES = ["▁", "▁the", "a", "b", "é", "\n\n", "🌍", "▁▁", "th", "e", "<b>"]


def gemma_like() -> dict[str, Any]:
    """A tokenizer.json with Gemma's parts: metaspace by replacement, byte fallback, special
    tokens.
    """
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, **BYTES}
    vocabulary.update({piece: 300 + index for index, piece in enumerate(PIECES)})
    added = [
        {
            "id": index,
            "content": content,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for index, content in enumerate(("<pad>", "<eos>", "<bos>"))
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def byte_level() -> dict[str, Any]:
    """A tokenizer.json with the byte-level alphabet."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(alphabet)}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<bos>"])
    document: dict[str, Any] = json.loads(backend.to_str())
    return document


def llama_like() -> dict[str, Any]:
    """As Gemma's, but with a prefix space that the decoder takes off again."""
    document = gemma_like()
    steps = document["decoder"]["decoders"]
    steps.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return document


CHAT_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set first = "" -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate") }}
    {%- endif -%}
    {{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n'
       + (first if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- else -%}
        {%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}
"""
