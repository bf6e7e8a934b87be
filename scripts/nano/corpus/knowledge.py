"""Small facts and skills in five languages: sums, counting, numbers, dates, countries, words.

In: the lexicon; num2words and Babel. Out: `train/facts.jsonl`, `heldout/facts.jsonl`. A fact whose
key has a certain hash is held out in every language, so that what is measured is the skill.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from pathlib import Path

from scripts.nano.corpus import flags, rows
from scripts.nano.corpus.languages import LANGUAGES, NAMES
from scripts.nano.corpus.lexicon import nouns, slots

SUM = {
    "en": ("What is {}?", "plus", "minus", "times"),
    "es": ("¿Cuánto es {}?", "más", "menos", "por"),
    "fr": ("Combien font {} ?", "plus", "moins", "fois"),
    "it": ("Quanto fa {}?", "più", "meno", "per"),
    "pt": ("Quanto é {}?", "mais", "menos", "vezes"),
}  # fmt: skip
NEXT = {
    "en": ("What comes after {}?", "What comes before {}?"),
    "es": ("¿Qué viene después de {}?", "¿Qué viene antes de {}?"),
    "fr": ("Qu'est-ce qui vient après {} ?", "Qu'est-ce qui vient avant {} ?"),
    "it": ("Cosa viene dopo {}?", "Cosa viene prima di {}?"),
    "pt": ("O que vem depois de {}?", "O que vem antes de {}?"),
}
HELD_OUT_ROWS = 200  # of each task
Fact = tuple[str, rows.Row]  # what identifies it, in whatever language, and the row


def sums() -> Iterator[Fact]:
    """3 plus 4, in digits."""
    for a, b in itertools.product(range(31), repeat=2):
        for sign, place, result in (("+", 1, a + b), ("-", 2, a - b), ("*", 3, a * b)):
            if result < 0 or (sign == "*" and max(a, b) > 12):
                continue
            for language in LANGUAGES:
                frame, *words = SUM[language]
                asked = frame.format(f"{a} {words[place - 1]} {b}")
                # The same sum with its parts exchanged is in the same split.
                key = f"{min(a, b)} {sign} {max(a, b)}" if sign != "-" else f"{a} - {b}"
                yield key, rows.chat("sum", language, asked, str(result))


def spelled(number: int, language: str) -> str:
    """A number in words."""
    from num2words import num2words  # type: ignore[import-untyped, import-not-found, unused-ignore]

    words: str = num2words(number, lang="pt_BR" if language == "pt" else language)
    return words


def numbers() -> Iterator[Fact]:
    """57 in French, and cinquante-sept in digits."""
    for number in [*range(0, 200), *range(200, 1000, 7), *range(1000, 10_000, 370)]:
        for language in LANGUAGES:
            words = spelled(number, language)
            asked = f"Write {number} in {NAMES[language]}."
            yield f"number {number}", rows.chat("number", language, asked, words)
            asked = f"Write in digits: {words}"
            yield f"number {number}", rows.chat("number", language, asked, str(number))


def counting() -> Iterator[Fact]:
    """Count from three to seven."""
    for first, length in itertools.product(range(1, 25), range(3, 8)):
        last = first + length
        for language in LANGUAGES:
            asked = f"Count from {first} to {last} in {NAMES[language]}."
            words = ", ".join(spelled(n, language) for n in range(first, last + 1))
            yield f"count {first} {last}", rows.chat("count", language, asked, words)


def dates() -> Iterator[Fact]:
    """2024-03-05 in Spanish."""
    from babel.dates import format_date  # type: ignore[import-not-found, unused-ignore]

    day = datetime.date(1995, 1, 1)
    while day.year < 2031:
        for language in LANGUAGES:
            locale = "pt_BR" if language == "pt" else language
            words = format_date(day, "long", locale=locale)
            asked = f"Write {day.isoformat()} in {NAMES[language]}."
            yield f"date {day}", rows.chat("date", language, asked, words)
        day += datetime.timedelta(17)


def sequences() -> Iterator[Fact]:
    """What comes after Monday."""
    for name in ("day", "month", "number"):
        listed = slots(name)[:20]
        for first, second in itertools.pairwise(listed):
            for language in LANGUAGES:
                after, before = NEXT[language]
                asked = after.format(first[language])
                yield f"after {first['en']}", rows.chat("next", language, asked, second[language])
                asked = before.format(second[language])
                yield f"before {second['en']}", rows.chat("next", language, asked, first[language])


def countries() -> Iterator[Fact]:
    """The names of countries in other languages, and their codes."""
    for code, names in flags.territories().items():
        for source, target in itertools.permutations(LANGUAGES, 2):
            asked = f"Translate to {NAMES[target]}: {names[source]}"
            yield f"country {code}", rows.chat("country", target, asked, names[target])
        asked = f"What is the code of {names['en']}?"
        yield f"code {code}", rows.chat("country_code", "en", asked, code)


def word_forms() -> Iterator[Fact]:
    """The plural of a noun; its letters."""
    for noun in nouns():
        for language in LANGUAGES:
            one, many = noun.one[language], noun.many[language]
            if noun.category not in ("mass", "edible"):
                yield (
                    f"plural {noun.name}",
                    rows.chat("plural", language, f"Plural of {one}?", many),
                )
            yield (
                f"letters {noun.name}",
                rows.chat("spell", language, f"Spell {one}.", " ".join(one)),
            )


FACTS = (sums, numbers, counting, dates, sequences, countries, word_forms)


def build(sources: Path, cache: Path, limit: int) -> None:
    """Write the rows; `limit` of each kind if not 0."""
    train, secret = [], []
    for facts in FACTS:
        made: dict[bool, list[rows.Row]] = {True: [], False: []}
        for key, row in facts():
            made[rows.is_held_out("fact", key)].append(row)
        questions = {rows.texts(row)[0] for row in made[False]}
        held = [row for row in made[True] if rows.texts(row)[0] not in questions]
        for listed in (made[False], held):
            rows.generator(facts.__name__).shuffle(listed)
        train += made[False][: limit or None]
        secret += held[:HELD_OUT_ROWS]
    rows.write(cache / "train" / "facts.jsonl", train, order="facts")
    rows.write(cache / "heldout" / "facts.jsonl", secret, order="facts")
