"""Sentences about things: what they are like, whose they are, where they are, what they cost."""

from __future__ import annotations

import random

from scripts.nano.corpus import articles
from scripts.nano.corpus.choices import COUNTED, THINGS, counted, fitting, pick, somewhere
from scripts.nano.corpus.lexicon import (
    adjectives,
    nouns,
    slots,
)
from scripts.nano.corpus.phrases import (
    BE,
    Texts,
    one,
    own,
    predicate,
    same,
    sentence,
    several,
    the,
    words,
)  # fmt: skip


def description(rng: random.Random) -> Texts:
    """The car is red. The cats are tired."""
    while True:
        noun = pick(rng, *COUNTED, "body", "mass", "edible")
        adjective = fitting(rng, noun, "colour", "quality", "state")
        if adjective is not None:
            break
    many = noun.category not in ("mass", "edible", "drink") and rng.random() < 0.35
    return sentence(the(noun, many), predicate(noun, many, adjective))


def possession(rng: random.Random) -> Texts:
    """My dog is small. Our cars are new."""
    noun = pick(rng, *THINGS)
    adjective = fitting(rng, noun, "colour", "quality", "state")
    assert adjective is not None
    many = rng.random() < 0.35
    owner = rng.choice(("my", "your", "our"))
    return sentence(own(owner, noun, many), predicate(noun, many, adjective))


def existence(rng: random.Random) -> Texts:
    """There is a red car in the garden. There are three birds."""
    noun = pick(rng, *COUNTED)
    adjective = fitting(rng, noun, "colour", "quality") if rng.random() < 0.5 else None
    if rng.random() < 0.5:
        there = words("there is", "hay", "il y a", "c'è", "há")
        thing = one(noun, adjective)
    else:
        there = words("there are", "hay", "il y a", "ci sono", "há")
        thing = several(rng.randint(2, 12), noun, adjective)
    if noun.category in ("place", "nature", "furniture") or rng.random() < 0.4:
        return sentence(there, thing)
    return sentence(there, thing, somewhere(rng))


def position(rng: random.Random) -> Texts:
    """The cat is under the table."""
    noun = pick(rng, "animal", "object", "clothes", "food")
    many = rng.random() < 0.3
    be = {x: forms[many] for x, forms in BE["state"].items()}
    return sentence(the(noun, many), be, somewhere(rng))


def where(rng: random.Random) -> Texts:
    """Where is the station? Where are my shoes?"""
    ask = (
        words("where is", "dónde está", "où est", "dov'è", "onde está"),
        words("where are", "dónde están", "où sont", "dove sono", "onde estão"),
    )
    if rng.random() < 0.4:
        return sentence(ask[0], the(pick(rng, "place")), end="?")
    noun, many = pick(rng, "object", "clothes", "animal", "vehicle"), rng.random() < 0.4
    return sentence(ask[many], own(rng.choice(("my", "your", "our")), noun, many), end="?")


def wish(rng: random.Random) -> Texts:
    """I would like a coffee, please."""
    noun = pick(rng, "food", "drink", "clothes", "object")
    want = words("I would like", "quisiera", "je voudrais", "vorrei", "eu gostaria de")
    please = words(", please", ", por favor", ", s'il vous plaît", ", per favore", ", por favor")
    thing = one(noun)
    return sentence(want, same(lambda x: thing[x] + please[x]))


def question(rng: random.Random) -> Texts:
    """Do you have a red pen?"""
    ask = words("do you have", "tienes", "tu as", "hai", "você tem")
    return sentence(ask, counted(rng, *THINGS), end="?")


def price(rng: random.Random) -> Texts:
    """The shirt costs twenty euros."""
    noun, many = pick(rng, "clothes", "object", "food", "furniture"), rng.random() < 0.3
    number = rng.choice(slots("number")[1:])
    costs = (
        words("costs", "cuesta", "coûte", "costa", "custa"),
        words("cost", "cuestan", "coûtent", "costano", "custam"),
    )
    euros = words("euros", "euros", "euros", "euro", "euros")
    return sentence(the(noun, many), costs[many], number, euros)


def comparison(rng: random.Random) -> Texts:
    """The horse is bigger than the dog."""
    noun = pick(rng, "animal", "vehicle", "object", "furniture", "clothes")
    other = rng.choice([n for n in nouns() if n.category == noun.category and n != noun])
    adjective = rng.choice(
        [a for a in adjectives() if a.kind == "quality" and noun.category in a.fits]
    )
    thing, rival = the(noun), the(other)
    special = {"grande": "maior", "pequeno": "menor"}

    def build(x: str) -> str:
        form = adjective.forms[x][articles.form(noun.gender[x][0], False)]
        is_so = BE["quality"][x][0]
        if x == "en":
            return f"{is_so} {adjective.comparative or form} than {rival[x]}"
        if x == "pt":
            base = adjective.forms[x][0]
            more = special.get(base, f"mais {form}")
            return f"{is_so} {more} do que {rival[x]}"
        than = articles.contract("it", "di", rival[x]) if x == "it" else f"que {rival[x]}"
        more = {"es": "más", "fr": "plus", "it": "più"}[x]
        return f"{is_so} {more} {form} {than}"

    return sentence(thing, same(build))


def thing(rng: random.Random) -> Texts:
    """A noun with its article: the red car, three apples, a cat."""
    noun = pick(rng, *COUNTED, "body", "family")
    if rng.random() < 0.4:
        return the(noun, rng.random() < 0.3)
    return counted(rng, noun.category) if noun.category in COUNTED else one(noun)
