"""What is counted in results, and how sums of it become figures.

In: items of one part and their results. Out: for each metric, columns (n, k) of which a figure is a
function of the sums, so that the bootstrap needs no more than them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

import numpy as np

from matryo.errors import InputError
from matryo.evaluate.intervals import F64, Value
from matryo.evaluate.items import AnswerItem, Item, ReferenceItem, ScoreItem

Result = dict[str, Any]
Columns = Callable[[Sequence[Item], Sequence[Result]], F64]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure. unit: `%` for shares, nothing for plain numbers · columns, value: as above."""

    name: str
    higher_is_better: bool
    unit: str
    columns: Columns
    value: Value


def metrics_for(items: Sequence[Item]) -> list[Metric]:
    """The metrics of a part, the one that counts first. Raises InputError if kinds are mixed."""
    first = items[0]
    if isinstance(first, ScoreItem):
        if not all(isinstance(item, ScoreItem) for item in items):
            raise InputError(_mixed(first))
        if first.gold is None:
            return [BITS_PER_BYTE, PERPLEXITY]
        return [ACCURACY_PER_BYTE, ACCURACY, ACCURACY_PER_TOKEN, GOLD_BITS_PER_BYTE]
    if isinstance(first, ReferenceItem):
        return [REFERENCE_BITS_PER_BYTE, LIKELIEST]
    if not all(isinstance(item, AnswerItem) and item.row.metric == first.row.metric
               for item in items):  # fmt: skip
        raise InputError(_mixed(first))
    main = ANSWERS[first.row.metric]
    beside = {
        "wer": [CER],
        "cer": [WER],
        "chrf": [BLEU, EXACT_MATCH],
        "bleu": [CHRF, EXACT_MATCH],
        "exact_match": [CHRF],
    }[first.row.metric]
    return [main, *beside]


def find_metric(metrics: Sequence[Metric], name: str | None) -> Metric:
    """By name; None = the first. Raises InputError naming those there are."""
    for metric in metrics:
        if name is None or metric.name == name:
            return metric
    raise InputError(
        f"no metric {name!r} here; there are {', '.join(metric.name for metric in metrics)}"
    )


def _mixed(item: Item) -> str:
    return (
        f"part {item.row.part!r} mixes rows of different kinds or metrics: give them different "
        "names under task"
    )


def _ratio(sums: F64) -> F64:
    ratio: F64 = sums[..., 0] / sums[..., 1]
    return ratio


def _percent(sums: F64) -> F64:
    return 100.0 * _ratio(sums)


def _text_columns(items: Sequence[Item], results: Sequence[Result]) -> F64:
    """Nats, bytes, tokens."""
    return np.array(
        [
            [-result["logprob"][0], cast(ScoreItem, item).num_bytes[0], result["tokens"][0]]
            for item, result in zip(items, results, strict=True)
        ],
        np.float64,
    )


def _reference_columns(items: Sequence[Item], results: Sequence[Result]) -> F64:
    """Nats, bytes."""
    return np.array(
        [
            [-result["logprob"][0], cast(ReferenceItem, item).num_bytes]
            for item, result in zip(items, results, strict=True)
        ],
        np.float64,
    )


def _likeliest_columns(items: Sequence[Item], results: Sequence[Result]) -> F64:
    return np.array([[float(result["greedy"][0]), 1.0] for result in results], np.float64)


def _gold_columns(items: Sequence[Item], results: Sequence[Result]) -> F64:
    rows = []
    for item, result in zip(items, results, strict=True):
        question = cast(ScoreItem, item)
        gold = question.gold or 0
        rows.append([-result["logprob"][gold], question.num_bytes[gold]])
    return np.array(rows, np.float64)


def _choice_columns(weights: Callable[[ScoreItem, Result], Sequence[int]]) -> Columns:
    """Right or not when the likeliest continuation is taken, each divided by its weight."""

    def columns(items: Sequence[Item], results: Sequence[Result]) -> F64:
        rows = []
        for item, result in zip(items, results, strict=True):
            question = cast(ScoreItem, item)
            scores = np.array(result["logprob"]) / np.array(weights(question, result))
            rows.append([float(int(scores.argmax()) == question.gold), 1.0])
        return np.array(rows, np.float64)

    return columns


