"""`matryo chat`: a conversation on a terminal, or one line a message from a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from matryo.cli.options import ElasticOptions, GenerationOptions, JsonOption, LoadOptions
from matryo.cli.prompt import read_piped_lines

if TYPE_CHECKING:
    from matryo.cli.answer import Result
    from matryo.cli.conversation import Conversation

EXIT = "/exit"


def chat(
    load: LoadOptions,
    *,
    system: Annotated[
        str | None,
        typer.Option(help="Instructions put before the first message.", show_default=False),
    ] = None,
    generation: GenerationOptions,
    elastic: ElasticOptions,
    json: JsonOption = False,
) -> None:
    """Talk with a model; /help inside lists the commands.

    Ctrl-C stops an answer and keeps the conversation, Ctrl-D leaves.
    """
    from matryo.cli.conversation import Conversation
    from matryo.cli.models import open_model

    conversation = Conversation(open_model(load), load, generation, elastic, system)
    if sys.stdin.isatty() and sys.stdout.isatty():
        _talk(conversation, json=json)
    else:
        _answer_lines(conversation, json=json)


def _talk(conversation: Conversation, *, json: bool) -> None:
    """A person types: an error or Ctrl-C ends an answer, and the conversation goes on."""
    from matryo.cli.lines import read_lines
    from matryo.cli.outcome import CommandError, error_block, reply
    from matryo.errors import MatryoError

    for line in read_lines(conversation.commands):
        if line == EXIT:
            return
        try:
            _take(conversation, line, json=json)
        except BrokenPipeError:
            raise
        except (CommandError, MatryoError, OSError) as error:
            reply(error_block(error))


def _answer_lines(conversation: Conversation, *, json: bool) -> None:
    """A program or a file is read: the first error or Ctrl-C ends everything."""
    for line in read_piped_lines():
        if line == EXIT:
            return
        result = _take(conversation, line, json=json) if line else None
        if result is not None and result.cancelled:
            raise KeyboardInterrupt


def _take(conversation: Conversation, line: str, *, json: bool) -> Result | None:
    """Obey or answer one line; the result is that of an answer."""
    from matryo.cli.outcome import reply

    if line.startswith("/"):
        reply(conversation.command(line))
        return None
    return conversation.ask(line, json=json)
