"""What one line of an evaluation file asks, and what the right answer is.

In: a JSON object (untrusted). Out: a `TextRow`, `ChoiceRow` or `AnswerRow`, each with a digest of
all that it asks, the content of its media files included.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matryo.errors import InputError
from matryo.speech.prompts import language_name, speech_prompt

MAX_CHOICES = 64
METRICS = ("exact_match", "chrf", "bleu", "wer", "cer")
MEDIA = ("image", "audio", "video")
SHAPES = (
    '{"text"}, {"question", "choices", "answer"}, {"query", "choices", "gold"}, '
    '{"prompt", "reference"}, {"audio", "text"} or {"messages"}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRow:
    """A text whose every token is predicted. part: of the task · where: in its file."""

    part: str
    where: str
    digest: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceRow:
    """A context and its possible continuations, of which number `gold` is right."""

    part: str
    where: str
    digest: str
    context: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """A prompt (text, or messages with pictures and sound) and what is a right answer to it.

    metric: the one that counts for this part · stop: texts that end the answer
    max_tokens: of the answer; None = what the settings say
    """

    part: str
    where: str
    digest: str
    prompt: str | tuple[Mapping[str, Any], ...]
    references: tuple[str, ...]
    metric: str
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None


Row = TextRow | ChoiceRow | AnswerRow


def read_row(document: object, where: str, directory: Path, default_part: str) -> Row:
    """One row. directory: what media paths are relative to · default_part: if the row names none.

    Raises InputError, which says where, for anything that cannot be used.
    """
    if not isinstance(document, Mapping):
        raise InputError(f"{where}: expected an object, got {type(document).__name__}")
    part = _text(document, "task", where) if "task" in document else default_part
    if "choices" in document:
        return _choice_row(document, part, where)
    if "messages" in document:
        return _chat_row(document, part, where, directory)
    if "audio" in document:
        return _sound_row(document, part, where, directory)
    if "prompt" in document or "source" in document:
        return _prompt_row(document, part, where)
    if "text" in document:
        return text_row(_text(document, "text", where), part, where)
    raise InputError(f"{where}: expected {SHAPES}, got the keys {sorted(map(str, document))[:8]}")


def text_row(text: str, part: str, where: str) -> TextRow:
    """A text of its own. Raises InputError if there is nothing in it."""
    if not text.strip():
        raise InputError(f"{where}: the text is empty")
    return TextRow(part=part, where=where, digest=digest_of("text", text), text=text)


def choice_row(context: str, choices: Sequence[str], gold: int, part: str, where: str) -> ChoiceRow:
    """A question as it is put to the model: `choices` are continuations, their space included."""
    digest = digest_of("choice", context, list(choices), gold)
    return ChoiceRow(
        part=part, where=where, digest=digest, context=context, choices=tuple(choices), gold=gold
    )


def digest_of(*parts: object) -> str:
    """SHA-256 of plain values."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _choice_row(document: Mapping[str, Any], part: str, where: str) -> ChoiceRow:
    choices = document["choices"]
    if (
        not isinstance(choices, list)
        or not 2 <= len(choices) <= MAX_CHOICES
        or not all(isinstance(choice, str) and choice.strip() for choice in choices)
    ):
        raise InputError(f"{where}: choices: expected 2 to {MAX_CHOICES} texts")
    if "question" in document:
        context = f"Question: {_text(document, 'question', where)}\nAnswer:"
    else:
        context = _text(document, "query", where)
    gold = _gold(document.get("answer", document.get("gold")), choices, where)
    # The space between context and choice belongs to the choice, unless the context ends with one.
    between = "" if context[-1:].isspace() else " "
    continuations = [choice if choice[:1].isspace() else between + choice for choice in choices]
    return choice_row(context, continuations, gold, part, where)


def _gold(answer: object, choices: Sequence[str], where: str) -> int:
    """The number of the right choice, given as a number, a letter or the choice itself."""
    if type(answer) is int and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str):
        if choices.count(answer) == 1:
            return choices.index(answer)
        letter = ord(answer.strip().upper()) - ord("A") if len(answer.strip()) == 1 else -1
        if 0 <= letter < len(choices):
            return letter
    raise InputError(
        f"{where}: the answer: expected one of the choices, its number from 0 to "
        f"{len(choices) - 1} or its letter, got {answer!r:.60}"
    )


def _prompt_row(document: Mapping[str, Any], part: str, where: str) -> AnswerRow:
    prompt = _text(document, "prompt" if "prompt" in document else "source", where)
    key = next((key for key in ("reference", "references", "target") if key in document), None)
    if key is None:
        raise InputError(f"{where}: expected a reference beside the prompt")
    return _answer_row(document, prompt, _references(document[key], where), part, where, [])


def _sound_row(document: Mapping[str, Any], part: str, where: str, directory: Path) -> AnswerRow:
    """A clip and its transcription, or with "to" its translation into that language."""
    spoken = document.get("language")
    to = document.get("to")
    item, digest = _media_item({"type": "audio", "audio": document["audio"]}, where, directory)
    try:
        question = speech_prompt(spoken) if to is None else _translation_prompt(spoken, to)
    except (InputError, AttributeError) as error:
        raise InputError(f"{where}: {error}") from error
    message = {"role": "user", "content": [{"type": "text", "text": question}, item]}
    references = _references(document.get("text", document.get("reference")), where)
    metric = {} if "metric" in document or to is not None else {"metric": "wer"}
    return _answer_row({**document, **metric}, (message,), references, part, where, [digest])