BITS_PER_BYTE = Metric(
    "bits_per_byte", False, "", _text_columns,
    lambda sums: _ratio(sums) / math.log(2),
)  # fmt: skip
PERPLEXITY = Metric(
    "perplexity", False, "", _text_columns,
    lambda sums: np.exp(sums[..., 0] / sums[..., 2]),
)  # fmt: skip
GOLD_BITS_PER_BYTE = Metric(
    "gold_bits_per_byte", False, "", _gold_columns, lambda sums: _ratio(sums) / math.log(2)
)
REFERENCE_BITS_PER_BYTE = Metric(
    "reference_bits_per_byte",
    False,
    "",
    _reference_columns,
    lambda sums: _ratio(sums) / math.log(2),
)
LIKELIEST = Metric("likeliest", True, "%", _likeliest_columns, _percent)
ACCURACY = Metric(
    "accuracy", True, "%",
    _choice_columns(lambda item, result: [1] * len(item.continuations)), _percent,
)  # fmt: skip
ACCURACY_PER_BYTE = Metric(
    "accuracy_per_byte", True, "%", _choice_columns(lambda item, result: item.num_bytes), _percent
)
ACCURACY_PER_TOKEN = Metric(
    "accuracy_per_token", True, "%", _choice_columns(lambda item, result: result["tokens"]),
    _percent,
)  # fmt: skip


def normalised(text: str) -> str:
    """A text as answers are compared: NFKC, lower case, no punctuation, single spaces."""
    plain = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    return " ".join(re.sub(r"[^\w\s']|_", " ", plain).split())


def _answers(items: Sequence[Item], results: Sequence[Result]) -> list[tuple[str, tuple[str, ...]]]:
    return [
        (str(result["text"]).strip(), cast(AnswerItem, item).row.references)
        for item, result in zip(items, results, strict=True)
    ]


def _match_columns(items: Sequence[Item], results: Sequence[Result]) -> F64:
    return np.array(
        [
            [float(normalised(text) in {normalised(one) for one in references}), 1.0]
            for text, references in _answers(items, results)
        ],
        np.float64,
    )


def _error_columns(measure: str) -> Columns:
    """Errors and length of the reference that is nearest."""

    def columns(items: Sequence[Item], results: Sequence[Result]) -> F64:
        process = getattr(_required("jiwer"), f"process_{measure}")
        rows = []
        for text, references in _answers(items, results):
            found = []
            for reference in references:
                # A reference of punctuation alone is compared as it stands.
                wanted = normalised(reference) or reference.strip()
                out = process(wanted, normalised(text))
                errors = out.substitutions + out.deletions + out.insertions
                length = out.hits + out.substitutions + out.deletions
                found.append((errors / length, errors, length))
            _, errors, length = min(found)
            rows.append([errors, length])
        return np.array(rows, np.float64)

    return columns


def _corpus_columns(name: str) -> Columns:
    """The counts that sacrebleu sums over a corpus."""

    def columns(items: Sequence[Item], results: Sequence[Result]) -> F64:
        answers = _answers(items, results)
        most = max(len(references) for _, references in answers)
        streams = [
            [references[n] if n < len(references) else references[0] for _, references in answers]
            for n in range(most)
        ]
        counts = _corpus_metric(name)._extract_corpus_statistics(
            [text for text, _ in answers], streams
        )
        return np.array(counts, np.float64)

    return columns


def _corpus_value(name: str) -> Value:
    def value(sums: F64) -> F64:
        metric = _corpus_metric(name)
        flat = sums.reshape(-1, sums.shape[-1])
        scores = [
            metric._compute_score_from_stats([round(count) for count in row]).score for row in flat
        ]
        return np.array(scores, np.float64).reshape(sums.shape[:-1])

    return value


def _corpus_metric(name: str) -> Any:
    module = _required("sacrebleu.metrics.chrf" if name == "chrf" else "sacrebleu.metrics.bleu")
    # Answers of one word have no four-word sequences: effective order keeps their BLEU above 0.
    return module.CHRF() if name == "chrf" else module.BLEU(effective_order=True)


def _required(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(
            f"this metric needs {package}: pip install 'matryo[eval]' ({error})"
        ) from error


EXACT_MATCH = Metric("exact_match", True, "%", _match_columns, _percent)
WER = Metric("wer", False, "%", _error_columns("words"), _percent)
CER = Metric("cer", False, "%", _error_columns("characters"), _percent)
CHRF = Metric("chrf", True, "", _corpus_columns("chrf"), _corpus_value("chrf"))
BLEU = Metric("bleu", True, "", _corpus_columns("bleu"), _corpus_value("bleu"))
ANSWERS = {metric.name: metric for metric in (EXACT_MATCH, WER, CER, CHRF, BLEU)}
