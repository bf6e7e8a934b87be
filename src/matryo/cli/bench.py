"""`matryo bench`: how fast the sizes of a model are on this machine, and the memory they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from matryo.cli.options import JsonOption, KVKind, ModelArgument, Weights

if TYPE_CHECKING:
    from rich.console import Console

    from matryo.cli.measure import Report, Switch
    from matryo.loading import Model

PROMPT_TOKENS = 256
BUSY = 0.1  # above this share of the processors, other programs make the figures worthless


def bench(
    model: ModelArgument = None,
    *,
    size: Annotated[
        list[str] | None,
        typer.Option(
            "--size",
            metavar="SIZE",
            help="A size to measure; may be repeated.",
            show_default="every different one that the files hold",
        ),
    ] = None,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Length of the prompt, in tokens.",
            show_default="256, or what the context leaves",
        ),
    ] = None,
    tokens: Annotated[int, typer.Option("-n", "--tokens", min=1, help="Tokens to decode.")] = 64,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that count.")] = 7,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="No round begins after so many seconds.")
    ] = 60.0,
    weights: Annotated[
        Weights | None,
        typer.Option(
            help="Kind of weights a Hugging Face directory is packed to.", show_default="q4"
        ),
    ] = None,
    kv: Annotated[KVKind, typer.Option(help="Kind of the K/V cache.")] = KVKind.BF16,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Worker threads.", show_default="one a core")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure the speed of every size on this machine.

    Rounds are interleaved; figures are the median, the lowest and the highest of them.
    """
    from matryo.cli.measure import Task, measure
    from matryo.cli.models import open_model
    from matryo.cli.options import LoadOptions
    from matryo.cli.output import write_json
    from matryo.cli.progress import Bar

    opened = open_model(LoadOptions(model=model, weights=weights, kv=kv, threads=threads))
    task = Task(
        sizes=_by_cost(opened, size) if size else different_sizes(opened),
        prompt_tokens=prompt_tokens or _fitting_prompt(opened, tokens),
        tokens=tokens,
        rounds=rounds,
        seconds=seconds,
        kv=kv.value,
    )
    with Bar("Measuring", unit="runs") as bar:
        report = measure(opened, task, bar)
    if json:
        write_json({**machine(opened), **report.to_json()}, indent=1)
    else:
        _show(opened, report)


def _fitting_prompt(model: Model, tokens: int) -> int:
    return max(1, min(PROMPT_TOKENS, model.config.context_length - tokens - 1))


def different_sizes(model: Model) -> tuple[str, ...]:
    """Names of the plans that can run here, smallest first; of equal plans the first name."""
    from matryo.errors import PlanError

    found: dict[object, str] = {}
    for name in model.plans:
        try:
            found.setdefault(model.plan(name), name)
        except PlanError:  # needs a file that is not there
            continue
    return _by_cost(model, list(found.values()))


def _by_cost(model: Model, names: list[str]) -> tuple[str, ...]:
    costs = {name: model.cost(name).bytes for name in names}
    return tuple(sorted(costs, key=lambda name: costs[name]))


def machine(model: Model) -> dict[str, object]:
    """What was measured on what: model, kind of weights, threads, instruction set."""
    from matryo import kernels

    return {
        "model": model.name,
        "weights": model.weights,
        "threads": kernels.threads(),
        "isa": kernels.isa(),
    }


def _show(model: Model, report: Report) -> None:
    from matryo.cli.info import add_row, show_ledger
    from matryo.cli.output import console, format_bytes, new_table, print_name

    screen, here, task = console(), machine(model), report.task
    print_name(
        screen,
        f"{here['model']}: weights {here['weights']}, K/V {task.kv}, "
        f"{here['threads']} thread{'s' * (here['threads'] != 1)}, {here['isa']}",
    )
    count = len(report.bandwidth.rounds)
    table = new_table(
        f"Prompt of {task.prompt_tokens} tokens, {task.tokens} decoded behind it: "
        f"median (lowest-highest) of {count} round{'s' * (count > 1)}"
    )
    table.add_column("size", overflow="fold")
    for heading in ("prompt tokens/s", "decoded tokens/s", "read a token", "of the bandwidth, %"):
        table.add_column(heading, justify="right")
    for name, figures in report.sizes.items():
        add_row(
            table,
            name,
            figures.prefill.format(0),
            figures.decode.format(),
            format_bytes(figures.needed_bytes),
            figures.share.format(0, 100.0),
        )
    screen.print(table)
    screen.print(
        f"Read bandwidth, measured beside every round: {report.bandwidth.format(1, 1e-9)} GB/s. "
        "What a token reads is counted from shapes (weights, cut units left out, and K/V); more "
        "than 100 % of the bandwidth means that it came from the processor's caches.",
        style="dim",
    )
    if report.switch is not None:
        _show_switch(screen, report.switch)
    show_ledger(screen, report.ledger)
    warn_if_busy(report.others)


def warn_if_busy(others: float) -> None:
    """others: share of the processors that other programs used while something was measured."""
    from matryo.cli.outcome import warn

    if others > BUSY:
        warn(
            f"other programs used {others:.0%} of the processors: measure again when they are idle"
        )


def _show_switch(screen: Console, switch: Switch) -> None:
    from matryo.cli.escape import escape_name

    small, large = switch.sizes
    cost = (
        "the cache is kept"
        if switch.keeps_cache
        else "the sizes cache different layers, so the cache is computed again"
    )
    screen.print(
        f"\nSwitching between {escape_name(small)} and {escape_name(large)} inside an answer: "
        f"{switch.assign.format(1, 1e6)} µs; "
        f"the token after it took {switch.extra.format(2, 1e3)} ms more than others; {cost}.",
    )
