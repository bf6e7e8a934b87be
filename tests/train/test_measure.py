"""Perplexity and multiple choice are what transformers' own logits say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.dense import FAMILIES, dense_directory, dense_model
from matryo.errors import CheckpointError, InputError
from matryo.evaluate.rows import ChoiceRow, choice_row
from matryo.train.dense import make_narrowable, open_dense
from matryo.train.measure import (
    answers,
    choice_scores,
    interval,
    perplexity,
    read_questions,
    row_losses,
)

ROWS = torch.randint(1, 4096, (3, 80), generator=torch.Generator().manual_seed(5))
PROMPT = "the house was old and"
CHOICES = (" a garden", " rain", " quiet fields fell")


def asked(gold: int) -> ChoiceRow:
    return choice_row(PROMPT, CHOICES, gold, "garden", "here")


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_those_of_transformers(family: str) -> None:
    model = dense_model(family)
    make_narrowable(model)
    with torch.no_grad():
        wanted = [model(row[None], labels=row[None]).loss.item() for row in ROWS]
    assert row_losses(model, ROWS) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_choice_is_scored_behind_its_prompt_alone(family: str, tmp_path: Path) -> None:
    model, tokenizer = open_dense(dense_directory(tmp_path, family))
    wanted = []
    for choice in CHOICES:
        prompt = tokenizer(PROMPT).input_ids
        end = tokenizer(choice, add_special_tokens=False).input_ids
        with torch.no_grad():
            found = torch.log_softmax(model(torch.tensor([prompt + end])).logits[0], -1)
        scores = [float(found[len(prompt) + n - 1, token]) for n, token in enumerate(end)]
        wanted.append(sum(scores) / len(choice))
    assert choice_scores(model, tokenizer, asked(1)) == pytest.approx(wanted, rel=1e-4)
    right = int(np.argmax(wanted))
    same = [asked(right), asked((right + 1) % 3)]
    assert answers(model, tokenizer, same) == [1.0, 0.0]


def test_intervals_are_around_the_mean() -> None:
    values = [float(v) for v in np.random.default_rng(0).normal(3.0, 1.0, 50)]
    found = interval(values)
    assert found.value == pytest.approx(np.mean(values))
    assert found.low is not None and found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(values) / 50**0.5, rel=0.2)
    assert perplexity(values).value == pytest.approx(np.exp(np.mean(values)))
    assert perplexity(values).low == pytest.approx(np.exp(found.low))


def test_questions_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"query": "a", "choices": ["b", "c"], "gold": 1}\n\n')
    (row,) = read_questions(path)
    assert (row.context, row.choices, row.gold) == ("a", (" b", " c"), 1)
    separated = '{"query": "a\u2028b\x85", "choices": ["b", "c"], "gold": 1}'
    path.write_text(f"{separated}\r\n{separated}\n", encoding="utf-8")
    assert [row.context for row in read_questions(path)] == ["a\u2028b\x85"] * 2
    for text, reason in (
        ("no JSON", "not JSON"),
        ('{"text": "a"}', "not a question with choices"),
        ('{"query": "a", "choices": ["b", "c"], "gold": 2}', "the answer: expected"),
    ):
        path.write_text(text + "\n")
        with pytest.raises(InputError, match=f"q.jsonl:1: {reason}"):
            read_questions(path)
    path.write_text("\n")
    with pytest.raises(InputError, match="holds no question"):
        read_questions(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_questions(tmp_path / "none.jsonl")
