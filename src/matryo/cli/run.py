"""`matryo run`: one prompt, one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from matryo.cli.attachments import AttachOption
from matryo.cli.options import ElasticOptions, GenerationOptions, JsonOption, LoadOptions

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
    attach: AttachOption = None,
    load: LoadOptions,
    system: Annotated[
        str | None, typer.Option(help="Instructions put before the prompt.", show_default=False)
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as text, without the chat template.")
    ] = False,
    generation: GenerationOptions,
    elastic: ElasticOptions,
    json: JsonOption = False,
) -> None:
    """Answer one prompt, about pictures, sound and video if there are any.

    With --json every piece is one line, and the last line is a summary with the whole text.
    """
    if raw and system is not None:
        raise typer.BadParameter(
            "it needs the chat template; leave --raw out", param_hint="--system"
        )
    from matryo.cli.prompt import read_prompt

    text = read_prompt(prompt)
    from matryo.cli.attachments import read_attachments
    from matryo.cli.elastic import open_controller, open_escalation
    from matryo.cli.generate import generate
    from matryo.cli.models import open_model, open_session

    model = open_model(load)
    items = read_attachments(model, attach or ())
    asked: Any = [*items, text] if items else text
    if not raw:
        asked = _messages(system, [*items, {"type": "text", "text": text}] if items else text)
    result = generate(
        open_session(model, load),
        asked,
        generation,
        controller=open_controller(model, load, elastic),
        escalation=open_escalation(model, load, elastic),
        json=json,
    )
    if result.cancelled:
        raise KeyboardInterrupt


def _messages(system: str | None, content: Any) -> list[Message]:
    messages: list[Message] = []
    if system is not None:
        messages.append({"role": "system", "content": system})
    messages.append({"role": "user", "content": content})
    return messages
