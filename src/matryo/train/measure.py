"""How good a dense decoder is at a width: perplexity, and multiple choice by the likeliest answer.

In: a narrowable model, rows of token ids, questions. Out: values of each row or question, which can
be paired between models, and intervals. Answers are scored by their log likelihood behind the
prompt, divided by their length in characters; small models cannot answer with a letter.

R rows · T tokens of a row · V vocab
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from matryo.errors import CheckpointError, InputError
from matryo.evaluate.intervals import Bootstrap, Interval
from matryo.evaluate.rows import ChoiceRow, read_row
from matryo.train.dense import hidden_states
from matryo.train.head import capped, softcap_of

_POSITIONS = 64  # whose logits are held at a time: 64 MB at a vocabulary of 262,144


def interval(values: Sequence[float]) -> Interval:
    """Mean and where it lies with 95 %; the same resamples for the same number of values."""
    return Bootstrap(len(values), 0).interval(
        _column(values), lambda sums: sums[:, 0] / len(values)
    )


def perplexity(losses: Sequence[float]) -> Interval:
    """From nats a token of rows of equal length."""
    return Bootstrap(len(losses), 0).interval(
        _column(losses), lambda sums: np.exp(sums[:, 0] / len(losses))
    )


def _column(values: Sequence[float]) -> npt.NDArray[np.float64]:
    return np.array(values, np.float64)[:, None]


@torch.no_grad()
def row_losses(
    model: Any, rows: torch.Tensor, progress: Callable[[int], None] = lambda done: None
) -> list[float]:
    """Nats a token of each row (R, T) at the width that is set, the first token excepted."""
    found = []
    for number, row in enumerate(rows):
        hidden = hidden_states(model, row[None])[0, :-1]
        found.append(-float(_likelihoods(model, hidden, row[1:]).mean()))
        progress(number + 1)
    return found


@torch.no_grad()
def answers(
    model: Any,
    tokenizer: Any,
    questions: Sequence[ChoiceRow],
    progress: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """1 for each question whose likeliest answer is the right one, else 0."""
    found = []
    for number, question in enumerate(questions):
        scores = choice_scores(model, tokenizer, question)
        found.append(float(int(np.argmax(scores)) == question.gold))
        progress(number + 1)
    return found


@torch.no_grad()
def choice_scores(model: Any, tokenizer: Any, question: ChoiceRow) -> list[float]:
    """Log likelihood of each choice behind the prompt, a character of it."""
    prompt = tokenizer(question.context).input_ids
    ends = [tokenizer(c, add_special_tokens=False).input_ids for c in question.choices]
    longest = max(len(end) for end in ends)
    decoder = model.get_decoder()
    begun = decoder(input_ids=torch.tensor([prompt]), use_cache=True)
    cache = begun.past_key_values
    cache.batch_repeat_interleave(len(ends))
    # Padding stands behind what is scored, where a causal model does not look.
    rows = torch.tensor([[*end, *[0] * (longest - len(end))] for end in ends])
    after = decoder(input_ids=rows, past_key_values=cache, use_cache=True).last_hidden_state
    last = begun.last_hidden_state[:, -1:].expand(len(ends), -1, -1)
    hidden = torch.cat([last, after[:, :-1]], 1)
    scores = []
    for states, end, choice in zip(hidden, ends, question.choices, strict=True):
        likelihood = _likelihoods(model, states[: len(end)], torch.tensor(end))
        scores.append(float(likelihood.sum()) / max(1, len(choice)))
    return scores


def _likelihoods(model: Any, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Log likelihood (T,) of `ids` from final states (T, d), a few positions at a time."""
    head, cap = model.get_output_embeddings().weight, softcap_of(model)
    found = []
    for states, wanted in zip(hidden.split(_POSITIONS), ids.split(_POSITIONS), strict=True):
        logits = capped((states @ head.T).float(), cap)
        found.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(1))
    return torch.cat(found)


def read_questions(path: Path) -> list[ChoiceRow]:
    """Rows of {"question", "choices", "answer"} or {"query", "choices", "gold"}.

    Raises CheckpointError if the file cannot be read, InputError for a row that is no question.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot be read: {error}", file=str(path)) from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            raise InputError(f"{where}: not JSON") from None
        row = read_row(document, where, path.parent, path.stem)
        if not isinstance(row, ChoiceRow):
            raise InputError(f"{where}: not a question with choices")
        found.append(row)
    if not found:
        raise InputError(f"{path.name} holds no question")
    return found
