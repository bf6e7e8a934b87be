"""What the held-out files ask of matryo-nano, and how an answer counts.

In: CACHE of `python -m scripts.nano.corpus`. Out: for each `Asked` its rows, in parts with figures
of their own (a language, a direction, a kind of fact), the metrics, and what can be had without
any model. Rows are those of `corpus/heldout.sha256`, or nothing is measured.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache as once
from pathlib import Path
from typing import Any

import numpy as np
from scripts.nano.corpus import cldr, finish
from scripts.nano.corpus import rows as files

from matryo.evaluate import metrics
from matryo.evaluate.intervals import F64
from matryo.evaluate.items import AnswerItem, Item
from matryo.evaluate.metrics import CER, CHRF, EXACT_MATCH, WER, Metric, normalised
from matryo.evaluate.rows import AnswerRow, Row, TextRow, read_row

Json = dict[str, Any]
Result = dict[str, Any]


def _keyword_columns(items: Sequence[Item], results: Sequence[Result]) -> F64:
    """Keywords that CLDR has for the picture, and how many were given or should have been."""
    rows = []
    for item, result in zip(items, results, strict=True):
        wanted, *accepted = _answer_row(item).references
        given = [normalised(one) for one in str(result["text"]).split(",") if one.strip()]
        right = {normalised(one) for one in accepted} & set(given)
        rows.append([len(right), max(len(given), len(wanted.split(",")))])
    return np.array(rows, np.float64)


def _named_columns(items: Sequence[Item], results: Sequence[Result]) -> F64:
    """As `EXACT_MATCH`, of the first reference alone."""
    return EXACT_MATCH.columns([_with_references(item, slice(1)) for item in items], results)


KEYWORDS = Metric("keywords", True, "%", _keyword_columns, metrics.ACCURACY.value)
EXACT = Metric("exact", True, "%", _named_columns, EXACT_MATCH.value)
ACCEPTED = replace(EXACT_MATCH, name="accepted")
BITS = metrics.BITS_PER_BYTE
REFERENCE_BITS = metrics.REFERENCE_BITS_PER_BYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One held-out file. about: a line for people · part: of a row, by its JSON · limit: rows of a
    part at most · without: what can be had without a model, and its answers
    """

    name: str
    about: str
    metrics: tuple[Metric, ...]
    part: Callable[[Json], str]
    limit: int
    without: tuple[str, Callable[[Json], str]] | None = None
    max_tokens: int = 48

    @property
    def likelihood(self) -> bool:
        """Whether the right answer is predicted and none generated."""
        return self.metrics[0] is REFERENCE_BITS


def _language(row: Json) -> str:
    return str(row["lang"])


def _kind(row: Json) -> str:
    return str(row["task"])


def _direction(row: Json) -> str:
    if row["source"] == "en":
        return "from English"
    return "to English" if row["lang"] == "en" else "between the others"


def _asked_text(row: Json) -> str:
    return files.texts(row)[0].partition(": ")[2]


def _said(row: Json) -> str:
    return str(row["said"])


def _nothing(row: Json) -> str:
    return ""


ERRORS, COPIED = ("no answer", _nothing), ("the sentence as it is", _asked_text)
HEARD = ("the words as spoken", _said)
SPEAKERS = {
    "prompts": "recorded telephone prompts, other sentences by the trained speakers",
    "menardi": "recorded telephone prompts, an Italian speaker of no training clip",
    "espeak": "unseen voices of espeak-ng, unseen sentences",
    "kokoro": "unseen voices of Kokoro, unseen sentences",
}