def _translation_prompt(spoken: str | None, to: str) -> str:
    language = f" {language_name(spoken)}" if spoken else ""
    return f"Translate the following{language} speech segment into {language_name(to)}:"


def _chat_row(document: Mapping[str, Any], part: str, where: str, directory: Path) -> AnswerRow:
    messages = document["messages"]
    if not isinstance(messages, list) or len(messages) < 2:
        raise InputError(f"{where}: messages: expected a list that ends with the right answer")
    plain: list[Mapping[str, Any]] = []
    digests: list[str] = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise InputError(f"{where}: message {number}: expected a role and content")
        content = message["content"]
        if isinstance(content, list):
            pairs = [_media_item(item, where, directory) for item in content]
            content = [item for item, _ in pairs]
            digests += [digest for _, digest in pairs if digest]
        elif not isinstance(content, str):
            raise InputError(f"{where}: message {number}: content: expected a text or items")
        plain.append({"role": message["role"], "content": content})
    last = plain.pop()
    if last["role"] not in ("assistant", "model"):
        raise InputError(
            f"{where}: the last message is the right answer: its role is not assistant"
        )
    return _answer_row(
        document, tuple(plain), _references(_plain_text(last["content"]), where), part, where,
        digests,
    )  # fmt: skip


def _plain_text(content: object) -> object:
    """The text of a message; its text items joined."""
    if isinstance(content, list):
        return "".join(str(item.get("text", "")) for item in content)
    return content


def _answer_row(
    document: Mapping[str, Any],
    prompt: str | tuple[Mapping[str, Any], ...],
    references: tuple[str, ...],
    part: str,
    where: str,
    media: Sequence[str],
) -> AnswerRow:
    metric = document.get("metric") or metric_of(part)
    if metric not in METRICS:
        raise InputError(f"{where}: metric: expected one of {', '.join(METRICS)}, got {metric!r}")
    stop = document.get("stop", ())
    stop = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stop, list | tuple) or not all(isinstance(one, str) and one for one in stop):
        raise InputError(f"{where}: stop: expected texts")
    longest = document.get("max_tokens")
    if longest is not None and (type(longest) is not int or longest < 1):
        raise InputError(f"{where}: max_tokens: expected a whole number from 1, got {longest!r}")
    asked = prompt if isinstance(prompt, str) else _without_paths(prompt)
    digest = digest_of("answer", asked, references, metric, list(stop), longest, list(media))
    return AnswerRow(
        part=part,
        where=where,
        digest=digest,
        prompt=prompt,
        references=references,
        metric=metric,
        stop=tuple(stop),
        max_tokens=longest,
    )


def metric_of(part: str) -> str:
    """What counts in a part of a task, by its name: word errors for speech, chrF for translation,
    the exact answer for anything else.
    """
    words = part.lower()
    if any(word in words for word in ("transl", "chrf")):
        return "chrf"
    if any(word in words for word in ("transcri", "asr", "speech", "wer")):
        return "wer"
    return "exact_match"


def _without_paths(prompt: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Messages whose media are only named by their kind: their content is in the digest already."""
    return [
        {
            **message,
            "content": [
                item if item.get("type") == "text" else {"type": item.get("type")}
                for item in message["content"]
            ]
            if isinstance(message["content"], list)
            else message["content"],
        }
        for message in prompt
    ]


def _media_item(item: object, where: str, directory: Path) -> tuple[dict[str, Any], str]:
    """A content item with its path made whole, and the digest of the file; text items have none."""
    if not isinstance(item, Mapping) or not isinstance(item.get("type"), str):
        raise InputError(f"{where}: expected content items with a type, got {item!r:.60}")
    kind = item["type"]
    if kind == "text":
        if not isinstance(item.get("text"), str):
            raise InputError(f"{where}: a text item without a text")
        return dict(item), ""
    source = item.get(kind, item.get("path")) if kind in MEDIA else None
    if not isinstance(source, str):
        raise InputError(f"{where}: expected the path of a file in the {kind!r:.20} item")
    path = directory / source
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{where}: cannot read {source!r:.120}: {reason}") from error
    return {"type": kind, "path": str(path)}, digest


def _references(value: object, where: str) -> tuple[str, ...]:
    given = [value] if isinstance(value, str) else value
    if (
        not isinstance(given, list)
        or not given
        or not all(isinstance(one, str) and one.strip() for one in given)
    ):
        raise InputError(f"{where}: the reference: expected a text, or several, got {value!r:.60}")
    return tuple(given)


def _text(document: Mapping[str, Any], key: str, where: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: {key}: expected a text, got {value!r:.60}")
    return value


def row_to_json(row: Row) -> dict[str, Any]:
    """Plain values, as results keep them."""
    return {"kind": type(row).__name__.removesuffix("Row").lower(), **asdict(row)}
