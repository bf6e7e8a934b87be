"""Sentences about everyday things, said in five languages at once.

In: the lexicon and a random state. Out: `Texts`, one meaning in every language, agreeing in
gender and number. Every sentence is built from its meaning; none is translated.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from scripts.nano.corpus import people, things, times
from scripts.nano.corpus.lexicon import phrases
from scripts.nano.corpus.phrases import Texts


def everyday(rng: random.Random) -> Texts:
    """A whole phrase of the list."""
    return rng.choice(phrases())


Template = Callable[[random.Random], Texts]

TEMPLATES: dict[Template, float] = {
    things.description: 3, things.possession: 2, people.relatives: 1, things.existence: 2.5,
    things.position: 2, people.action: 4, people.doing: 2, things.where: 1, people.going: 1,
    people.liking: 1, things.wish: 0.6, things.question: 1, things.price: 0.8, times.clock: 0.4,
    people.age: 0.3, people.feeling: 0.3, times.weather: 0.8, times.calendar: 0.2,
    things.comparison: 1.5, everyday: 0.4, things.thing: 2,
}  # fmt: skip
"""What makes a sentence, and how often."""


def make(rng: random.Random) -> Texts:
    """One meaning in five languages."""
    template = rng.choices(list(TEMPLATES), list(TEMPLATES.values()))[0]
    return template(rng)
