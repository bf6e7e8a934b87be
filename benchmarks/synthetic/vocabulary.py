"""A tokenizer of Gemma's size: from somebody's GGUF file, or made up.

In: optionally a GGUF file with a SentencePiece vocabulary. Out: `Vocabulary` (pieces, scores,
types) for GGUF files and `write_tokenizer` for Hugging Face directories (tokenizer.json,
tokenizer_config.json, chat_template.jinja). Both layouts describe the same pieces, so that loading
costs every engine the same.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import gguf

NORMAL, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 3, 4, 5, 6
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
TURNS = {105: "<start_of_turn>", 106: "<end_of_turn>"}
NAMED = {
    255999: "<start_of_image>",
    256000: "<start_of_audio>",
    262144: "<end_of_image>",
    262145: "<image_soft_token>",
    262272: "<end_of_audio>",
    262273: "<audio_soft_token>",
}
BYTES_FROM = 217
WORD_MARK = "\u2581"

CHAT_TEMPLATE = """{{ bos_token }}
{%- for message in messages -%}
{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}
{{- message['content'] | trim }}{{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""


@dataclass(frozen=True)
class Vocabulary:
    """Pieces with SentencePiece scores (higher merges first) and GGUF token types."""

    tokens: list[str]
    scores: list[float]
    types: list[int]


def padded(vocabulary: Vocabulary, size: int) -> Vocabulary:
    """The same vocabulary with control tokens appended up to `size` ids and Gemma 3n's names where
    they belong.

    A vocabulary of an older Gemma has some of these names at other ids; pieces must stay unique.
    """
    tokens = list(vocabulary.tokens)
    tokens += [f"<multimodal_{i}>" for i in range(len(tokens), size)]
    wanted = {index: name for index, name in NAMED.items() if index < size}
    tokens = [f"<was_{name[1:]}" if name in wanted.values() else name for name in tokens]
    more = size - len(vocabulary.tokens)
    types = vocabulary.types + [CONTROL] * more
    for index, name in wanted.items():
        tokens[index], types[index] = name, CONTROL
    return Vocabulary(tokens, vocabulary.scores + [-1000.0] * more, types)


def from_gguf(path: Path, size: int) -> Vocabulary:
    """The SentencePiece vocabulary of a GGUF file, padded to `size`."""
    fields = gguf.GGUFReader(path).fields
    tokens, scores, types = (
        list(fields[f"tokenizer.ggml.{key}"].contents())
        for key in ("tokens", "scores", "token_type")
    )
    return padded(Vocabulary(tokens, scores, types), size)


def made_up(size: int) -> Vocabulary:
    """Special tokens, all bytes, then every string over a-z and the word mark, shortest first."""
    tokens = [*SPECIAL, *(f"<unused{i}>" for i in range(BYTES_FROM - len(SPECIAL)))]
    for index, name in TURNS.items():
        tokens[index] = name
    tokens += [f"<0x{byte:02X}>" for byte in range(256)]
    types = [CONTROL] * BYTES_FROM + [BYTE] * 256
    alphabet = WORD_MARK + "abcdefghijklmnopqrstuvwxyz"
    words = (
        "".join(word)
        for length in itertools.count(1)
        for word in itertools.product(alphabet, repeat=length)
    )
    pieces = list(itertools.islice(words, max(0, min(size, 262144) - len(tokens))))
    scores = [-1000.0] * len(tokens) + [-float(i) for i in range(len(pieces))]
    return padded(Vocabulary(tokens + pieces, scores, types + [NORMAL] * len(pieces)), size)


def merges(vocabulary: Vocabulary) -> list[list[str]]:
    """The byte-pair merges that a scored vocabulary implies: every way to build a piece, best score
    first.
    """
    ids = {
        t: i
        for i, (t, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind == NORMAL
    }
    found: list[tuple[float, int, int, str, str]] = []
    for piece, index in ids.items():
        for cut in range(1, len(piece)):
            left, right = ids.get(piece[:cut]), ids.get(piece[cut:])
            if left is not None and right is not None:
                found.append((-vocabulary.scores[index], left, right, piece[:cut], piece[cut:]))
    found.sort()
    return [[left, right] for _, _, _, left, right in found]


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, object]:
    """tokenizer.json: byte-fallback BPE over the pieces; a space is written as the word mark."""
    added = [
        {
            "id": i,
            "content": token,
            "special": kind == CONTROL,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    bos: dict[str, object] = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    first: dict[str, object] = {"Sequence": {"id": "A", "type_id": 0}}
    second: dict[str, object] = {"Sequence": {"id": "B", "type_id": 1}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": WORD_MARK},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first],
            "pair": [bos, first, bos, second],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": WORD_MARK}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(vocabulary.tokens)},
            "merges": merges(vocabulary),
        },
    }


def write_tokenizer(directory: Path, vocabulary: Vocabulary) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into a checkpoint
    directory.
    """
    tokenizer = json.dumps(tokenizer_json(vocabulary), ensure_ascii=False)
    (directory / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 32768,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
