"""Sentences of the grammar: agreement, articles and the words that melt, checked against sentences
that were written by hand."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from scripts.nano.corpus import articles, choices, grammar, phrases, plurals, times
from scripts.nano.corpus.languages import LANGUAGES
from scripts.nano.corpus.lexicon import (
    Adjective,
    Noun,
    adjectives,
    intransitives,
    nouns,
    slots,
    verbs,
)  # fmt: skip


def noun(name: str) -> Noun:
    return choices.named(name)


def adjective(name: str) -> Adjective:
    return next(a for a in adjectives() if a.name == name)


@pytest.mark.parametrize(
    ("language", "word", "expected"),
    [
        ("en", "box", "boxes"), ("en", "butterfly", "butterflies"), ("en", "toy", "toys"),
        ("es", "pez", "peces"), ("es", "ratón", "ratones"), ("es", "autobús", "autobuses"),
        ("es", "árbol", "árboles"), ("es", "sofá", "sofás"), ("fr", "cheval", "chevaux"),
        ("fr", "oiseau", "oiseaux"), ("fr", "nez", "nez"), ("it", "parco", "parchi"),
        ("it", "mucca", "mucche"), ("it", "specchio", "specchi"), ("it", "città", "città"),
        ("it", "cane", "cani"), ("pt", "leão", "leões"), ("pt", "jardim", "jardins"),
        ("pt", "hotel", "hotéis"), ("pt", "hospital", "hospitais"), ("pt", "mulher", "mulheres"),
        ("pt", "francês", "franceses"),
    ],
)  # fmt: skip
def test_plurals(language: str, word: str, expected: str) -> None:
    assert plurals.plural(language, word) == expected


def test_adjectives_have_four_forms_that_agree() -> None:
    assert plurals.adjective_forms("es", "rojo") == ("rojo", "roja", "rojos", "rojas")
    assert plurals.adjective_forms("fr", "gris") == ("gris", "grise", "gris", "grises")
    assert plurals.adjective_forms("it", "verde") == ("verde", "verde", "verdi", "verdi")
    assert plurals.adjective_forms("pt", "azul") == ("azul", "azul", "azuis", "azuis")
    assert adjective("white").forms["fr"] == ("blanc", "blanche", "blancs", "blanches")


@pytest.mark.parametrize(
    ("name", "many", "expected"),
    [
        ("eagle", False, ("the eagle", "el águila", "l'aigle", "l'aquila", "a águia")),
        ("owl", False, ("the owl", "el búho", "le hibou", "il gufo", "a coruja")),
        ("mirror", True, ("the mirrors", "los espejos", "les miroirs", "gli specchi",
                          "os espelhos")),
        ("egg", True, ("the eggs", "los huevos", "les œufs", "le uova", "os ovos")),
        ("hand", True, ("the hands", "las manos", "les mains", "le mani", "as mãos")),
        ("squirrel", False, ("the squirrel", "la ardilla", "l'écureuil", "lo scoiattolo",
                             "o esquilo")),
    ],
)  # fmt: skip
def test_definite_articles(name: str, many: bool, expected: tuple[str, ...]) -> None:
    assert tuple(phrases.the(noun(name), many).values()) == expected


@pytest.mark.parametrize(
    ("name", "quality", "expected"),
    [
        ("car", "white", ("a white car", "un coche blanco", "une voiture blanche",
                          "una macchina bianca", "um carro branco")),
        ("island", "small", ("a small island", "una isla pequeña", "une petite île",
                             "un'isola piccola", "uma ilha pequena")),
        ("shelf", "old", ("an old shelf", "un estante viejo", "une étagère ancienne",
                          "uno scaffale vecchio", "uma prateleira velha")),
    ],
)  # fmt: skip
def test_adjectives_stand_where_the_language_puts_them(
    name: str, quality: str, expected: tuple[str, ...]
) -> None:
    assert tuple(phrases.one(noun(name), adjective(quality)).values()) == expected


def test_numbers_agree() -> None:
    assert phrases.several(2, noun("house"), adjective("yellow")) == {
        "en": "two yellow houses", "es": "dos casas amarillas", "fr": "deux maisons jaunes",
        "it": "due case gialle", "pt": "duas casas amarelas",
    }  # fmt: skip


def test_predicates_take_the_right_copula() -> None:
    door = noun("door")
    assert phrases.predicate(door, True, adjective("open"))["es"] == "están abiertas"
    assert phrases.predicate(door, True, adjective("new"))["pt"] == "são novas"
    # An egg is masculine in Italian, eggs are feminine.
    assert phrases.predicate(noun("egg"), False, adjective("hot"))["it"] == "è caldo"
    assert phrases.predicate(noun("egg"), True, adjective("hot"))["it"] == "sono calde"


@pytest.mark.parametrize(
    ("language", "preposition", "phrase", "expected"),
    [
        ("es", "debajo de", "el árbol", "debajo del árbol"), ("es", "a", "el cine", "al cine"),
        ("es", "cerca de", "la casa", "cerca de la casa"), ("fr", "à", "le parc", "au parc"),
        ("fr", "près de", "les parcs", "près des parcs"), ("fr", "à", "l'école", "à l'école"),
        ("it", "davanti a", "l'albero", "davanti all'albero"), ("it", "in", "lo zoo", "nello zoo"),
        ("it", "su", "gli alberi", "sugli alberi"), ("it", "sotto", "il letto", "sotto il letto"),
        ("it", "di", "lo squalo", "dello squalo"), ("it", "da", "i cani", "dai cani"),
        ("pt", "em", "a caixa", "na caixa"), ("pt", "perto de", "os carros", "perto dos carros"),
        ("pt", "a", "a praia", "à praia"), ("pt", "a", "o cinema", "ao cinema"),
        ("pt", "a", "as duas horas", "às duas horas"), ("en", "in", "the box", "in the box"),
    ],
)  # fmt: skip
def test_prepositions_melt_with_articles(
    language: str, preposition: str, phrase: str, expected: str
) -> None:
    assert articles.contract(language, preposition, phrase) == expected


def test_subjects_and_negation() -> None:
    have = next(verb for verb in verbs() if verb.name == "have")
    assert phrases.clause("I", have) == {
        "en": "I have", "es": "tengo", "fr": "j'ai", "it": "ho", "pt": "eu tenho",
    }  # fmt: skip
    assert phrases.clause("she", have, negative=True) == {
        "en": "she does not have", "es": "ella no tiene", "fr": "elle n'a pas",
        "it": "lei non ha", "pt": "ela não tem",
    }  # fmt: skip


def test_possessives() -> None:
    assert phrases.own("my", noun("island"))["fr"] == "mon île"
    assert phrases.own("my", noun("island"))["it"] == "la mia isola"
    assert phrases.own("our", noun("mother"))["it"] == "nostra madre"
    assert phrases.own("my", noun("brother"), many=True)["it"] == "i miei fratelli"
    assert phrases.own("your", noun("shoe"), many=True)["pt"] == "seus sapatos"


def test_hours() -> None:
    assert times.hour_of(1)["pt"] == "a uma hora"
    assert articles.contract("it", "a", times.hour_of(1)["it"]) == "all'una"
    assert articles.contract("pt", "a", times.hour_of(2)["pt"]) == "às duas horas"


def test_no_two_nouns_share_a_word() -> None:
    """Or a translation back would have two answers."""
    for language in LANGUAGES:
        counts = Counter(entry.one[language] for entry in nouns())
        assert [word for word, count in counts.items() if count > 1] == []


def test_lexicon_is_large_and_whole() -> None:
    assert len(nouns()) > 280
    categories = {entry.category for entry in nouns()}
    for entry in adjectives():
        assert entry.fits <= categories
        assert set(entry.forms) == set(LANGUAGES)
    for verb in (*verbs(), *intransitives()):
        assert verb.objects <= categories
    assert {len(forms) for verb in verbs() for forms in verb.forms.values()} == {5}
    assert len(slots("number")) >= 20


@pytest.mark.parametrize("template", list(grammar.TEMPLATES), ids=lambda t: t.__name__)
def test_every_template_makes_clean_sentences(template: grammar.Template) -> None:
    rng = random.Random(7)
    for _ in range(150):
        texts = template(rng)
        assert tuple(texts) == LANGUAGES
        for language, words in texts.items():
            assert words == words.strip()
            assert "  " not in words
            assert len(words) < 90
            if language != "fr":
                assert " ?" not in words
        # What has to be melted or elided is.
        assert not any(f" {pair} " in texts["es"] for pair in ("de el", "a el"))
        assert not any(f" {pair} " in texts["fr"] for pair in ("de le", "à le", "de les"))
        assert not any(f" {pair} " in texts["pt"] for pair in ("de o", "em a", "a a", "em o"))
        assert not any(f" {pair} " in texts["it"] for pair in ("di il", "in la", "a il", "su il"))
