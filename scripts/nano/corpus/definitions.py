"""Questions about English words, from WordNet; small talk; who the model is.

In: the WordNet database, the ChatterBot corpus. Out: `train/words.jsonl`, `train/talk.jsonl`,
`heldout/words.jsonl`. Held out is every headword with a certain hash, and no training row has the
definition of one.
"""

from __future__ import annotations

import random
from pathlib import Path

from scripts.nano.corpus import rows, wordnet
from scripts.nano.corpus.wordnet import Entry

WORDS = 9_000  # the most frequent, things that one can see or touch first
LETTERS = 110  # of a definition, at most
HELD_OUT_ROWS = 400
NAME = "Matryo Nano"
INTRODUCTION = {
    "en": [("Who are you?", f"I am {NAME}, a very small model."), ("Hello!", "Hello!"),
           ("What can you do?", "I name pictures, write down speech and translate sentences."),
           ("What is your name?", f"My name is {NAME}.")],
    "es": [("¿Quién eres?", f"Soy {NAME}, un modelo muy pequeño."), ("¡Hola!", "¡Hola!"),
           ("¿Cómo te llamas?", f"Me llamo {NAME}.")],
    "fr": [("Qui es-tu ?", f"Je suis {NAME}, un très petit modèle."), ("Bonjour !", "Bonjour !"),
           ("Comment t'appelles-tu ?", f"Je m'appelle {NAME}.")],
    "it": [("Chi sei?", f"Sono {NAME}, un modello molto piccolo."), ("Ciao!", "Ciao!"),
           ("Come ti chiami?", f"Mi chiamo {NAME}.")],
    "pt": [("Quem é você?", f"Eu sou {NAME}, um modelo muito pequeno."), ("Olá!", "Olá!"),
           ("Qual é o seu nome?", f"Meu nome é {NAME}.")],
}  # fmt: skip


def article(word: str) -> str:
    """The word with its indefinite article."""
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def definition(entry: Entry, rng: random.Random) -> rows.Row:
    """What a word means."""
    word, gloss = entry.word, entry.gloss
    if entry.part == "noun":
        counted = gloss.startswith(("a ", "an ")) and word[0].islower()
        name = article(word) if counted else word
        asked = rng.choice((f"What is {name}?", f"Define {word}."))
    elif entry.part == "verb":
        asked = f"What does it mean to {word}?"
    else:
        asked = f"What does {word} mean?"
    return rows.chat("definition", "en", asked, f"{gloss[0].upper()}{gloss[1:]}.")


def relations(entry: Entry) -> list[rows.Row]:
    """Its opposite, a synonym, what kind of thing it is."""
    found = []
    if entry.antonym:
        asked = f"What is the opposite of {entry.word}?"
        found.append(rows.chat("opposite", "en", asked, entry.antonym))
    if entry.synonym:
        asked = f"Another word for {entry.word}?"
        found.append(rows.chat("synonym", "en", asked, entry.synonym))
    if entry.kind and entry.word[0].islower():
        asked = f"What kind of thing is {entry.word}?"
        found.append(rows.chat("kind", "en", asked, entry.kind))
    return found


def common(entries: list[Entry], number: int) -> list[Entry]:
    """The most frequent words, concrete ones first."""

    def weight(entry: Entry) -> tuple[int, str, str]:
        share = 10 if entry.concrete else 2 if entry.part == "noun" else 1
        return -share * entry.frequency, entry.word, entry.part

    return sorted((e for e in entries if len(e.gloss) <= LETTERS), key=weight)[:number]


def talk(folder: Path) -> list[rows.Row]:
    """Short conversations of two turns, and the introduction."""
    import yaml  # type: ignore[import-untyped, import-not-found, unused-ignore]

    found = []
    for path in sorted(folder.rglob("*.yml")):
        for turns in yaml.safe_load(path.read_text("utf-8"))["conversations"]:
            texts = [str(turn).strip() for turn in turns][:2]
            if len(texts) == 2 and max(map(len, texts)) < 200:
                found.append(rows.dialogue("talk", "en", texts))
    for language, turns in INTRODUCTION.items():
        found += [rows.dialogue("talk", language, turn) for turn in turns] * 10
    return found


def build(sources: Path, cache: Path, limit: int) -> None:
    """Write the rows; of `limit` words if not 0."""
    folder = next((sources / "wordnet").rglob("data.noun")).parent
    entries = common(wordnet.read_entries(folder), limit or WORDS)
    secret = {e.word.lower() for e in entries if rows.is_held_out("word", e.word.lower())}
    glosses = {e.gloss for e in entries if e.word.lower() in secret}
    train, held = [], []
    for entry in entries:
        rng = rows.generator(f"{entry.word} {entry.part}")
        if entry.word.lower() in secret:
            held.append(definition(entry, rng))
        elif entry.gloss not in glosses:
            train += [definition(entry, rng), *relations(entry)]
    rows.write(cache / "train" / "words.jsonl", train, order="words")
    rows.write(cache / "heldout" / "words.jsonl", held, "words", HELD_OUT_ROWS)
    rows.write(cache / "train" / "talk.jsonl", talk(sources / "chatterbot"), order="talk")
