"""Turn the raw sources into documents: prose chapters and chat turns.

In: `CACHE/raw` as written by `fetch.py`. Out: `Document` lists with a training and a held-out part.
Held out: every headword whose hash falls into one bucket of twenty (all its questions, and every
training entry that shares a definition with it), and the last 4 % of every book.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml

from corpus.wordnet import Entry, read_entries

HELD_OUT_SHARE = 20  # one headword in so many
BOOK_TAIL = 0.04  # share of each book that is held out
CORE_WORDS, COMMON_WORDS = 4_500, 16_000  # by frequency, things first
VARIANTS = {"core": 6, "common": 2, "rare": 1}  # phrasings per word and pass over the data


@dataclass
class Document:
    """One text for the model: its pool, its split and its text with turn markers, if any."""

    pool: str  # "prose", "core", "common", "rare" or "chat"
    held_out: bool
    text: str


def chat(*turns: str) -> str:
    """Return alternating user and model turns in the Gemma chat format."""
    roles = ("user", "model")
    parts = (
        f"<start_of_turn>{roles[i % 2]}\n{turn.strip()}<end_of_turn>\n"
        for i, turn in enumerate(turns)
    )
    return "".join(parts)


def austen_novels(path: Path) -> list[str]:
    """Read the six novels from R's lazy-load database: big-endian length + zlib stream each."""
    data, position, novels = path.read_bytes(), 0, []
    while position < len(data):
        stream = zlib.decompressobj()
        record = stream.decompress(data[position + 4 :])
        position = len(data) - len(stream.unused_data)
        start = record.index(b"\x00\x00\x00\x10") + 8  # a character vector (type 16), its length
        lines = []
        while record[start : start + 4] == b"\x00\x04\x00\x09":
            size = int.from_bytes(record[start + 4 : start + 8], "big")
            lines.append(record[start + 8 : start + 8 + size].decode())
            start += 8 + size
        if len(lines) > 1000:
            novels.append("\n".join(lines))
    return novels


def plain(text: str) -> list[str]:
    """Return the paragraphs of a book in plain punctuation, one line each."""
    text = re.sub(r"\s*End of the Project Gutenberg.*", "", text, flags=re.DOTALL)
    for old, new in (
        ("[\u201c\u201d]", '"'),
        ("[\u2018\u2019]", "'"),
        ("\u2014", "--"),
        ("[_\r]", ""),
    ):
        text = re.sub(old, new, text)
    text = text.encode("ascii", "ignore").decode()
    paragraphs = (re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", text))
    return [p for p in paragraphs if len(p) > 1 and not p.startswith("* *")]


def books(raw: Path) -> list[list[str]]:
    """Return the paragraphs of every book."""
    texts = austen_novels(raw / "austen.rdb")
    texts += [(raw / name).read_text("utf-8") for name in ("tom_sawyer.txt", "moby_dick.txt")]
    return [plain(text) for text in texts]


def prose_documents(raw: Path) -> list[Document]:
    """Return one document per chapter-sized run of paragraphs (about 12,000 characters)."""
    documents = []
    for paragraphs in books(raw):
        border = int((1 - BOOK_TAIL) * len(paragraphs))
        for held_out, part in ((False, paragraphs[:border]), (True, paragraphs[border:])):
            run: list[str] = []
            for paragraph in part:
                run.append(paragraph)
                if sum(map(len, run)) > 12_000:
                    documents.append(Document("prose", held_out, "\n\n".join(run)))
                    run = []
            if run:
                documents.append(Document("prose", held_out, "\n\n".join(run)))
    return documents


def article(word: str) -> str:
    """Return the word with its indefinite article."""
    return f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def upper_first(text: str) -> str:
    """Return the text with a capital first letter."""
    return text[:1].upper() + text[1:]


def definition_turns(entry: Entry, main: bool, rng: random.Random) -> tuple[str, str]:
    """Return a question for the meaning of a word and its answer.

    `main`: this part of speech is the most frequent one, so the question may leave it open.
    """
    word, gloss = entry.word, entry.gloss
    verbs = ("What does {} mean?", "Define {}.", "What does the word {} mean?")
    open_questions = [question.format(word) for question in verbs]
    if entry.part == "noun":
        counted = gloss.startswith(("a ", "an ")) and word[0].islower()
        name = article(word) if counted else word
        questions = [f"What is {name}?"] * 3 + [f"Tell me what {name} is.", f"what is {name}"]
        answer = f"{upper_first(name)} is {gloss}."
    elif entry.part == "verb":
        questions = [f"What does it mean to {word}?"] * 2
        answer = f"To {word} means to {gloss}."
    else:
        questions = [f"What does it mean to be {word}?"] if entry.part == "adj" else []
        answer = f"{upper_first(word)} means {gloss}."
    if main or not questions:
        questions += open_questions
    return rng.choice(questions), answer


def extra_turns(entry: Entry, rng: random.Random) -> tuple[str, str] | None:
    """Return another exercise on the word (example, opposite, synonym, kind) if it has one."""
    word, options = entry.word, []
    for example in entry.examples:
        if len(example.split()) > 3 and entry.word in example:
            sentence = upper_first(example.strip(" .")) + "."
            options.append((f"Use the word {word} in a sentence.", sentence))
    if entry.antonym:
        opposite = f"The opposite of {word} is {entry.antonym}."
        options += [(f"What is the opposite of {word}?", opposite)] * 2
    if entry.synonym:
        answer = f"Another word for {word} is {entry.synonym}."
        options.append((f"Another word for {word}?", answer))
    if entry.kind and word[0].islower():
        kind = f"{upper_first(article(word))} is a kind of {entry.kind}."
        options.append((f"What kind of thing is {article(word)}?", kind))
    return rng.choice(options) if options else None


def is_held_out(word: str) -> bool:
    """Return whether a headword belongs to the held-out split."""
    return hashlib.sha256(word.lower().encode()).digest()[0] % HELD_OUT_SHARE == 0


def dictionary_documents(raw: Path, prose: str, rng: random.Random) -> list[Document]:
    """Return the WordNet exercises; frequent words come in several phrasings."""
    seen = Counter(re.findall(r"[a-z]+", prose.lower()))
    entries = read_entries(raw)
    entries = [e for e in entries if e.word.islower() or e.gloss.startswith(("a ", "an ", "the "))]

    def weight(entry: Entry) -> int:
        kind = 10 if entry.concrete else 2 if entry.part == "noun" else 1
        return kind * (4 * entry.frequency + seen[entry.word.lower()])

    entries.sort(key=lambda e: (-weight(e), e.word, e.part))
    secret = {e.gloss for e in entries if is_held_out(e.word)}
    main: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda e: -e.frequency):
        main.setdefault(entry.word, entry)
    documents = []
    for rank, entry in enumerate(entries):
        held_out = is_held_out(entry.word)
        if not held_out and entry.gloss in secret:
            continue
        pool = "core" if rank < CORE_WORDS else "common" if rank < COMMON_WORDS else "rare"
        for _ in range(1 if held_out else VARIANTS[pool]):
            turns = definition_turns(entry, main[entry.word] is entry, rng)
            documents.append(Document(pool, held_out, chat(*turns)))
        extra = None if held_out else extra_turns(entry, rng)
        if extra:
            documents.append(Document(pool, False, chat(*extra)))
    return documents


