"""Nouns and adjectives that go together, chosen at random for a sentence of the grammar."""

from __future__ import annotations

import random

from scripts.nano.corpus.lexicon import (
    Adjective,
    Noun,
    adjectives,
    nouns,
    slots,
)
from scripts.nano.corpus.phrases import (
    Texts,
    after,
    one,
    several,
    the,
)  # fmt: skip

COUNTED = "animal food drink clothes furniture opening object vehicle place nature person".split()
THINGS = frozenset("animal clothes furniture opening object vehicle".split())


def pick(rng: random.Random, *categories: str) -> Noun:
    """A noun of one of the categories."""
    return rng.choice([noun for noun in nouns() if noun.category in categories])


def named(english: str) -> Noun:
    """The noun of this English name."""
    return next(noun for noun in nouns() if noun.name == english)


def fitting(rng: random.Random, noun: Noun, *kinds: str) -> Adjective | None:
    """An adjective of one of the kinds that suits the noun, if there is one."""
    found = [a for a in adjectives() if noun.category in a.fits and a.kind in kinds]
    return rng.choice(found) if found else None


def counted(rng: random.Random, *categories: str) -> Texts:
    """A thing, or several, sometimes with an adjective."""
    noun = pick(rng, *categories)
    kinds = ("colour", "quality") if rng.random() < 0.5 else ()
    adjective = fitting(rng, noun, *kinds)
    if rng.random() < 0.4:
        return several(rng.randint(2, 12), noun, adjective)
    return one(noun, adjective)


def somewhere(rng: random.Random) -> Texts:
    """In the garden, under the table, near the castle."""
    preposition = rng.choice(slots("preposition"))
    allowed = {
        "in": ("opening", "place"), "on": ("furniture",), "under": ("furniture", "vehicle"),
    }  # fmt: skip
    places = allowed.get(preposition["en"], ("furniture", "vehicle", "place", "nature"))
    while True:
        noun = pick(rng, *places)
        flat = noun.name in ("door", "window", "book", "umbrella", "bridge", "fridge", "mirror")
        if not flat or len(places) == 4:
            return after(preposition, the(noun))
