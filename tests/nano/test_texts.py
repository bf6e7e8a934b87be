"""Facts, definitions and prose: what is asked is right, and held out as a whole."""

from __future__ import annotations

import random
import re

from scripts.nano.corpus import definitions, knowledge, prose, rows
from scripts.nano.corpus.languages import LANGUAGES
from scripts.nano.corpus.wordnet import Entry


def test_sums_are_right_in_every_language() -> None:
    signs = {
        word: sign
        for _, *words in knowledge.SUM.values()
        for word, sign in zip(words, ("+", "-", "*"), strict=True)
    }
    made = list(knowledge.sums())
    assert {row["lang"] for _, row in made} == set(LANGUAGES)
    for _, row in made:
        found = re.search(r"(\d+) (\S+) (\d+)", rows.texts(row)[0])
        assert found is not None
        first, word, second = found.groups()
        operation = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}[signs[word]]
        assert rows.answer(row) == str(operation(int(first), int(second)))
        assert int(rows.answer(row)) >= 0


def test_a_sum_and_its_exchange_have_one_key() -> None:
    keys = {rows.texts(row)[0]: key for key, row in knowledge.sums()}
    assert keys["What is 3 plus 4?"] == keys["What is 4 plus 3?"] == keys["¿Cuánto es 4 más 3?"]
    assert keys["What is 7 minus 4?"] != keys["What is 7 minus 3?"]
    assert keys["What is 3 times 4?"] != keys["What is 3 plus 4?"]


def test_sequences_go_on_in_both_directions() -> None:
    answers = {rows.texts(row)[0]: rows.answer(row) for _, row in knowledge.sequences()}
    assert answers["What comes after Monday?"] == "Tuesday"
    assert answers["O que vem antes de terça-feira?"] == "segunda-feira"
    assert answers["Cosa viene dopo novembre?"] == "dicembre"
    assert answers["Qu'est-ce qui vient après deux ?"] == "trois"


def test_word_forms() -> None:
    answers = {rows.texts(row)[0]: rows.answer(row) for _, row in knowledge.word_forms()}
    assert answers["Plural of ratón?"] == "ratones"
    assert answers["Plural of uovo?"] == "uova"
    assert answers["Spell cat."] == "c a t"
    assert "Plural of water?" not in answers


def entry(word: str, gloss: str, part: str = "noun", frequency: int = 1) -> Entry:
    return Entry(word, part, gloss, frequency, concrete=False, antonym="cold", kind="animal")


def test_definitions_and_relations() -> None:
    row = definitions.definition(entry("otter", "a mammal that swims"), random.Random(0))
    assert rows.texts(row)[0] in ("What is an otter?", "Define otter.")
    assert rows.answer(row) == "A mammal that swims."
    verb = definitions.definition(entry("run", "move fast", "verb"), random.Random(0))
    assert rows.texts(verb) == ["What does it mean to run?", "Move fast."]
    related = {row["task"]: rows.answer(row) for row in definitions.relations(entry("hot", "x"))}
    assert related == {"opposite": "cold", "kind": "animal"}


def test_frequent_words_come_first_and_long_definitions_not_at_all() -> None:
    rare, often = entry("rare", "x y"), entry("often", "x y", frequency=9)
    endless = entry("endless", "x" * 200, frequency=99)
    assert definitions.common([rare, endless, often], 5) == [often, rare]
    assert definitions.common([rare, often], 1) == [often]


def test_prose_is_cut_between_sentences() -> None:
    sentence = "The sea was calm and the sky was clear that day."
    made = list(prose.pieces([" ".join([sentence] * 30)]))
    assert " ".join(made) == " ".join([sentence] * 30)
    assert all(len(piece) <= prose.LETTERS and piece.endswith(".") for piece in made)
    assert len(made) > 3


def test_books_in_plain_punctuation() -> None:
    text = "\u201cCall me _Ishmael_\u201d\u2014he\r\nsaid.\n\n* * *\n\nEnd of the Project Gutenberg"
    assert prose.plain(text) == ['"Call me Ishmael"--he said.']
