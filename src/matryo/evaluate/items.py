"""Rows made ready for a model: token ids instead of texts.

In: rows, a tokenizer, the context. Out: items. A `ScoreItem` is a beginning and continuations of it
whose probability is wanted: the choices of a question, or the next piece of a text. An `AnswerItem`
is a prompt to answer, a `ReferenceItem` a prompt and the answer that is right.

A text is cut into windows: each predicts `stride` further tokens with at least
`context - stride` tokens before them, so that every token of the text counts exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matryo.errors import InputError
from matryo.evaluate.rows import AnswerRow, ChoiceRow, Row, TextRow, digest_of
from matryo.inputs.tokenizer import Tokenizer
from matryo.session.prompt import common_prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreItem:
    """The continuations of one beginning.

    key: digest of what is asked · prefix: at least one id · continuations: at least one id each
    num_bytes: of each continuation's text · gold: the right one; None for a text
    """

    key: str
    row: TextRow | ChoiceRow
    prefix: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]
    num_bytes: tuple[int, ...]
    gold: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerItem:
    """A prompt to be answered in at most `max_tokens` tokens."""

    key: str
    row: AnswerRow
    max_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceItem:
    """A prompt whose right answer is not generated but predicted, token by token."""

    key: str
    row: AnswerRow
    ids: tuple[int, ...]
    num_bytes: int


Item = ScoreItem | AnswerItem | ReferenceItem


def prepare(
    rows: Sequence[Row],
    tokenizer: Tokenizer,
    *,
    context: int,
    stride: int,
    max_tokens: int,
    likelihood: bool = False,
) -> list[Item]:
    """Items of all rows. likelihood: references are predicted instead of answers generated.

    Raises InputError for a stride that does not fit, or if no token begins a text.
    """
    if not 1 <= stride < context:
        raise InputError(f"stride: expected 1 to {context - 1}, got {stride}")
    items: list[Item] = []
    for row in rows:
        if isinstance(row, TextRow):
            items += windows(row, tokenizer, context, stride)
        elif isinstance(row, ChoiceRow):
            items.append(question(row, tokenizer))
        elif likelihood:
            text = row.references[0]
            ids = tuple(tokenizer.encode(text))
            key = digest_of(row.digest, "likelihood")
            size = len(text.encode())
            items.append(ReferenceItem(key=key, row=row, ids=ids, num_bytes=size))
        else:
            longest = row.max_tokens or max_tokens
            key = digest_of(row.digest, longest)
            items.append(AnswerItem(key=key, row=row, max_tokens=longest))
    return items


def question(row: ChoiceRow, tokenizer: Tokenizer) -> ScoreItem:
    """A context and its choices; a token that stands across the border belongs to the choice."""
    alone = tokenizer.encode(row.context, bos=True)
    whole = [tokenizer.encode(row.context + choice, bos=True) for choice in row.choices]
    shared = min(common_prefix(alone, ids) for ids in whole)
    # Of every choice at least its last token is predicted.
    shared = min(shared, *(len(ids) - 1 for ids in whole))
    return ScoreItem(
        key=row.digest,
        row=row,
        prefix=tuple(alone[:shared]),
        continuations=tuple(tuple(ids[shared:]) for ids in whole),
        num_bytes=tuple(len(choice.encode()) for choice in row.choices),
        gold=row.gold,
    )


def windows(row: TextRow, tokenizer: Tokenizer, context: int, stride: int) -> Iterator[ScoreItem]:
    """The windows of a text, in order; their bytes add up to those of the text."""
    begin, *ids = tokenizer.encode(row.text, bos=True)
    sizes = [len(tokenizer.bytes_of(token)) for token in ids]
    # Tokens that stand for no bytes of their own (unknown characters) are settled at the end.
    left = len(row.text.encode()) - sum(sizes)
    start, end = 0, min(context - 1, len(ids))
    while True:
        last = end == len(ids)
        first = max(0, end - (context - 1))
        yield ScoreItem(
            key=digest_of(row.digest, context, stride, start),
            row=row,
            prefix=(begin, *ids[first:start]),
            continuations=(tuple(ids[start:end]),),
            num_bytes=(sum(sizes[start:end]) + (left if last else 0),),
        )
        if last:
            return
        start, end = end, min(end + stride, len(ids))
