"""Plurals of nouns and the four forms of adjectives in five languages.

In: a dictionary form. Out: the regular plural, or (masculine, feminine, masculine plural, feminine
plural). Words that do not follow these rules are spelled out in the lexicon.
Source: school grammar of each language.
"""

from __future__ import annotations

import re

VOWELS = "aeiouáéíóúàèìòùâêôãõ"
UNSTRESSED = str.maketrans("áéíóú", "aeiou")


def plural(language: str, word: str) -> str:
    """The regular plural of a noun or adjective."""
    return _PLURALS[language](word)


def english(word: str) -> str:
    """box -> boxes, city -> cities, cat -> cats."""
    if re.search(r"(s|x|ch|sh|to)$", word):
        return word + "es"
    return word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s"


def spanish(word: str) -> str:
    """gato -> gatos, flor -> flores, lápiz -> lápices, camión -> camiones, lunes -> lunes."""
    if word[-1] in VOWELS:
        return word + "s"
    if word.endswith("z"):
        return word[:-1] + "ces"
    if re.search(r"[áéíóú][ns]$", word):  # the stress is now where the rules expect it
        return word[:-2] + word[-2].translate(UNSTRESSED) + word[-1] + "es"
    return word + "es"


def french(word: str) -> str:
    """chat -> chats, cheval -> chevaux, château -> châteaux, nez -> nez."""
    if word[-1] in "sxz":
        return word
    if word.endswith("al"):
        return word[:-2] + "aux"
    return word + ("x" if re.search(r"(au|eu)$", word) else "s")


def italian(word: str) -> str:
    """gatto -> gatti, parco -> parchi, casa -> case, mucca -> mucche, città -> città."""
    if word[-1] not in "aeo":
        return word
    stem, last = word[:-1], word[-1]
    if stem[-1] in "cg" and last != "e":
        stem += "h"
    if last == "a":
        return stem + "e"
    return stem if stem.endswith("i") else stem + "i"


def portuguese(word: str) -> str:
    """gato -> gatos, flor -> flores, jardim -> jardins, leão -> leões, animal -> animais."""
    if word.endswith("ão"):
        return word[:-2] + "ões"
    if word.endswith("m"):
        return word[:-1] + "ns"
    if word[-1] in "rsz":
        return _without_circumflex(word) + "es"
    if word.endswith("el"):
        return word[:-2] + "éis"
    return word[:-1] + "is" if word.endswith("l") else word + "s"


def _without_circumflex(word: str) -> str:
    return word[:-2] + word[-2].translate(str.maketrans("êô", "eo")) + word[-1]


_PLURALS = {
    "en": english, "es": spanish, "fr": french, "it": italian, "pt": portuguese
}  # fmt: skip


def adjective_forms(language: str, word: str) -> tuple[str, str, str, str]:
    """(m, f, m plural, f plural) of an adjective whose forms are regular."""
    if language == "en":
        return word, word, word, word
    feminine = word
    if language == "fr":
        feminine = word if word.endswith("e") else word + "e"
    elif word.endswith("o"):
        feminine = word[:-1] + "a"
    return word, feminine, plural(language, word), plural(language, feminine)
