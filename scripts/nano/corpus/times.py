"""Sentences about hours, days, months and the weather."""

from __future__ import annotations

import random

from scripts.nano.corpus.choices import named
from scripts.nano.corpus.lexicon import (
    slots,
)
from scripts.nano.corpus.phrases import (
    Texts,
    after,
    sentence,
    the,
    words,
)  # fmt: skip


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
