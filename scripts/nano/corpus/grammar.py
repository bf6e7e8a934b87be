"""Sentences about everyday things, said in five languages at once.

In: the lexicon and a random state. Out: `Texts`, one meaning in every language, agreeing in
gender and number. Every sentence is built from its meaning; none is translated.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from scripts.nano.corpus import articles
from scripts.nano.corpus.lexicon import (
    Adjective,
    Noun,
    adjectives,
    intransitives,
    nouns,
    slots,
    verbs,
)
from scripts.nano.corpus.lexicon import phrases as whole_phrases
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

COUNTED = "animal food drink clothes furniture opening object vehicle place nature person".split()
THINGS = frozenset("animal clothes furniture opening object vehicle".split())
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


def hour_of(hour: int) -> Texts:
    """The hour with its article or noun, as it follows `at`."""
    name = slots("number")[hour - 1]
    if hour == 1:
        return words("one o'clock", "la una", "une heure", "l'una", "a uma hora")
    portuguese = "duas" if hour == 2 else name["pt"]
    return words(
        f"{name['en']} o'clock", f"las {name['es']}", f"{name['fr']} heures",
        f"le {name['it']}", f"as {portuguese} horas",
    )  # fmt: skip


def clock(rng: random.Random) -> Texts:
    """It is three o'clock. The train leaves at five o'clock."""
    hour = rng.randint(1, 11)
    time = hour_of(hour)
    if rng.random() < 0.3:
        single = hour == 1
        is_now = words(
            "it is", "es" if single else "son", "il est", "è" if single else "sono",
            "é" if single else "são",
        )  # fmt: skip
        return sentence(is_now, {**time, "pt": time["pt"].split(" ", 1)[1]})
    vehicle = named(rng.choice(("train", "bus", "plane", "ship", "boat", "tram")))
    leaves = words("leaves", "sale", "part", "parte", "sai")
    at = words("at", "a", "à", "a", "a")
    return sentence(the(vehicle), leaves, after(at, time))


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


def weather(rng: random.Random) -> Texts:
    """Today it is raining. It is cold in Paris in winter."""
    what = rng.choice(slots("weather"))
    place, time = rng.choice(slots("city")), rng.choice(slots("when"))
    parts = rng.choice(((what, place), (time, what), (time, what, place)))
    return sentence(*parts)


def calendar(rng: random.Random) -> Texts:
    """Today is Monday. My birthday is in May."""
    if rng.random() < 0.4:
        today = words("today is", "hoy es", "aujourd'hui c'est", "oggi è", "hoje é")
        return sentence(today, rng.choice(slots("day")))
    owner, month = rng.choice(("my", "your")), rng.choice(slots("month"))
    first = owner == "my"
    start = words(
        f"{owner} birthday is in", f"{'mi' if first else 'tu'} cumpleaños es en",
        f"{'mon' if first else 'ton'} anniversaire est en",
        f"il {'mio' if first else 'tuo'} compleanno è a",
        f"{'meu' if first else 'seu'} aniversário é em",
    )  # fmt: skip
    return sentence(start, month)


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


def everyday(rng: random.Random) -> Texts:
    """A whole phrase of the list."""
    return rng.choice(whole_phrases())


def thing(rng: random.Random) -> Texts:
    """A noun with its article: the red car, three apples, a cat."""
    noun = pick(rng, *COUNTED, "body", "family")
    if rng.random() < 0.4:
        return the(noun, rng.random() < 0.3)
    return counted(rng, noun.category) if noun.category in COUNTED else one(noun)


Template = Callable[[random.Random], Texts]

TEMPLATES: dict[Template, float] = {
    description: 3, possession: 2, relatives: 1, existence: 2.5, position: 2, action: 4,
    doing: 2, where: 1, going: 1, liking: 1, wish: 0.6, question: 1, price: 0.8, clock: 0.4,
    age: 0.3, feeling: 0.3, weather: 0.8, calendar: 0.2, comparison: 1.5, everyday: 0.4,
    thing: 2,
}  # fmt: skip


def make(rng: random.Random) -> Texts:
    """One meaning in five languages."""
    template = rng.choices(list(TEMPLATES), list(TEMPLATES.values()))[0]
    return template(rng)
