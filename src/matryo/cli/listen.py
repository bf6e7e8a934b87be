"""`matryo listen`: live captions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from matryo.cli.options import JsonOption, LoadOptions
from matryo.cli.speech import CaptionFormat, GateOptions, LanguageOption, ToOption

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matryo.inputs.sound import Samples
    from matryo.speech.captions import CaptionEvent

PIECE_S = 0.16  # one soft token


def listen(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="A recording to play in real time; the microphone if omitted.",
            show_default=False,
        ),
    ] = None,
    *,
    to: ToOption = None,
    language: LanguageOption = None,
    partial: Annotated[
        float,
        typer.Option(
            min=0.0, help="Seconds of speech after which a caption is shown unfinished; 0 = never."
        ),
    ] = 3.0,
    fill: Annotated[
        bool,
        typer.Option(
            "--fill/--no-fill",
            help="Fill utterances up to the length of a clip, as in training; without, captions "
            "come sooner.",
        ),
    ] = True,
    device: Annotated[
        str | None,
        typer.Option(help="The microphone, by name or number.", show_default="the system's"),
    ] = None,
    load: LoadOptions,
    gate: GateOptions,
    max_tokens: Annotated[
        int, typer.Option("-n", "--max-tokens", min=1, help="Longest caption, in tokens.")
    ] = 256,
    json: JsonOption = False,
) -> None:
    """Caption speech while it is spoken.

    Sound is encoded as it arrives, and read at every pause. A line is written when a caption is
    complete; with --json every event is one line, unfinished captions too. Ctrl-C ends it.
    """
    from matryo.cli.answer import interruptible
    from matryo.cli.attachments import require_encoder
    from matryo.cli.live import LiveLine
    from matryo.cli.models import open_model, open_session
    from matryo.cli.speech import Shown, voice_options
    from matryo.speech.listen import listen as captions_of

    pieces = _sound(file, device)
    model = open_model(load)
    require_encoder(model, "audio")
    with interruptible() as cancel, LiveLine() as line:
        shown = Shown(CaptionFormat.TEXT, line, events_as_json=json, grows=False)

        def progress(event: CaptionEvent) -> None:
            if event.kind == "caption" and not json:
                line.remark(f"lag {event.lag_s:.1f} s")

        events = captions_of(
            model,
            open_session(model, load),
            pieces,
            language=language,
            to=to.value if to else None,
            voice=voice_options(model, gate),
            partial_s=partial,
            fill=fill,
            max_tokens=max_tokens,
            cancel=cancel,
        )
        shown.show(events, progress)
        line.remark(shown.lag_remark())
    if shown.is_cancelled and file is not None:
        raise KeyboardInterrupt


def _sound(file: str | None, device: str | None) -> Iterator[Samples]:
    """Sound at the pace of a speaker. A recording is opened now, a microphone with the first
    piece.
    """
    if file is None:
        from matryo.inputs.microphone import microphone

        chosen = int(device) if device is not None and device.isdigit() else device
        return microphone(seconds=PIECE_S, device=chosen)
    from matryo.inputs.sound import sound_pieces
    from matryo.inputs.source import Source
    from matryo.speech.hearing import paced
    from matryo.speech.transcribe import sound_seconds

    source = Source.of(file, allow_urls=True)
    sound_seconds(source)
    return paced(sound_pieces(source, PIECE_S))
