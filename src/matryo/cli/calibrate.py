"""`matryo calibrate`: when an answer should go on at the large size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from matryo.cli.options import JsonOption, ModelArgument

WINDOW = 256


def calibrate(
    model: ModelArgument = None,
    *,
    text: Annotated[
        Path,
        typer.Option(
            "-t", "--text", metavar="FILE", help="Text like the answers.", show_default=False
        ),
    ],
    small: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="The size that begins.", show_default="the smallest"),
    ] = None,
    large: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Where it is unsure.", show_default="the largest"),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Of tokens that the large size may take.")
    ] = 0.3,
    measure: Annotated[
        str, typer.Option(help="Of doubt: entropy, or margin of the two likeliest tokens.")
    ] = "entropy",
    window: Annotated[int, typer.Option(min=1, max=64, help="Tokens whose mean decides.")] = 2,
    limit: Annotated[int, typer.Option(min=64, help="Most tokens of the text.")] = 8192,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write the thresholds, for --thresholds.",
            show_default=False,
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Find the thresholds of `--escalate` on a text, and show what they are worth."""
    import matryo
    from matryo.cli.outcome import CommandError
    from matryo.cli.output import check_output, write_json
    from matryo.cli.progress import Bar
    from matryo.elastic.calibrate import look, nearest, table
    from matryo.elastic.complexity import MEASURES

    chosen = next((one for one in MEASURES if one == measure), None)
    if chosen is None:
        raise CommandError(f"measure: expected {' or '.join(MEASURES)}, got {measure!r:.40}")
    check_output(output)
    try:
        words = text.read_bytes()[: limit * 16].decode("utf-8", errors="ignore")
    except OSError as error:
        raise CommandError(f"{text}: cannot be read: {error.strerror}") from error
    opened = matryo.load(model)
    escalation = opened.escalation(small, large)
    ids = opened.tokenizer.encode(words)[:limit]
    step = min(WINDOW, opened.config.context_length - 2)
    begin = [] if opened.config.bos_id is None else [opened.config.bos_id]
    with Bar("Reading", unit="tokens") as bar:

        def windows() -> Iterator[list[int]]:
            for start in range(0, len(ids), step):
                yield [*begin, *ids[start : start + step]]
                bar(min(start + step, len(ids)), len(ids))

        seen = look(opened, windows(), escalation.small, escalation.large, chosen)
    rows = table(seen, chosen, window)
    best = nearest(rows, share)
    if output is not None:
        best.thresholds.save(output)
    if json:
        write_json(
            {
                "small_loss": float(seen.small.mean()),
                "large_loss": float(seen.large.mean()),
                "tokens": len(seen.doubt),
                "rows": [row.to_json() for row in rows],
                "chosen": best.to_json(),
            }
        )
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=box.SIMPLE_HEAD)
    for name in ("large", "above", "below", "nats/token", "at random"):
        shown.add_column(name, justify="right")
    shown.add_row("0 %", "", "", f"{seen.small.mean():.4f}", f"{seen.small.mean():.4f}")
    for row in rows:
        mark = " *" if row is best else ""
        shown.add_row(
            f"{row.share:.0%}{mark}",
            f"{row.thresholds.above:.3f}",
            f"{row.thresholds.below:.3f}",
            f"{row.loss:.4f}",
            f"{row.random_loss:.4f}",
        )
    shown.add_row("100 %", "", "", f"{seen.large.mean():.4f}", f"{seen.large.mean():.4f}")
    Console().print(shown)
