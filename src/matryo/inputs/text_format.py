"""How a checkpoint reads and writes text: its tokenizer and chat template, opened when they are
first needed.

In: the directory with tokenizer.json, chat_template.jinja (or tokenizer_config.json) and the ids
from config.json.
Out: a `Tokenizer` and a `ChatTemplate`, or a clear error where a checkpoint has none. Ids alone
need neither.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from matryo.errors import CheckpointError, InputError
from matryo.inputs.chat import ChatTemplate
from matryo.inputs.tokenizer import Tokenizer

MAX_JSON_BYTES = 16 << 20
_TOKEN_VARIABLES = ("bos_token", "eos_token", "unk_token", "pad_token")
# Gemma's spellings, used where tokenizer_config.json is missing.
_DEFAULT_VARIABLES = {"bos_token": "<bos>", "eos_token": "<eos>"}


class TextFormat:
    """The text side of one checkpoint directory."""

    def __init__(self, directory: Path, *, bos_id: int | None) -> None:
        self._directory = directory
        self._bos_id = bos_id

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer file."""
        return (self._directory / "tokenizer.json").exists()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises InputError if the checkpoint has none, CheckpointError if it is
        broken.
        """
        path = self._directory / "tokenizer.json"
        if not path.exists():
            raise InputError(
                f"{self._directory} has no tokenizer.json: give token ids instead of text, or add "
                "the file"
            )
        return Tokenizer.from_file(path, bos_id=self._bos_id)

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The chat template. Raises InputError if the checkpoint has none, CheckpointError if it is
        broken.
        """
        settings = read_json_object(self._directory / "tokenizer_config.json")
        variables = _variables(settings)
        path = self._directory / "chat_template.jinja"
        if path.exists():
            return ChatTemplate.from_file(path, variables=variables)
        source = settings.get("chat_template")
        if isinstance(source, str):
            return ChatTemplate(
                source, variables=variables, name=f"{self._directory}/tokenizer_config.json"
            )
        raise InputError(
            f"{self._directory} has no chat template: give a text or token ids instead of "
            "messages, "
            "or add chat_template.jinja"
        )


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a small JSON file; empty if there is no such file. Raises CheckpointError for
    anything else.
    """
    if not path.exists():
        return {}
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path}: expected at most {MAX_JSON_BYTES} bytes, got {size}")
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: expected JSON: {error}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document


def _variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by name; they are strings, or objects with the string in `content`."""
    variables = dict(_DEFAULT_VARIABLES)
    for name in _TOKEN_VARIABLES:
        value = settings.get(name)
        value = value.get("content") if isinstance(value, Mapping) else value
        if isinstance(value, str):
            variables[name] = value
    return variables
