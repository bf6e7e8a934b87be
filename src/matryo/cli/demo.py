"""`matryo demo`: the embedded model at two sizes, with speed and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from matryo.cli.options import GenerationOptions, JsonOption, LoadOptions

if TYPE_CHECKING:
    from matryo.cli.answer import Result
    from matryo.loading import Model

PROMPT = "It was a fine morning, and Mr. Darcy"
SIZES = ("small", "large")


def demo(
    prompt: Annotated[str, typer.Argument(help="The text that both sizes continue.")] = PROMPT,
    *,
    generation: GenerationOptions,
    json: JsonOption = False,
) -> None:
    """Let the embedded model continue a text at two of its sizes, from one copy of the weights."""
    from matryo.cli.generate import generate
    from matryo.cli.models import open_model
    from matryo.cli.outcome import reply

    model = open_model(LoadOptions())
    results: list[Result] = []
    for size in SIZES:
        if not json:
            reply(f"\n[{size}] {prompt} …")
        session = model.session(plan=size)
        result = generate(session, prompt, generation, json=json, remark=False)
        if result.cancelled:
            raise KeyboardInterrupt
        results.append(result)
    if not json:
        _show_table(model, results)


def _show_table(model: Model, results: list[Result]) -> None:
    from rich.table import Table

    from matryo.cli.answer import resident_bytes
    from matryo.cli.output import console, format_bytes, format_count

    table = Table(title=f"\n{model.name}: one set of weights, two models", title_justify="left")
    for heading in ("size", "what runs"):
        table.add_column(heading)
    for heading in ("parameters", "tokens", "tokens/s", "first token"):
        table.add_column(heading, justify="right")
    for size, result in zip(SIZES, results, strict=True):
        stats = result.end.stats
        table.add_row(
            size,
            model.plans[size].describe(),
            format_count(model.cost(size).parameters),
            str(stats.generated_tokens),
            f"{stats.tps:.0f}",
            f"{stats.seconds_to_first_token * 1e3:.0f} ms",
        )
    screen = console(stderr=True)
    screen.print(table)
    screen.print(f"Resident memory of the whole process: {format_bytes(resident_bytes())}")