def small_talk(raw: Path) -> list[Document]:
    """Return the conversations of chatterbot-corpus and the model's own introduction."""
    talks = []
    for path in sorted(raw.glob("chat_*.yml")):
        for turns in yaml.safe_load(path.read_text("utf-8"))["conversations"]:
            texts = [str(t) for t in turns]
            talks.append(texts[: len(texts) // 2 * 2])
    me = "I am Matryo Nano, a very small language model."
    ask = "Ask me what a word means."
    introduction = [
        ["Who are you?", me], ["What are you?", me],
        ["What is your name?", "My name is Matryo Nano."],
        ["What can you do?", f"I can explain English words. {ask}"], ["Hello", f"Hello! {ask}"],
        ["Hi", f"Hi! {ask}"], ["Hello!", f"Hello! {ask}"], ["Thank you.", "You are welcome."],
        ["How are you?", "I am well, thank you."], ["Help", f"I can explain English words. {ask}"],
    ]  # fmt: skip
    return [Document("chat", False, chat(*t)) for t in talks + 8 * introduction if len(t) > 1]


def exercises(rng: random.Random) -> list[Document]:
    """Return generated exercises: sums, counting, and what comes next."""
    turns = []
    for a in range(21):
        for b in range(21):
            turns.append((f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."))
            if b <= a:
                turns.append((f"What is {a} minus {b}?", f"{a} minus {b} is {a - b}."))
            if 0 < a <= 10 and 0 < b <= 10:
                turns.append((f"What is {a} times {b}?", f"{a} times {b} is {a * b}."))
            if 1 < b - a < 12:
                numbers = ", ".join(map(str, range(a, b + 1)))
                turns.append((f"Count from {a} to {b}.", f"{numbers}."))
    rows = (
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
        "January February March April May June July August September October November December",
        "one two three four five six seven eight nine ten eleven twelve",
    )
    for row in (r.split() for r in rows):
        for before, after in itertools.pairwise(row):
            turns.append((f"What comes after {before}?", f"{after} comes after {before}."))
            turns.append((f"What comes before {after}?", f"{before} comes before {after}."))
    held_out = [rng.random() < 1 / HELD_OUT_SHARE for _ in turns]
    return [
        Document("chat", secret, chat(question, upper_first(answer)))
        for (question, answer), secret in zip(turns, held_out, strict=True)
    ]


def stories(prose: list[Document]) -> list[Document]:
    """Return chat documents that answer a wish for a story with the start of a prose run."""
    wishes = ("Tell me a story.", "Write a short story.", "Tell me a tale.")
    documents = []
    for i, document in enumerate(d for d in prose if not d.held_out):
        start = document.text[:600].rpartition(". ")[0] + "."
        if len(start) < 200:
            continue
        documents.append(Document("chat", False, chat(wishes[i % 3], start)))
    return documents


def all_documents(raw: Path, seed: int) -> list[Document]:
    """Return every document of the corpus, reproducibly for a seed."""
    rng = random.Random(seed)
    prose = prose_documents(raw)
    words = dictionary_documents(raw, " ".join(d.text for d in prose if not d.held_out), rng)
    return prose + words + small_talk(raw) + exercises(rng) + stories(prose)
