"""Figures from results: small cases by hand, corpora beside the public functions they come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from matryo.errors import InputError
from matryo.evaluate import metrics
from matryo.evaluate.items import AnswerItem, ScoreItem
from matryo.evaluate.metrics import Metric, find_metric, metrics_for, normalised
from matryo.evaluate.rows import AnswerRow, choice_row, read_row, text_row

HYPOTHESES = ["The cat sat on the mat.", "hello there my old friend", "", "Un chat noir dort ici"]
REFERENCES = [
    ["The cat sat on a mat!"],
    ["hello there, my dear friend", "Hello my old friend"],
    ["nothing"],
    ["Un chat noir dort"],
]


def answers(metric: str) -> list[AnswerItem]:
    items = []
    for number, references in enumerate(REFERENCES):
        row = read_row(
            {"prompt": "p", "reference": references, "metric": metric},
            "w",
            Path(),
            "part",
        )
        assert isinstance(row, AnswerRow)
        items.append(AnswerItem(key=str(number), row=row, max_tokens=5))
    return items


def value(metric: Metric, items: Sequence[Any], results: Sequence[dict[str, Any]]) -> float:
    return float(metric.value(metric.columns(items, results).sum(axis=0)))


def texts() -> list[dict[str, Any]]:
    return [{"text": text} for text in HYPOTHESES]


def streams() -> list[list[str]]:
    return [[r[n] if n < len(r) else r[0] for r in REFERENCES] for n in range(2)]


def test_chrf_and_bleu_are_those_of_the_corpus() -> None:
    found = value(metrics.CHRF, answers("chrf"), texts())
    assert found == pytest.approx(CHRF().corpus_score(HYPOTHESES, streams()).score)
    found = value(metrics.BLEU, answers("bleu"), texts())
    bleu = BLEU(effective_order=True)
    assert found == pytest.approx(bleu.corpus_score(HYPOTHESES, streams()).score)
    both = metrics.CHRF.columns(answers("chrf"), texts())
    assert metrics.CHRF.value(np.stack([both.sum(axis=0)] * 3)).shape == (3,)


def test_error_rates_are_those_of_the_corpus_and_of_the_nearest_reference() -> None:
    found = value(metrics.WER, answers("wer"), texts())
    nearest = [
        "the cat sat on a mat", "hello there my dear friend", "nothing", "un chat noir dort"
    ]  # fmt: skip
    said = [normalised(text) for text in HYPOTHESES]
    assert found == pytest.approx(100 * jiwer.wer(nearest, said))
    errors = value(metrics.CER, answers("cer"), texts())
    assert errors == pytest.approx(100 * jiwer.cer(nearest, said))


def test_answers_match_whatever_their_case_and_punctuation() -> None:
    results: list[dict[str, Any]] = [
        {"text": " the CAT sat on a mat "},
        {"text": "Hello, my old friend."},
        {"text": "nothing at all"},
        {"text": "un chat"},
    ]
    assert value(metrics.EXACT_MATCH, answers("exact_match"), results) == 50.0
    assert normalised("  It’s\tＡ_TEST! ") == "it's a test"


def test_choices_are_compared_per_byte_per_token_and_as_they_are() -> None:
    item = ScoreItem(
        key="a", row=choice_row("c", (" aaaaaaaaa", " b c"), 0, "p", "w"), prefix=(2,),
        continuations=((3,), (4, 5, 6, 7)), num_bytes=(10, 4), gold=0,
    )  # fmt: skip
    result = {"logprob": [-4.0, -3.0], "tokens": [1, 4], "greedy": [False, False]}
    by_name = {metric.name: value(metric, [item], [result]) for metric in metrics_for([item])}
    assert by_name == {
        "accuracy_per_byte": 100.0,
        "accuracy": 0.0,
        "accuracy_per_token": 0.0,
        "gold_bits_per_byte": pytest.approx(4.0 / 10 / math.log(2)),
    }


def test_a_text_has_bits_and_perplexity() -> None:
    items = [
        ScoreItem(
            key=str(size), row=text_row("x", "p", "w"), prefix=(2,), continuations=((3,) * size,),
            num_bytes=(4 * size,),
        )
        for size in (1, 3)
    ]  # fmt: skip
    results = [{"logprob": [-2.0], "tokens": [1]}, {"logprob": [-6.0], "tokens": [3]}]
    assert value(metrics.BITS_PER_BYTE, items, results) == pytest.approx(8 / 16 / math.log(2))
    assert value(metrics.PERPLEXITY, items, results) == pytest.approx(math.exp(2))


def test_a_part_has_rows_of_one_kind() -> None:
    first = answers("wer")
    with pytest.raises(InputError, match="mixes rows of different kinds"):
        metrics_for([first[0], answers("chrf")[1]])
    assert [metric.name for metric in metrics_for(first)] == ["wer", "cer"]
    with pytest.raises(InputError, match="no metric 'bleu' here; there are wer, cer"):
        find_metric(metrics_for(first), "bleu")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(metrics, "import_module", refuse)
    with pytest.raises(InputError, match=r"needs sacrebleu: pip install 'matryo\[eval\]'"):
        metrics.CHRF.columns(answers("chrf"), texts())
