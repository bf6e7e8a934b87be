"""`matryo bench video`: how many frames a second a model takes in on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from matryo.cli.options import JsonOption, ModelArgument, Weights

if TYPE_CHECKING:
    from matryo.cli.measure_video import VideoReport
    from matryo.loading import Model

SIZES = (256, 512, 768)


def bench_video(
    model: ModelArgument = None,
    *,
    video: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A video to use.", show_default="1280 x 720, made for the purpose"
        ),
    ] = None,
    resolution: Annotated[
        list[int] | None,
        typer.Option(
            min=32,
            max=4096,
            help="An input size to measure, in pixels; may be repeated.",
            show_default="256, 512 and 768",
        ),
    ] = None,
    same: Annotated[
        float, typer.Option(min=0.0, help="Similarity from which frames reuse tokens.")
    ] = 0.98,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 3,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Seconds of each measurement; one frame is always done.")
    ] = 1.0,
    weights: Annotated[
        Weights | None,
        typer.Option(
            help="Kind of weights a Hugging Face directory is packed to.", show_default="q4"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Worker threads.", show_default="one a core")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure the frames a second of a video, for each input size and stage.

    Stages are measured alone, and together with near-duplicate frames reused and without.
    """
    from matryo.cli.attachments import require_encoder
    from matryo.cli.measure_video import VideoTask, measure_video, synthetic_video
    from matryo.cli.models import open_model
    from matryo.cli.options import LoadOptions
    from matryo.cli.output import write_json
    from matryo.cli.progress import Bar

    opened = open_model(LoadOptions(model=model, weights=weights, threads=threads))
    require_encoder(opened, "vision")
    task = VideoTask(
        video=video or synthetic_video(),
        sizes=tuple(dict.fromkeys(resolution or SIZES)),
        rounds=rounds,
        seconds=seconds,
        threshold=same,
    )
    with Bar("Measuring", unit="runs") as bar:
        report = measure_video(opened, task, bar)
    if json:
        from matryo.cli.bench import machine

        write_json({**machine(opened), **report.to_json()}, indent=1)
    else:
        _show(opened, report)


def _show(model: Model, report: VideoReport) -> None:
    from matryo.cli.bench import machine, warn_if_busy
    from matryo.cli.info import add_row
    from matryo.cli.measure_video import REAL_TIME, STAGES
    from matryo.cli.output import console, new_table, print_name

    screen, here = console(), machine(model)
    print_name(
        screen,
        f"{here['model']}: weights {here['weights']}, {here['threads']} "
        f"thread{'s' * (here['threads'] != 1)}, {here['isa']}",
    )
    table = new_table(
        f"Frames a second, median (lowest-highest) of {report.rounds} "
        f"round{'s' * (report.rounds > 1)}"
    )
    headings = ("decode", "decode, resize", "compare", "encode", "all but encode")
    for heading in ("pixels", *headings, "reusing", "encoding all"):
        table.add_column(heading, justify="right")
    for size, one in report.sizes.items():
        spreads = [*(one.stages[name] for name in STAGES), one.front, one.reusing, one.encoding_all]
        add_row(table, str(size), *(spread.format(1) for spread in spreads))
    screen.print(table)
    for size, one in report.sizes.items():
        front = "hold" if one.front.median >= REAL_TIME else "do not hold"
        screen.print(
            f"{size} pixels: decoding, resizing and comparing {front} 60 frames a second; encoding "
            f"keeps up while at most {one.new_share_for_real_time:.1%} of them are new. In this "
            f"video {one.reused:.0%} reused tokens: {one.reusing.median:.1f} frames a second.",
            style="dim",
        )
    warn_if_busy(report.others)
