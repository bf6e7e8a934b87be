"""The vocabulary of the grammar, read from `wordlists/*.txt`.

Out: nouns with number and gender, adjectives in four forms, verbs in five persons, phrases and
lists, each in five languages.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scripts.nano.corpus.languages import LANGUAGES
from scripts.nano.corpus.plurals import adjective_forms, plural

FOLDER = Path(__file__).with_name("wordlists")
ROMANCE = LANGUAGES[1:]


@dataclass(frozen=True)
class Noun:
    """A noun; `one`, `many` and the genders by language, `gender` of one and of many."""

    category: str
    one: dict[str, str]
    many: dict[str, str]
    gender: dict[str, tuple[str, str]]

    @property
    def name(self) -> str:
        """The English word, which identifies it."""
        return self.one["en"]


@dataclass(frozen=True)
class Adjective:
    """An adjective: `forms` by language are (m, f, m plural, f plural)."""

    kind: str  # colour, quality or state
    fits: frozenset[str]  # categories of nouns
    forms: dict[str, tuple[str, str, str, str]]
    comparative: str  # English, empty if it has none here
    french_first: bool

    @property
    def name(self) -> str:
        """The English word, which identifies it."""
        return self.forms["en"][0]


@dataclass(frozen=True)
class Verb:
    """A verb in the present: five forms (I, you, he, we, they) by language."""

    objects: frozenset[str]  # categories of nouns it takes; of subjects, if it takes none
    forms: dict[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """The English word, which identifies it."""
        return self.forms["en"][0]


def rows(file: str) -> Iterator[list[str]]:
    """The cells of every line that is no comment."""
    for line in (FOLDER / file).read_text("utf-8").splitlines():
        if not line.startswith("#"):
            yield [cell.strip() for cell in line.split("|")]


@cache
def nouns() -> tuple[Noun, ...]:
    """All nouns."""
    found = []
    for category, *cells in rows("nouns.txt"):
        one, many, gender = {}, {}, {}
        for language, cell in zip(LANGUAGES, cells, strict=True):
            word, sex = (cell, "m") if language == "en" else cell.rsplit(" ", 1)
            single, _, plurals = word.partition("/")
            one[language] = single
            many[language] = plurals or plural(language, single)
            gender[language] = (sex[0], sex[-1])
        found.append(Noun(category, one, many, gender))
    return tuple(found)


@cache
def adjectives() -> tuple[Adjective, ...]:
    """All adjectives."""
    found = []
    for kind, fits, english, *cells in rows("adjectives.txt"):
        word, _, comparative = english.partition("/")
        forms = {"en": adjective_forms("en", word)}
        for language, cell in zip(ROMANCE, cells, strict=True):
            given = tuple(cell.lstrip("<").split("/"))
            if len(given) == 4:
                forms[language] = given
            elif len(given) == 1:
                forms[language] = adjective_forms(language, given[0])
            else:
                raise ValueError(f"adjectives.txt: {cell!r} has {len(given)} forms, not 1 or 4")
        first = cells[1].startswith("<")
        found.append(Adjective(kind, frozenset(fits.split()), forms, comparative, first))
    return tuple(found)


@cache
def verbs() -> tuple[Verb, ...]:
    """Verbs that take an object."""
    found = []
    for english, objects, *cells in rows("verbs.txt"):
        plain, third = english.split("/")
        forms: dict[str, tuple[str, ...]] = {"en": (plain, plain, third, plain, plain)}
        for language, cell in zip(ROMANCE, cells, strict=True):
            given = tuple(cell.split())
            if len(given) != 5:
                raise ValueError(f"verbs.txt: {cell!r} has {len(given)} forms, not 5")
            forms[language] = given
        found.append(Verb(frozenset(objects.split()), forms))
    return tuple(found)


@cache
def intransitives() -> tuple[Verb, ...]:
    """Verbs without an object, in the third person: forms (one, many)."""
    found = []
    for english, subjects, *cells in rows("intransitive.txt"):
        forms = {"en": tuple(english.split("/"))}
        forms |= {x: tuple(cell.split("/")) for x, cell in zip(ROMANCE, cells, strict=True)}
        found.append(Verb(frozenset(subjects.split()), forms))
    return tuple(found)


@cache
def phrases() -> tuple[dict[str, str], ...]:
    """Whole sentences."""
    return tuple(dict(zip(LANGUAGES, cells, strict=True)) for cells in rows("phrases.txt"))


@cache
def slots(name: str) -> tuple[dict[str, str], ...]:
    """One list of words or phrases: weather, when, city, day, month, feeling, number, ..."""
    found = [dict(zip(LANGUAGES, r[1:], strict=True)) for r in rows("slots.txt") if r[0] == name]
    if not found:
        raise ValueError(f"slots.txt has no list {name!r}")
    return tuple(found)
