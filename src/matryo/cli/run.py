"""`matryo run`: one prompt, one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from matryo.cli.options import GenerationOptions, JsonOption, LoadOptions

if TYPE_CHECKING:
    from matryo.inputs.chat import Message


def run(
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="What to ask; stdin is put after it. - or nothing reads stdin alone.",
            show_default=False,
        ),
    ] = None,
    *,
    load: LoadOptions,
    system: Annotated[
        str | None, typer.Option(help="Instructions put before the prompt.", show_default=False)
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as text, without the chat template.")
    ] = False,
    generation: GenerationOptions,
    json: JsonOption = False,
) -> None:
    """Answer one prompt.

    With --json every piece is one line, and the last line is a summary with the whole text.
    """
    if raw and system is not None:
        raise typer.BadParameter(
            "it needs the chat template; leave --raw out", param_hint="--system"
        )
    from matryo.cli.prompt import read_prompt

    text = read_prompt(prompt)
    from matryo.cli.generate import generate
    from matryo.cli.models import open_model, open_session

    session = open_session(open_model(load), load)
    result = generate(session, text if raw else _messages(system, text), generation, json=json)
    if result.cancelled:
        raise KeyboardInterrupt


def _messages(system: str | None, text: str) -> list[Message]:
    messages: list[Message] = []
    if system is not None:
        messages.append({"role": "system", "content": system})
    messages.append({"role": "user", "content": text})
    return messages
