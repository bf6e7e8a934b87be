"""Rows as token ids: windows that count every token once, choices behind what they share."""

from __future__ import annotations

import numpy as np
import pytest

from matryo.errors import InputError
from matryo.evaluate.items import ScoreItem, prepare, question, windows
from matryo.evaluate.rows import choice_row, text_row
from matryo.loading import Model


@pytest.mark.parametrize(("context", "stride"), [(8, 3), (8, 7), (16, 8), (500, 250)])
def test_every_token_of_a_text_is_predicted_once_with_enough_before_it(
    model: Model, rng: np.random.Generator, context: int, stride: int
) -> None:
    text = "".join(rng.choice(list("ab the🌍é\n\x07"), 90))
    found = list(windows(text_row(text, "p", "w"), model.tokenizer, context, stride))
    begin, *ids = model.tokenizer.encode(text, bos=True)
    predicted = [token for one in found for token in one.continuations[0]]
    assert predicted == ids
    assert sum(one.num_bytes[0] for one in found) == len(text.encode())
    start = 0
    for one in found:
        count = len(one.continuations[0])
        before = list(one.prefix)
        assert before[0] == begin and before[1:] == ids[max(0, start - len(before) + 1) : start]
        assert len(before) + count <= context
        if start:
            assert len(before) + count == context or len(one.prefix) >= context - stride
        start += count
    assert len({one.key for one in found}) == len(found)


def test_choices_share_their_context_and_cross_no_token(model: Model) -> None:
    item = question(choice_row("a b", (" the", " a e"), 1, "p", "w"), model.tokenizer)
    for ids, text in zip(item.continuations, ("a b the", "a b a e"), strict=True):
        assert [*item.prefix, *ids] == model.tokenizer.encode(text, bos=True)
    assert item.num_bytes == (4, 4) and item.gold == 1


def test_of_every_choice_something_is_predicted(model: Model) -> None:
    """One choice that the tokenizer swallows into the context: `a` and `ab` begin alike."""
    row = choice_row("", ("a", "ab"), 0, "p", "w")
    item = question(row, model.tokenizer)
    assert item.prefix and all(item.continuations)


def test_windows_need_room(model: Model) -> None:
    for stride in (0, 8):
        with pytest.raises(InputError, match="stride: expected 1 to 7"):
            prepare([text_row("a", "p", "w")], model.tokenizer, context=8, stride=stride,
                    max_tokens=1)  # fmt: skip


def test_items_are_known_by_what_they_ask(model: Model) -> None:
    rows = [text_row("a b the", "p", "here"), text_row("a b the", "q", "there")]
    items = prepare(rows, model.tokenizer, context=8, stride=4, max_tokens=1)
    assert all(isinstance(item, ScoreItem) for item in items)
    assert items[0].key == items[1].key
