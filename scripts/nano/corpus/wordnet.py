"""Read WordNet 3.0 database files into dictionary entries.

In: the folder with `data.*`, `index.*` and `cntlist.rev` (format: WordNet manual pages wndb(5WN),
cntlist(5WN)). Out: one `Entry` per headword and part of speech, with its most frequent sense.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

PARTS = {"noun": "1", "verb": "2", "adj": "3", "adv": "4"}  # file suffix -> digit in sense keys
UNWANTED = re.compile(r"offensive|slur|disparag|obscene|vulgar|taboo|slang|derogatory|sexual")
# Lexicographer files of nouns for what one can see or touch: animal, artifact, body, food, place,
# object, person, plant, substance.
CONCRETE = frozenset("05 06 08 13 15 17 18 20 27".split())
HEADWORD = re.compile(r"[A-Za-z][a-z]+(-[a-z]+)?")


@dataclass
class Entry:
    """The most frequent sense of a headword in one part of speech."""

    word: str
    part: str
    gloss: str
    frequency: int  # times this sense was tagged in the texts behind WordNet
    concrete: bool  # a noun for something one can see or touch
    examples: list[str] = field(default_factory=list)
    synonym: str = ""
    antonym: str = ""
    kind: str = ""  # a more general noun


def clean_gloss(text: str) -> tuple[str, list[str]]:
    """Split a WordNet gloss into its first definition and its quoted example phrases."""
    examples = re.findall(r'"([^"]+)"', text)
    definition = re.sub(r'"[^"]*"?', "", text)
    definition = re.sub(r"\([^()]*\)", "", definition).split(";")[0]
    definition = re.sub(r"\s+", " ", definition).strip(" ,:-.`'")
    return definition, examples


class Synset(NamedTuple):
    """One line of a data file."""

    file: str  # lexicographer file number
    words: list[str]
    pointers: list[tuple[str, str, str]]  # symbol, offset, part of speech
    gloss: str


def read_synsets(path: Path) -> dict[str, Synset]:
    """Return the synsets of one part of speech by offset."""
    synsets = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if line.startswith("  "):
            continue  # licence header
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        count = int(fields[3], 16)
        words = [re.sub(r"\(.*\)", "", w) for w in fields[4 : 4 + 2 * count : 2]]
        start = 5 + 2 * count
        size = int(fields[start - 1])
        pointers = [
            (fields[start + 4 * i], fields[start + 4 * i + 1], fields[start + 4 * i + 2])
            for i in range(size)
        ]
        synsets[fields[0]] = Synset(fields[1], words, pointers, gloss)
    return synsets


def first_sense_counts(path: Path) -> Counter[tuple[str, str]]:
    """Return how often the first sense of (lemma, part digit) was tagged."""
    counts: Counter[tuple[str, str]] = Counter()
    for line in path.read_text(encoding="latin-1").splitlines():
        key, sense, count = line.split()
        lemma, _, rest = key.partition("%")
        if sense == "1":
            counts[lemma, rest[0].replace("5", "3")] += int(count)
    return counts


def read_entries(folder: Path) -> list[Entry]:
    """Return the first senses of all one-word headwords, in file order."""
    counts = first_sense_counts(folder / "cntlist.rev")
    entries = []
    for part, digit in PARTS.items():
        synsets = read_synsets(folder / f"data.{part}")
        for line in (folder / f"index.{part}").read_text(encoding="latin-1").splitlines():
            fields = line.split()
            if line.startswith("  ") or not HEADWORD.fullmatch(fields[0]):
                continue
            senses = int(fields[2])
            file, words, pointers, gloss = synsets[fields[-senses]]
            word = next((w for w in words if w.lower() == fields[0]), fields[0])
            definition, examples = clean_gloss(gloss)
            if not 2 <= len(definition.split()) <= 25 or not HEADWORD.fullmatch(word):
                continue
            if UNWANTED.search(gloss):
                continue
            concrete = part == "noun" and file in CONCRETE
            frequency = counts[fields[0], digit]
            entry = Entry(word, part, definition, frequency, concrete, examples)
            others = [w for w in words if w.lower() != fields[0] and HEADWORD.fullmatch(w)]
            entry.synonym = others[0] if others else ""
            for symbol, offset, target in pointers:
                if offset in synsets and target == part[0]:
                    name = synsets[offset].words[0].replace("_", " ")
                    if symbol == "!" and not entry.antonym:
                        entry.antonym = name
                    if symbol == "@" and not entry.kind:
                        entry.kind = name
            entries.append(entry)
    return entries