TASKS = (
    Asked(name="emoji", about="name of a picture by an unseen artist, among all names",
          metrics=(EXACT, ACCEPTED), part=_language, limit=150),
    Asked(name="emoji_choice", about="one of four names", metrics=(EXACT,), part=_language,
          limit=80),
    Asked(name="emoji_keywords", about="three keywords", metrics=(KEYWORDS,), part=_language,
          limit=60),
    Asked(name="emoji_yes_no", about="is it this?", metrics=(EXACT,), part=_language, limit=80),
    Asked(name="flags", about="which country, by an unseen artist", metrics=(EXACT,),
          part=_language, limit=60),
    Asked(name="easy_vqa", about="shapes and colours", metrics=(EXACT,), part=_kind, limit=400),
    Asked(name="translate", about="sentences of the grammar with an unseen meaning",
          metrics=(CHRF, EXACT), part=_direction, limit=130, without=COPIED),
    Asked(name="facts", about="sums, dates, numbers, countries, plurals; unseen ones",
          metrics=(EXACT,), part=_kind, limit=60),
    Asked(name="words", about="definitions of unseen words, predicted",
          metrics=(REFERENCE_BITS,), part=_kind, limit=300),
    Asked(name="prose", about="the ends of novels, predicted", metrics=(BITS,), part=_kind,
          limit=300),
    *(
        Asked(name=f"transcribe_{source}", about=about, metrics=(WER, CER), part=_language,
              limit=60, without=ERRORS)
        for source, about in SPEAKERS.items()
    ),
    *(
        Asked(name=f"speech_translate_{source}", about=about, metrics=(CHRF,), part=_direction,
              limit=70, without=HEARD)
        for source, about in SPEAKERS.items()
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A row as the evaluation takes it, and as the file has it."""

    row: Row
    json: Json


def read(asked: Asked, cache: Path) -> list[Question]:
    """All rows of a file; broken ones and repetitions are errors.

    Raises SystemExit if the file is not the one that published figures are about.
    """
    path = cache / "heldout" / f"{asked.name}.jsonl"
    if finish.digest(path) != expected()[f"heldout/{path.name}"]:
        raise SystemExit(f"error: {path} is not the file whose digest corpus/heldout.sha256 has")
    found = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if not line:
            continue
        document = json.loads(line)
        named = {**document, "task": asked.part(document), "metric": "exact_match"}
        row = read_row(named, f"{path.name} line {number}", path.parent, asked.name)
        if isinstance(row, AnswerRow):
            more = _accepted(document, cache)
            row = replace(row, references=(*row.references, *more), max_tokens=asked.max_tokens)
        found.append(Question(row, document))
    distinct = {question.row.digest: question for question in reversed(found)}
    return [question for question in found if distinct[question.row.digest] is question]


@once
def expected() -> dict[str, str]:
    """Digests of the held-out rows."""
    return finish.published()


def _accepted(document: Json, cache: Path) -> list[str]:
    """What else is right: keywords of the same emoji in the same language."""
    if "concept" in document:
        return list(_concepts(cache)[document["concept"]].keywords[document["lang"]])
    return list(document.get("accepted", ()))


@once
def _concepts(cache: Path) -> dict[str, cldr.Concept]:
    return cldr.read(cache / "sources")


def without_a_model(
    asked: Asked, items: Sequence[Item], documents: Sequence[Json]
) -> dict[str, tuple[str, float]]:
    """For each metric what it takes no model to reach, and how."""
    found = {}
    for metric in asked.metrics:
        if metric is BITS or metric is REFERENCE_BITS:
            found[metric.name] = ("frequencies of bytes", _byte_entropy(items))
        elif "options" in documents[0]:
            chance = [1 / len(document["options"]) for document in documents]
            found[metric.name] = ("one at random", 100 * sum(chance) / len(chance))
        else:
            name, answers = _blind(asked, items, documents)
            results = [{"text": text} for text in answers]
            value = metric.value(metric.columns(items, results).sum(axis=0)[None])
            found[metric.name] = (name, float(value[0]))
    return found


def _blind(asked: Asked, items: Sequence[Item], documents: Sequence[Json]) -> tuple[str, list[str]]:
    """What is answered without a look at the picture or the question."""
    if asked.without is not None:
        name, answer = asked.without
        return name, [answer(document) for document in documents]
    often: dict[str, Counter[str]] = {}
    for item in items:
        often.setdefault(item.row.part, Counter())[_answer_row(item).references[0]] += 1
    return "the most frequent answer", [often[item.row.part].most_common(1)[0][0] for item in items]


def _byte_entropy(items: Sequence[Item]) -> float:
    text = "".join(
        item.row.text if isinstance(item.row, TextRow) else _answer_row(item).references[0]
        for item in items
    )
    counts = Counter(text.encode())
    total = sum(counts.values())
    return -sum(count / total * math.log2(count / total) for count in counts.values())


def _answer_row(item: Item) -> AnswerRow:
    assert isinstance(item.row, AnswerRow)
    return item.row


def _with_references(item: Item, part: slice) -> Item:
    assert isinstance(item, AnswerItem)
    return replace(item, row=replace(item.row, references=item.row.references[part]))
