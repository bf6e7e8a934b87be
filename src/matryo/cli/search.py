"""`matryo search`: the best sub-models of a checkpoint for a task on this device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matryo.cli.eval import TaskOption
from matryo.cli.options import (
    JsonOption,
    KVOption,
    LikelihoodOption,
    MaxTokensOption,
    ModelArgument,
    ThreadsOption,
    WeightsOption,
    WindowOption,
)

if TYPE_CHECKING:
    from matryo.search import Found

STORE = "evaluations.sqlite"


def search_sizes(
    model: ModelArgument = None,
    *,
    task: TaskOption,
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="How long this run may take: 90s, 10m, 2h.")
    ] = "10m",
    objective: Annotated[
        str,
        typer.Option(metavar="A,B,C", help="What plans are compared by: quality, latency, memory."),
    ] = "quality,latency,memory",
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The file of plans; a picture (.png) and a report (.md) are put beside it.",
        ),
    ] = Path("plans.json"),
    metric: Annotated[
        str | None,
        typer.Option(help="What quality is.", show_default="the one that counts for the task"),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(help="The part of the task, if it has several.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Most rows, chosen by the seed.", show_default="all"),
    ] = None,
    held_out: Annotated[
        float, typer.Option(min=0.1, max=0.9, help="Share of the rows for the report alone.")
    ] = 0.5,
    trials: Annotated[
        int | None,
        typer.Option(
            min=0, help="Most plans the optimiser tries.", show_default="what time allows"
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where results are kept, so that nothing is computed twice.",
            show_default=f"{STORE} in MATRYO_HOME",
        ),
    ] = None,
    keep: Annotated[
        float, typer.Option(min=0.0, help="Most GB kept for plans that share lower layers.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the optimiser, intervals.")] = 0,
    max_tokens: MaxTokensOption = 128,
    likelihood: LikelihoodOption = False,
    window: WindowOption = None,
    weights: WeightsOption = None,
    kv: KVOption = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Search for the sizes that are worth having: quality, speed and memory, measured here.

    Writes plans for `--size FILE:NAME`, judged on rows that the search did not see. Stopped at any
    moment, the same command goes on where it was. Needs: pip install 'matryo[search]'.
    """
    from matryo.cli.models import open_model
    from matryo.cli.options import LoadOptions
    from matryo.cli.outcome import CommandError, reply
    from matryo.cli.output import check_output, write_json
    from matryo.cli.progress import Bar
    from matryo.evaluate import Settings, read_task
    from matryo.evaluate.store import Store
    from matryo.loading.home import home_directory
    from matryo.search import SearchSettings, search
    from matryo.search.settings import seconds_of

    settings = SearchSettings(
        budget_s=seconds_of(budget),
        trials=trials,
        objectives=tuple(name.strip() for name in objective.split(",")),
        metric=metric,
        part=part,
        held_out=held_out,
        keep_bytes=int(keep * 1e9),
        evaluation=Settings(
            limit=limit,
            seed=seed,
            max_tokens=max_tokens,
            likelihood=likelihood,
            window=window,
            kv=kv.value if kv else None,
        ),
    )
    if output.suffix != ".json":
        raise CommandError(f"--output: expected a name that ends in .json, got {output}")
    check_output(output)
    read = read_task(task)
    kept_in = store or home_directory() / STORE
    opened = open_model(LoadOptions(model=model, weights=weights, kv=kv, threads=threads))
    with Store(kept_in) as kept, Bar("Searching", unit="s") as bar:
        try:
            found = search(opened, read, kept, settings, progress=bar)
        except KeyboardInterrupt:
            bar.close()
            reply(f"stopped; results are kept in {kept_in}: the same command goes on")
            raise
    _write(found, output)
    if json:
        write_json(found.to_json(), indent=1)
    else:
        _show(found, output)


def _write(found: Found, output: Path) -> None:
    """The plans, then what explains them."""
    from matryo.checkpoint.atomic import replace_text
    from matryo.search.report import draw, markdown

    document = found.to_json()
    found.save(output)
    picture = output.with_suffix(".png")
    draw(document, picture)
    replace_text(output.with_suffix(".md"), markdown(document, picture.name))


def _show(found: Found, output: Path) -> None:
    from matryo.cli.escape import escape_name
    from matryo.cli.eval import warn_of_rows
    from matryo.cli.info import add_row
    from matryo.cli.output import console, format_bytes, format_count, new_table
    from matryo.search.report import interval_text

    warn_of_rows(found.left_out)
    screen = console()
    arrow = "↑" if found.higher_is_better else "↓"
    table = new_table(
        f"{escape_name(found.task_name)}: {found.num_measured} plans measured on {found.searched} "
        f"rows, these on {found.held_out} others"
    )
    table.add_column("size", overflow="fold")
    headings = (
        "parameters", f"{found.metric.replace('_', ' ')} {arrow}", "above the line", "decode ms",
        "resident",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, one in found.candidates.items():
        add_row(
            table,
            name + (" *" if one.own else ""),
            format_count(one.effective),
            interval_text(one.quality.to_json()),
            interval_text(one.above_line.to_json(), "+"),
            f"{one.speed.decode_ms:.2f}",
            format_bytes(one.resident_bytes),
        )
    screen.print(table)
    screen.print(
        "* the model's own sizes. The line is straight, over parameters, from the smallest to the "
        f"largest. Use a plan with --size {escape_name(output)}:NAME.",
        style="dim",
    )
