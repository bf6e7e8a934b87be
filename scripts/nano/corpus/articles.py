"""Articles, possessives and the words that melt into them, in five languages.

In: gender, number and the word that follows. Out: the text with the article before it, spaced or
elided as it is written. Source: school grammar of each language.
"""

from __future__ import annotations

import re

# French words whose h keeps the article apart; Spanish feminine words that begin with a stressed a.
ASPIRATED = ("hibou", "homard", "hérisson", "hamster", "haricot")
STRESSED_A = ("agua", "águila", "hacha", "aula")

DEFINITE = {
    "es": ("el", "la", "los", "las"), "fr": ("le", "la", "les", "les"),
    "pt": ("o", "a", "os", "as"),
}  # fmt: skip
MINE = {
    # owner: (m, f, m plural, f plural)
    "en": {"my": ("my",) * 4, "your": ("your",) * 4, "our": ("our",) * 4},
    "es": {
        "my": ("mi", "mi", "mis", "mis"),
        "your": ("tu", "tu", "tus", "tus"),
        "our": ("nuestro", "nuestra", "nuestros", "nuestras"),
    },
    "fr": {
        "my": ("mon", "ma", "mes", "mes"),
        "your": ("ton", "ta", "tes", "tes"),
        "our": ("notre", "notre", "nos", "nos"),
    },
    "it": {
        "my": ("mio", "mia", "miei", "mie"),
        "your": ("tuo", "tua", "tuoi", "tue"),
        "our": ("nostro", "nostra", "nostri", "nostre"),
    },
    "pt": {
        "my": ("meu", "minha", "meus", "minhas"),
        "your": ("seu", "sua", "seus", "suas"),
        "our": ("nosso", "nossa", "nossos", "nossas"),
    },
}


def form(gender: str, many: bool) -> int:
    """The place in (m, f, m plural, f plural)."""
    return 2 * many + (gender == "f")


def begins_with_vowel(language: str, text: str) -> bool:
    """Whether articles are elided before the text."""
    silent = "h" if language in ("fr", "it") else ""
    if text.startswith(ASPIRATED):
        return False
    return text[0].lower() in "aeiouàèéêëîïôœáíóú" + silent


def impure(text: str) -> bool:
    """Whether Italian says `lo` and `uno` before the text (s + consonant, z, gn, ps, y)."""
    return re.match(r"s[^aeiouàèéìòù]|z|gn|p[sn]|x|y", text) is not None


def definite(language: str, gender: str, many: bool, text: str) -> str:
    """`the` and the text."""
    if language == "en":
        return f"the {text}"
    if language == "it":
        return _italian(gender, many, text)
    if language == "fr" and not many and begins_with_vowel("fr", text):
        return f"l'{text}"
    if language == "es" and not many and text.split()[0] in STRESSED_A:
        gender = "m"
    return f"{DEFINITE[language][form(gender, many)]} {text}"


def _italian(gender: str, many: bool, text: str) -> str:
    vowel = begins_with_vowel("it", text)
    if many:
        return f"{'le' if gender == 'f' else 'gli' if vowel or impure(text) else 'i'} {text}"
    if vowel:
        return f"l'{text}"
    return f"{'la' if gender == 'f' else 'lo' if impure(text) else 'il'} {text}"


def indefinite(language: str, gender: str, text: str) -> str:
    """`a` and the text."""
    if language == "en":
        return f"{'an' if re.match('[aeio]|u[^n]', text) else 'a'} {text}"
    if language == "it":
        if gender == "f":
            return f"un'{text}" if begins_with_vowel("it", text) else f"una {text}"
        return f"{'uno' if impure(text) else 'un'} {text}"
    one = {"es": ("un", "una"), "fr": ("un", "une"), "pt": ("um", "uma")}[language]
    if language == "es" and text.split()[0] in STRESSED_A:
        gender = "m"
    return f"{one[gender == 'f']} {text}"


def partitive(gender: str, text: str) -> str:
    """Some of a mass, in French: du pain, de la viande, de l'eau."""
    return contract("fr", "de", definite("fr", gender, False, text))


def possessive(language: str, owner: str, gender: str, many: bool, text: str) -> str:
    """`my`, `your` or `our` and the text."""
    at = form(gender, many)
    if language == "fr" and at == 1 and owner != "our" and begins_with_vowel("fr", text):
        at = 0
    word = MINE[language][owner][at]
    if language == "it":
        return f"{_italian(gender, many, word)} {text}"
    return f"{word} {text}"


_CONTRACTIONS = {
    "es": [(r"\bde el ", "del "), (r"\ba el ", "al ")],
    "fr": [
        (r"\bde le ", "du "), (r"\bde les ", "des "), (r"\bà le ", "au "), (r"\bà les ", "aux "),
    ],
    "pt": [
        (r"\bde (o|a|os|as) ", r"d\1 "), (r"\bem (o|a|os|as) ", r"n\1 "),
        (r"\ba (o|os) ", r"a\1 "), (r"\ba (a|as) ", r"à\1 "),
    ],
}  # fmt: skip
_ITALIAN = {"di": "de", "a": "a", "da": "da", "in": "ne", "su": "su"}
_ITALIAN_ENDS = {
    "il ": "l ", "lo ": "llo ", "la ": "lla ", "l'": "ll'", "i ": "i ", "gli ": "gli ",
    "le ": "lle ",
}  # fmt: skip


def contract(language: str, preposition: str, phrase: str) -> str:
    """A preposition before a phrase that may begin with the article: de + el -> del."""
    if language == "it":
        words = preposition.split(" ")
        for article, end in _ITALIAN_ENDS.items():
            if phrase.startswith(article) and words[-1] in _ITALIAN:
                words[-1] = _ITALIAN[words[-1]] + end
                return " ".join(words) + phrase[len(article) :]
        return f"{preposition} {phrase}"
    text = f"{preposition} {phrase}"
    for pattern, melted in _CONTRACTIONS.get(language, []):
        text = re.sub(pattern, melted, text, count=1)
    return text.replace("àa ", "à ").replace("àas ", "às ") if language == "pt" else text
