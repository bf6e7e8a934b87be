"""`matryo chat`: a conversation on a terminal, or one line a message from a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from matryo.cli.options import GenerationOptions, JsonOption, LoadOptions

if TYPE_CHECKING:
    from matryo.cli.conversation import Conversation


def chat(
    load: LoadOptions,
    *,
    system: Annotated[
        str | None,
        typer.Option(help="Instructions put before the first message.", show_default=False),
    ] = None,
    generation: GenerationOptions,
    json: JsonOption = False,
) -> None:
    """Talk with a model; /help inside lists the commands.

    Ctrl-C stops an answer and keeps the conversation, Ctrl-D leaves.
    """
    from matryo.cli.conversation import Conversation
    from matryo.cli.models import open_model

    conversation = Conversation(open_model(load), load, generation, system)
    if sys.stdin.isatty() and sys.stdout.isatty():
        _talk(conversation, json=json)
    else:
        for line in sys.stdin:
            _take(conversation, line.strip(), json=json, errors_end=True)


def _talk(conversation: Conversation, *, json: bool) -> None:
    from matryo.cli.lines import read_lines

    for line in read_lines(conversation.commands):
        if line == "/exit":
            return
        _take(conversation, line, json=json, errors_end=False)


def _take(conversation: Conversation, line: str, *, json: bool, errors_end: bool) -> None:
    """Obey or answer one line; on a terminal an error is shown and the conversation goes on."""
    from matryo.cli.outcome import CommandError, describe, reply
    from matryo.errors import MatryoError

    if not line:
        return
    try:
        if line.startswith("/"):
            reply(conversation.command(line))
        else:
            conversation.ask(line, json=json)
    except (CommandError, MatryoError, OSError) as error:
        if errors_end or isinstance(error, BrokenPipeError):
            raise
        reply(f"error: {describe(error)}")
