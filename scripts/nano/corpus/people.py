"""Sentences about people: what they do, have, like and feel, where they go."""

from __future__ import annotations

import random

from scripts.nano.corpus.choices import counted, fitting, named, pick
from scripts.nano.corpus.lexicon import (
    intransitives,
    nouns,
    slots,
    verbs,
)
from scripts.nano.corpus.phrases import (
    BE,
    FORM,
    PERSONS,
    Texts,
    after,
    clause,
    core,
    joined,
    negated,
    one,
    own,
    predicate,
    pronoun,
    same,
    sentence,
    several,
    some,
    the,
    words,
)  # fmt: skip

# Places that one goes `to` with the plain preposition in every language.
DESTINATIONS = frozenset(
    "station airport market hospital restaurant museum cinema theatre park hotel beach castle "
    "university farm".split()
)
PROFESSIONS = frozenset(
    "doctor teacher student cook farmer singer writer painter pilot soldier fireman policeman "
    "waiter dentist".split()
)
TO = words("to", "a", "à", "a", "a")
GO = {
    "en": ("am going", "are going", "is going", "are going", "are going"),
    "es": ("voy", "vas", "va", "vamos", "van"), "fr": ("vais", "vas", "va", "allons", "vont"),
    "it": ("vado", "vai", "va", "andiamo", "vanno"), "pt": ("vou", "vai", "vai", "vamos", "vão"),
}  # fmt: skip
FEEL = {
    "en": ("am", "are", "is", "are", "are"),
    "es": ("tengo", "tienes", "tiene", "tenemos", "tienen"),
    "fr": ("ai", "as", "a", "avons", "ont"), "it": ("ho", "hai", "ha", "abbiamo", "hanno"),
    "pt": ("estou", "está", "está", "estamos", "estão"),
}  # fmt: skip


def relatives(rng: random.Random) -> Texts:
    """My mother is tired. Your brother is a doctor."""
    noun, owner = pick(rng, "family"), rng.choice(("my", "your", "our"))
    if noun.gender["es"][0] == "m" and rng.random() < 0.5:
        work = rng.choice([n for n in nouns() if n.name in PROFESSIONS])
        profession = same(lambda x: one(work)[x] if x == "en" else core(x, work, False))
        be = {x: forms[0] for x, forms in BE["quality"].items()}
        return sentence(own(owner, noun), be, profession)
    many = noun.name not in ("mother", "father") and rng.random() < 0.3
    adjective = fitting(rng, noun, "state")
    assert adjective is not None
    return sentence(own(owner, noun, many), predicate(noun, many, adjective))


def action(rng: random.Random) -> Texts:
    """She buys three green apples. I do not see the dog. We drink water."""
    verb, person = rng.choice(verbs()), rng.choice(PERSONS)
    noun = pick(rng, *verb.objects)
    if noun.category in ("mass", "edible") or verb.name == "drink":
        return sentence(clause(person, verb), some(noun))
    if rng.random() < 0.25:
        return sentence(clause(person, verb, negative=True), the(noun))
    if rng.random() < 0.4 or verb.name == "love":
        return sentence(clause(person, verb), the(noun, verb.name == "love"))
    return sentence(clause(person, verb), counted(rng, noun.category))


def doing(rng: random.Random) -> Texts:
    """The boy sleeps in the garden. Two dogs run."""
    verb = rng.choice(intransitives())
    noun = pick(rng, *verb.objects)
    if noun.category == "family":
        many, subject = False, own(rng.choice(("my", "your", "our")), noun)
    elif rng.random() < 0.3:
        many, subject = True, several(rng.randint(2, 12), noun)
    else:
        many = rng.random() < 0.3
        subject = the(noun, many)
    act = same(lambda x: verb.forms[x][many])
    if rng.random() < 0.5:
        return sentence(subject, act)
    preposition = words("in", "en", "dans", "in", "em")
    places = ("garden", "park", "kitchen", "house", "forest", "street", "castle", "farm")
    return sentence(subject, act, after(preposition, the(named(rng.choice(places)))))


def going(rng: random.Random) -> Texts:
    """I am going to the market. On Monday we are going to the beach."""
    person = rng.choice(PERSONS)
    place = rng.choice([noun for noun in nouns() if noun.name in DESTINATIONS])
    go = same(lambda x: joined(x, pronoun(x, person), GO[x][FORM[person]]))
    target = after(TO, the(place))
    if rng.random() < 0.5:
        return sentence(go, target)
    day = rng.choice(slots("day"))
    weekend = day["en"] in ("Saturday", "Sunday")
    on = words(
        f"on {day['en']}", f"el {day['es']}", day["fr"], day["it"],
        f"{'no' if weekend else 'na'} {day['pt']}",
    )  # fmt: skip
    return sentence(on, go, target)


def liking(rng: random.Random) -> Texts:
    """I like cats. You do not like coffee."""
    noun = pick(rng, "animal", "food", "drink", "mass", "edible")
    many, first, yes = noun.category in ("animal", "food"), rng.random() < 0.6, rng.random() < 0.7
    thing = {**the(noun, many), "en": (noun.many if many else noun.one)["en"]}
    thing["pt"] = (noun.many if many else noun.one)["pt"]
    person = "I" if first else "you"
    verb = {
        "es": f"{'me' if first else 'te'} gusta{'n' * many}",
        "it": f"{'mi' if first else 'ti'} {'piacciono' if many else 'piace'}",
        "pt": f"{'gosto' if first else 'gosta'} de",
    }
    texts = {
        "en": f"{person} {'like' if yes else 'do not like'}",
        "es": verb["es"] if yes else f"no {verb['es']}",
        "it": verb["it"] if yes else f"non {verb['it']}",
        "pt": f"{'eu' if first else 'você'} {'' if yes else 'não '}{verb['pt']}",
    }
    love = "aime" if first else "aimes"
    texts["fr"] = joined("fr", pronoun("fr", person), love) if yes else negated("fr", person, love)
    return sentence(texts, thing)


def age(rng: random.Random) -> Texts:
    """I am twenty years old."""
    person, number = rng.choice(PERSONS), rng.choice(slots("number")[1:])
    have = next(verb for verb in verbs() if verb.name == "have")

    def build(x: str) -> str:
        if x == "en":
            return f"{person} {FEEL[x][FORM[person]]} {number[x]} years old"
        years = {"es": "años", "fr": "ans", "it": "anni", "pt": "anos"}[x]
        verb = joined(x, pronoun(x, person), have.forms[x][FORM[person]])
        return f"{verb} {number[x]} {years}"

    return sentence(same(build))


def feeling(rng: random.Random) -> Texts:
    """She is hungry. I am not thirsty."""
    person, how, no = rng.choice(PERSONS), rng.choice(slots("feeling")), rng.random() < 0.3

    def build(x: str) -> str:
        verb = FEEL[x][FORM[person]]
        if x == "en":
            return f"{person} {verb}{' not' * no} {how[x]}"
        text = negated(x, person, verb) if no else joined(x, pronoun(x, person), verb)
        return f"{text} {how[x]}"

    return sentence(same(build))
