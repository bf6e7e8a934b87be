"""Make untrusted text harmless for a terminal.

In: text from a model, a checkpoint or the file system. Out: the same text with every character that
a terminal would obey instead of print written visibly (`\\x1b`). Model output can carry escape
sequences that rewrite the screen, set the window title or make the terminal type; none of them may
arrive there.
"""

from __future__ import annotations

# C0 and DEL and C1 are commands to a terminal; the bidirectional overrides reorder what the reader
# sees.
_CONTROL = [*range(0x00, 0x20), *range(0x7F, 0xA0)]
_OVERRIDES = [0x202D, 0x202E]
_NAME = {code: f"\\x{code:02x}" for code in _CONTROL}
_NAME.update({code: f"\\u{code:04x}" for code in _OVERRIDES})
_NAME.update({code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)})
_NAME.update({code: f"\\u{code:04x}" for code in (0x2028, 0x2029)})

# Line feed and tab are part of an answer. A carriage return is dropped: "\r\n" is a line end, and
# alone it would let an answer overwrite its own beginning.
_ANSWER: dict[int, str | None] = dict(_NAME)
_ANSWER.update({ord("\n"): "\n", ord("\t"): "\t", ord("\r"): None})
del _ANSWER[0x2028], _ANSWER[0x2029]

_JSON = {
    code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *_OVERRIDES, *range(0xD800, 0xE000))
}


def escape_answer(text: str) -> str:
    """Text of several lines (a model's answer) with control characters written visibly."""
    return text.translate(_ANSWER)


def escape_name(text: object) -> str:
    """One line (a file name, a tensor name, a message) with control characters written visibly."""
    return str(text).translate(_NAME)


def escape_json(document: str) -> str:
    """A JSON document in which what a terminal would obey is written as JSON escapes."""
    return document.translate(_JSON)
