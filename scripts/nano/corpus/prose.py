"""English prose in pieces: six novels of Jane Austen and Moby-Dick.

In: the packages that carry them. Out: `train/prose.jsonl`, `heldout/prose.jsonl`: some sentences a
row. Held out is the last part of every book.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from scripts.nano.corpus import rows

TAIL = 0.04  # the share of each book that is held out
LETTERS = 400  # of a row, about
HELD_OUT_ROWS = 400


def austen(path: Path) -> list[str]:
    """The six novels from R's lazy-load database: big-endian length + zlib stream each."""
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


def novels(sources: Path) -> list[str]:
    """The seven of them."""
    books = austen(next((sources / "austen").rglob("Rdata.rdb")))
    return [*books, next((sources / "melville").rglob("data.txt")).read_text("utf-8")]


def plain(text: str) -> list[str]:
    """The paragraphs of a book in plain punctuation, one line each."""
    text = re.sub(r"\s*End of the Project Gutenberg.*", "", text, flags=re.DOTALL)
    for old, new in (
        ("[\u201c\u201d]", '"'), ("[\u2018\u2019]", "'"), ("\u2014", "--"), ("[_\r]", ""),
    ):  # fmt: skip
        text = re.sub(old, new, text)
    text = text.encode("ascii", "ignore").decode()
    paragraphs = (re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", text))
    return [p for p in paragraphs if len(p) > 1 and not p.startswith("* *")]


def pieces(paragraphs: list[str]) -> Iterator[str]:
    """Runs of whole sentences of about `LETTERS` characters."""
    run = ""
    for sentence in re.split(r"(?<=[.!?\"]) +", " ".join(paragraphs)):
        if run and len(run) + len(sentence) > LETTERS:
            yield run
            run = ""
        run = f"{run} {sentence}".strip()
    if run:
        yield run


def build(sources: Path, cache: Path, limit: int) -> None:
    """Write the rows; `limit` of each split if not 0."""
    made: dict[str, list[str]] = {"train": [], "heldout": []}
    for book in novels(sources):
        paragraphs = plain(book)
        border = int((1 - TAIL) * len(paragraphs))
        made["train"] += pieces(paragraphs[:border])
        made["heldout"] += pieces(paragraphs[border:])
    known = set(made["train"])
    made["heldout"] = [text for text in made["heldout"] if text not in known]
    for split, most in (("train", limit), ("heldout", HELD_OUT_ROWS)):
        listed = [
            {"text": text, "task": "prose", "lang": "en"}
            for text in made[split]
            if len(text) < 2 * LETTERS
        ]
        rows.write(cache / split / "prose.jsonl", listed, "prose", most)
