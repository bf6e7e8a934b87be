"""`matryo transcribe`: speech of a recording to text or subtitles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from matryo.cli.options import JsonOption, LoadOptions
from matryo.cli.speech import CaptionFormat, GateOptions, LanguageOption, ToOption

if TYPE_CHECKING:
    from matryo.speech.captions import CaptionEvent


def transcribe(
    file: Annotated[
        str, typer.Argument(metavar="FILE|URL", help="Sound, or a video with a sound track.")
    ],
    *,
    to: ToOption = None,
    language: LanguageOption = None,
    format: Annotated[
        CaptionFormat, typer.Option(help="What to write: lines, subtitles with times, or JSON.")
    ] = CaptionFormat.TEXT,
    load: LoadOptions,
    gate: GateOptions,
    window: Annotated[
        int,
        typer.Option(
            min=0, help="Earlier captions that the model sees again, about 200 tokens each."
        ),
    ] = 0,
    max_tokens: Annotated[
        int, typer.Option("-n", "--max-tokens", min=1, help="Longest caption, in tokens.")
    ] = 256,
    json: JsonOption = False,
) -> None:
    """Write down what is said in a recording, and translate it if asked to.

    It is cut at pauses into clips of at most 30 s. Ctrl-C stops; what was written stays. --format
    json writes one document at the end, --json one line an event while they come.
    """
    from matryo.cli.answer import interruptible
    from matryo.cli.attachments import require_encoder
    from matryo.cli.live import LiveLine
    from matryo.cli.models import open_model, open_session
    from matryo.cli.progress import Bar
    from matryo.cli.speech import Shown, voice_options
    from matryo.inputs.source import Source
    from matryo.speech.captions import clock
    from matryo.speech.transcribe import sound_seconds
    from matryo.speech.transcribe import transcribe as captions_of

    source = Source.of(file, allow_urls=True)
    seconds = sound_seconds(source)
    model = open_model(load)
    require_encoder(model, "audio", f"{file} is sound, and ")
    with (
        interruptible() as cancel,
        LiveLine() as line,
        Bar("Transcribing", unit="s of sound") as bar,
    ):
        # A translation is known when the words before it are: it does not grow from its beginning.
        shown = Shown(format, line, events_as_json=json, grows=to is None)

        def progress(event: CaptionEvent) -> None:
            # A bar and a growing text cannot share a terminal: there the status line says it.
            if line.is_shared:
                whole = f" of {clock(seconds)}" if seconds else ""
                line.status(lambda: f"{clock(event.heard_s)}{whole}")
            elif event.kind != "partial":
                bar(round(event.heard_s), None if seconds is None else round(seconds))

        events = captions_of(
            open_session(model, load),
            source,
            language=language,
            to=to.value if to else None,
            voice=voice_options(model, gate),
            window=window,
            max_tokens=max_tokens,
            cancel=cancel,
        )
        shown.show(events, progress)
    if shown.is_cancelled:
        raise KeyboardInterrupt
