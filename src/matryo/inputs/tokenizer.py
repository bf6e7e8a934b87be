"""Token ids from text and text from token ids, through the checkpoint's own tokenizer.json.

In: a tokenizer.json (untrusted) and text. Out: lists of ids; text. The file is data, never code.
Ids become text through `token_bytes`, so that a stream of tokens and the whole list give the same
text (`inputs/detokenize.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matryo.errors import CheckpointError, InputError
from matryo.inputs.detokenize import Detokenizer
from matryo.inputs.freed_memory import return_freed_memory
from matryo.inputs.token_bytes import token_bytes

if TYPE_CHECKING:
    import tokenizers

# Gemma's own file has 33 MB for 262,144 tokens; four times as much is no tokenizer of ours.
MAX_FILE_BYTES = 128 << 20
MAX_TOKENS = 1 << 20
MANY_BYTES = 1 << 20  # reading more than this leaves memory behind that is worth returning


class Tokenizer:
    """Ids from text and back.

    >>> import matryo
    >>> tokenizer = matryo.load().tokenizer
    >>> tokenizer.decode(tokenizer.encode("Grüße, 🌍"))
    'Grüße, 🌍'
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, bos_id: int | None) -> None:
        self._backend = backend
        self.bos_id = bos_id
        to_bytes, self.strips_first_space = token_bytes(_decoder(backend))
        self._to_bytes = to_bytes
        added = backend.get_added_tokens_decoder()
        self._special = frozenset(token for token, known in added.items() if known.special)
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def from_file(cls, path: Path, *, bos_id: int | None = None) -> Tokenizer:
        """Read a tokenizer.json; `bos_id` is the id that begins a text, which config.json knows.

        Raises CheckpointError if the file is too large, is not a tokenizer, or decodes in a way
        that is not supported.
        """
        try:
            size = path.stat().st_size
            if size > MAX_FILE_BYTES:
                raise CheckpointError(
                    f"{path}: expected at most {MAX_FILE_BYTES} bytes, got {size}"
                )
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: cannot be read as a tokenizer: {error}") from error
        tokenizer = cls.from_text(text, name=str(path), bos_id=bos_id)
        del text
        if size > MANY_BYTES:
            return_freed_memory()
        return tokenizer

    @classmethod
    def from_text(
        cls, text: str, *, name: str = "tokenizer.json", bos_id: int | None = None
    ) -> Tokenizer:
        """Build a tokenizer from the text of a tokenizer.json; `name` stands in messages. Raises as
        `from_file`.
        """
        import tokenizers

        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except BaseException as error:
            # The Rust library reports bad files as plain Exception and, in some versions, as a
            # panic, which is a BaseException; anything else that is not an Exception (an interrupt)
            # is not about the file.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise CheckpointError(f"{name}: not a tokenizer that can be used: {error}") from error
        size = backend.get_vocab_size(with_added_tokens=True)
        if size > MAX_TOKENS:
            raise CheckpointError(f"{name}: expected at most {MAX_TOKENS} tokens, got {size}")
        backend.no_truncation()
        backend.no_padding()
        return cls(backend, bos_id=bos_id)

    def __len__(self) -> int:
        """Number of tokens, added ones included."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        """Ids of `text`; special tokens written in it (`<bos>`) become their ids, none is added
        without `bos`.

        Raises InputError if the text is not valid Unicode, or if `bos` is wanted and the checkpoint
        has no such id.
        """
        if bos and self.bos_id is None:
            raise InputError("this checkpoint has no token that begins a text: encode without bos")
        try:
            ids = list(self._backend.encode(text, add_special_tokens=False).ids)
        except Exception as error:
            raise InputError(f"the text cannot be tokenised: {error}") from error
        return [self.bos_id, *ids] if bos and self.bos_id is not None else ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; special tokens give none. Raises InputError for an id that is not a
        token's.
        """
        detokenizer = Detokenizer(self)
        pieces = [detokenizer.add(token) for token in ids]
        return "".join(pieces) + detokenizer.finish()

    def bytes_of(self, token: int) -> bytes:
        """UTF-8 bytes, maybe part of a character, that a token adds to a text; none for special
        tokens and unused ids.

        Raises InputError if `token` is negative.
        """
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._find_bytes(token)
        return known

    def id_of(self, token: str) -> int | None:
        """The id of a token by its exact spelling, if there is one."""
        found: int | None = self._backend.token_to_id(token)
        return found

    def spelling_of(self, token: int) -> str | None:
        """How a token is written in a text, if there is such a token."""
        found: str | None = self._backend.id_to_token(token)
        return found

    def _find_bytes(self, token: int) -> bytes:
        if token < 0:
            raise InputError(f"token ids are not negative, got {token}")
        spelling = self._backend.id_to_token(token)
        # Models have more ids than tokenizers have tokens: padding rows and the multimodal range
        # have no text.
        if spelling is None or token in self._special:
            return b""
        return self._to_bytes(spelling)


def _decoder(backend: tokenizers.Tokenizer) -> dict[str, Any] | None:
    """The `decoder` object of the file, asked of the library: parsing 30 MB a second time only for
    these few bytes would take half as long as the first.
    """
    if backend.decoder is None:
        return None
    decoder: dict[str, Any] = json.loads(backend.decoder.__getstate__())
    return decoder
