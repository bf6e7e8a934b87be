"""Parts of sentences in five languages: nouns with their adjectives, subjects with their verbs.

In: entries of the lexicon. Out: `Texts`, the same phrase in every language.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from scripts.nano.corpus import articles
from scripts.nano.corpus.languages import LANGUAGES
from scripts.nano.corpus.lexicon import Adjective, Noun, Verb, slots

Texts = dict[str, str]

PERSONS: Final = ("I", "you", "he", "she", "we", "they")
FORM = {"I": 0, "you": 1, "he": 2, "she": 2, "we": 3, "they": 4}
# Spanish and Italian say only the pronouns that the verb does not tell.
PRONOUNS: Final[dict[str, tuple[str, ...]]] = {
    "en": PERSONS,
    "es": ("", "", "él", "ella", "", "ellos"),
    "fr": ("je", "tu", "il", "elle", "nous", "ils"),
    "it": ("", "", "lui", "lei", "", "loro"),
    "pt": ("eu", "você", "ele", "ela", "nós", "eles"),
}
BE: Final[dict[str, dict[str, tuple[str, str]]]] = {
    # kind of predicate -> (one, many)
    "quality": {
        "en": ("is", "are"), "es": ("es", "son"), "fr": ("est", "sont"), "it": ("è", "sono"),
        "pt": ("é", "são"),
    },
    "state": {
        "en": ("is", "are"), "es": ("está", "están"), "fr": ("est", "sont"),
        "it": ("è", "sono"), "pt": ("está", "estão"),
    },
}  # fmt: skip


def same(build: Callable[[str], str]) -> Texts:
    """A phrase built for every language."""
    return {language: build(language) for language in LANGUAGES}


def core(language: str, noun: Noun, many: bool, adjective: Adjective | None = None) -> str:
    """A noun, with its adjective where the language puts it, without an article."""
    word = (noun.many if many else noun.one)[language]
    if adjective is None:
        return word
    gender = noun.gender[language][many]
    quality = adjective.forms[language][articles.form(gender, many)]
    first = language == "en" or (language == "fr" and adjective.french_first)
    return f"{quality} {word}" if first else f"{word} {quality}"


def the(noun: Noun, many: bool = False, adjective: Adjective | None = None) -> Texts:
    """The (red) car, the (red) cars."""

    def build(x: str) -> str:
        text = core(x, noun, many, adjective)
        return articles.definite(x, noun.gender[x][many], many, text)

    return same(build)


def one(noun: Noun, adjective: Adjective | None = None) -> Texts:
    """A (red) car."""
    return same(
        lambda x: articles.indefinite(x, noun.gender[x][0], core(x, noun, False, adjective))
    )


def several(number: int, noun: Noun, adjective: Adjective | None = None) -> Texts:
    """Two to twelve (red) cars."""
    word = slots("number")[number - 1]

    def build(x: str) -> str:
        digit = word[x]
        if x == "pt" and number == 2 and noun.gender[x][1] == "f":
            digit = "duas"
        return f"{digit} {core(x, noun, True, adjective)}"

    return same(build)


def own(owner: str, noun: Noun, many: bool = False) -> Texts:
    """My, your or our car(s). Italian says no article before one member of the family."""

    def build(x: str) -> str:
        text = articles.possessive(x, owner, noun.gender[x][many], many, core(x, noun, many))
        if x == "it" and noun.category == "family" and not many:
            text = text.removeprefix("il ").removeprefix("la ").removeprefix("l'")
        return text

    return same(build)


def some(noun: Noun) -> Texts:
    """Water, bread: an amount."""
    return same(
        lambda x: articles.partitive(noun.gender[x][0], noun.one[x]) if x == "fr" else noun.one[x]
    )


def predicate(noun: Noun, many: bool, adjective: Adjective) -> Texts:
    """Is red, are tired: as said of the noun."""
    be = BE["state" if adjective.kind == "state" else "quality"]

    def build(x: str) -> str:
        gender = noun.gender[x][many]
        return f"{be[x][many]} {adjective.forms[x][articles.form(gender, many)]}"

    return same(build)


def after(preposition: Texts, phrase: Texts) -> Texts:
    """A preposition before a phrase, melted with its article."""
    return same(lambda x: articles.contract(x, preposition[x], phrase[x]))


def clause(person: str, verb: Verb, negative: bool = False) -> Texts:
    """I see, I do not see: the subject's pronoun and the verb."""

    def build(x: str) -> str:
        word = verb.forms[x][FORM[person]]
        if x == "en":
            does = "does" if FORM[person] == 2 else "do"
            return f"{person} {does} not {verb.forms[x][0]}" if negative else f"{person} {word}"
        return negated(x, person, word) if negative else joined(x, pronoun(x, person), word)

    return same(build)


def pronoun(language: str, person: str) -> str:
    """The subject's pronoun, empty where it is left out."""
    return PRONOUNS[language][PERSONS.index(person)]


def negated(language: str, person: str, word: str) -> str:
    """A Romance verb with its pronoun and its negation."""
    subject = pronoun(language, person)
    if language == "fr":
        ne = "n'" if articles.begins_with_vowel("fr", word) else "ne "
        return f"{subject} {ne}{word} pas"
    no = {"es": "no", "it": "non", "pt": "não"}[language]
    return joined(language, subject, f"{no} {word}")


def joined(language: str, subject: str, verb: str) -> str:
    """A pronoun and a verb: je + ai -> j'ai; an empty pronoun adds nothing."""
    if language == "fr" and subject == "je" and articles.begins_with_vowel("fr", verb):
        return f"j'{verb}"
    return f"{subject} {verb}".strip()


def sentence(*parts: Texts, end: str = ".") -> Texts:
    """Parts joined to a sentence with a capital letter and its marks (`.`, `?`)."""

    def build(x: str) -> str:
        text = " ".join(part[x] for part in parts if part[x])
        text = text[0].upper() + text[1:]
        if end == "?":
            return f"¿{text}?" if x == "es" else f"{text} ?" if x == "fr" else f"{text}?"
        return text + end

    return same(build)


def words(en: str, es: str, fr: str, it: str, pt: str) -> Texts:
    """One phrase, spelled out in every language."""
    return {"en": en, "es": es, "fr": fr, "it": it, "pt": pt}
