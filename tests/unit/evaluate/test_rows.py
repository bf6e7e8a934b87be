"""What rows of every shape ask, and how broken ones are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from matryo.errors import InputError
from matryo.evaluate.rows import AnswerRow, ChoiceRow, Row, TextRow, read_row


def read(document: object, directory: Path = Path()) -> Row:
    return read_row(document, "x.jsonl line 3", directory, "x")


@pytest.mark.parametrize(
    ("document", "gold"),
    [
        ({"question": "Why?", "choices": ["b", "a"], "answer": 1}, 1),
        ({"question": "Why?", "choices": ["no", "yes"], "answer": "B"}, 1),
        ({"question": "Why?", "choices": ["no", "yes"], "answer": "yes"}, 1),
        # A choice that looks like a letter is meant as the choice.
        ({"question": "Why?", "choices": ["B", "A"], "answer": "B"}, 0),
    ],
)
def test_a_question_is_put_as_text_and_its_answer_is_found(
    document: dict[str, Any], gold: int
) -> None:
    row = read(document)
    assert isinstance(row, ChoiceRow)
    assert row.context == "Question: Why?\nAnswer:"
    assert row.choices == tuple(f" {choice}" for choice in document["choices"])
    assert row.gold == gold and row.part == "x"


def test_a_query_is_put_as_it_is_and_its_last_space_is_not_doubled() -> None:
    spaced = read({"query": "The sea is ", "choices": ["wet", "dry"], "gold": 0})
    plain = read({"query": "The sea is", "choices": ["wet", " dry"], "gold": 0})
    assert isinstance(spaced, ChoiceRow) and isinstance(plain, ChoiceRow)
    assert spaced.choices == ("wet", "dry") and plain.choices == (" wet", " dry")


def test_a_conversation_asks_for_its_last_turn(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels")
    row = read(
        {
            "task": "caption",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": "a.png"},
                        {"type": "text", "text": "What is it?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
            ],
        },
        tmp_path,
    )
    assert isinstance(row, AnswerRow)
    assert row.references == ("A cat.",) and row.part == "caption"
    assert row.metric == "exact_match" and len(row.prompt) == 1
    message = row.prompt[0]
    assert not isinstance(message, str)
    assert message["content"][0] == {"type": "image", "path": str(tmp_path / "a.png")}


def test_the_digest_is_of_the_media_not_of_their_place(tmp_path: Path) -> None:
    digests = []
    for name, content in (("one", b"sound"), ("two", b"sound"), ("three", b"other")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.wav").write_bytes(content)
        digests.append(read({"audio": "a.wav", "text": "hello"}, tmp_path / name).digest)
    assert digests[0] == digests[1] != digests[2]


def test_sound_asks_for_a_transcription_and_counts_word_errors(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    row = read({"audio": "a.wav", "text": "hola", "language": "es"}, tmp_path)
    other = read({"audio": "a.wav", "text": "hello", "language": "es", "to": "en", "task": "t"},
                 tmp_path)  # fmt: skip
    assert isinstance(row, AnswerRow) and isinstance(other, AnswerRow)
    assert row.metric == "wer" and "Transcribe" in str(row.prompt) and "Spanish" in str(row.prompt)
    assert "Translate" in str(other.prompt) and "English" in str(other.prompt)


@pytest.mark.parametrize(
    ("part", "metric"),
    [
        ("translate en-fr", "chrf"),
        ("Transcribe", "wer"),
        ("asr", "wer"),
        ("caption", "exact_match"),
    ],
)
def test_the_name_of_a_part_says_what_counts(part: str, metric: str) -> None:
    row = read({"prompt": "a", "reference": "b", "task": part})
    assert isinstance(row, AnswerRow) and row.metric == metric
    named = read({"prompt": "a", "reference": "b", "task": part, "metric": "bleu"})
    assert isinstance(named, AnswerRow) and named.metric == "bleu"


def test_a_text_is_a_row() -> None:
    row = read({"text": "Once upon a time."})
    assert isinstance(row, TextRow) and row.text == "Once upon a time."


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "expected an object"),
        ({}, "expected"),
        ({"task": 3, "text": "a"}, "task: expected a text"),
        ({"text": "  "}, "text: expected a text"),
        ({"question": "q", "choices": ["a"], "answer": 0}, "2 to 64 texts"),
        ({"question": "q", "choices": ["a", ""], "answer": 0}, "2 to 64 texts"),
        ({"question": "q", "choices": ["a", "b"], "answer": 2}, "number from 0 to 1"),
        ({"question": "q", "choices": ["a", "b"], "answer": True}, "the answer"),
        ({"question": "q", "choices": ["a", "b"]}, "the answer"),
        ({"question": "", "choices": ["a", "b"], "answer": 0}, "question: expected a text"),
        ({"prompt": "a"}, "expected a reference"),
        ({"prompt": "a", "reference": ""}, "the reference"),
        ({"prompt": "a", "reference": []}, "the reference"),
        ({"prompt": "a", "reference": "b", "metric": "rouge"}, "metric: expected one of"),
        ({"prompt": "a", "reference": "b", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "reference": "b", "stop": [""]}, "stop: expected texts"),
        ({"audio": "missing.wav", "text": "a"}, "cannot read 'missing.wav'"),
        ({"audio": 7, "text": "a"}, "path of a file"),
        ({"audio": "x\0y", "text": "a"}, "cannot read"),
        ({"messages": [{"role": "user", "content": "a"}]}, "ends with the right answer"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "its role is not assistant"),
        ({"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]}, "message 0"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "pdf", "path": "a"}]},
                    {"role": "assistant", "content": "a"},
                ]
            },
            "'pdf' item",
        ),
    ],
)
def test_a_broken_row_is_refused_and_named(document: object, message: str) -> None:
    with pytest.raises(InputError, match=r"x\.jsonl line 3.*" + message):
        read(document)
