"""A conversation as the text the checkpoint was trained on, by the checkpoint's chat template.

In: messages and a jinja2 template (untrusted). Out: text with the turn markers, ready for the
tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from matryo.errors import CheckpointError, InputError

if TYPE_CHECKING:
    import jinja2

MEDIA_ITEMS = ({"type": "image"}, {"type": "audio"})
"""What stands for a picture or clip in the messages that a template is given."""
MAX_TEMPLATE_BYTES = 256 << 10


class TextItem(TypedDict):
    """One piece of a message's content."""

    type: str
    text: str


class Message(TypedDict):
    """One turn: `role` is system, user or assistant."""

    role: str
    content: str | list[TextItem] | list[dict[str, Any]]


class ChatTemplate:
    """A checkpoint's chat template.

    >>> import matryo
    >>> matryo.load().chat_template.render([{"role": "user", "content": "Hi"}])
    '<bos><start_of_turn>user\\nHi<end_of_turn>\\n<start_of_turn>model\\n'
    """

    def __init__(
        self, source: str, *, variables: Mapping[str, str], name: str = "chat template"
    ) -> None:
        """`variables`: what the template may use beside the messages, such as `bos_token`.

        Raises CheckpointError if the template is too large or not valid.
        """
        self.source = source
        self._name = name
        self._variables = dict(variables)
        self._template: jinja2.Template | None = None
        size = len(source.encode(errors="replace"))
        if size > MAX_TEMPLATE_BYTES:
            raise CheckpointError(
                f"{name}: expected at most {MAX_TEMPLATE_BYTES} bytes, got {size}"
            )

    @classmethod
    def from_file(cls, path: Path, *, variables: Mapping[str, str]) -> ChatTemplate:
        """Read a template. Raises CheckpointError as the constructor does, and if the file cannot
        be read.
        """
        try:
            size = path.stat().st_size
            if size > MAX_TEMPLATE_BYTES:
                raise CheckpointError(
                    f"{path}: expected at most {MAX_TEMPLATE_BYTES} bytes, got {size}"
                )
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path}: cannot be read as a chat template: {error}") from error
        return cls(source, variables=variables, name=str(path))

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True
    ) -> str:
        """The text of a conversation; `add_generation_prompt` opens the model's turn at the end.

        Raises InputError if a message has no role and content, if the template refuses the
        conversation, or if it does more than a template needs to; CheckpointError if the template
        is not valid.
        """
        from matryo.inputs.sandbox import compile_template, render_template

        if self._template is None:
            self._template = compile_template(self.source, self._name)
        return render_template(
            self._template,
            self._name,
            {
                **self._variables,
                "messages": [
                    checked_message(message, index) for index, message in enumerate(messages)
                ],
                "add_generation_prompt": add_generation_prompt,
            },
        )


def checked_message(message: Mapping[str, Any], index: int) -> dict[str, Any]:
    """A copy of one message with nothing but strings in it. Raises InputError if it is none."""
    where = f"message {index}"
    if not isinstance(message, Mapping):
        raise InputError(
            f"{where}: expected a mapping with role and content, got {type(message).__name__}"
        )
    unknown = set(message) - {"role", "content"}
    if unknown or len(message) != 2:
        raise InputError(
            f"{where}: expected the keys role and content, got "
            f"{', '.join(map(str, message)) or 'none'}"
        )
    role, content = message["role"], message["content"]
    if not isinstance(role, str):
        raise InputError(f"{where}: expected a string as role, got {type(role).__name__}")
    if isinstance(content, str):
        return {"role": role, "content": content}
    if not isinstance(content, Sequence):
        raise InputError(
            f"{where}: expected a string or a list as content, got {type(content).__name__}"
        )
    return {"role": role, "content": [_checked_item(item, where) for item in content]}


def _checked_item(item: object, where: str) -> dict[str, str]:
    if (
        isinstance(item, Mapping)
        and item.get("type") == "text"
        and isinstance(item.get("text"), str)
    ):
        return {"type": "text", "text": item["text"]}
    if isinstance(item, Mapping) and dict(item) in MEDIA_ITEMS:
        return dict(item)
    raise InputError(
        f'{where}: expected items {{"type": "text", "text": "…"}} in the content list, '
        f"got {item!r:.80}"
    )
