"""`matryo elasticize`: a dense decoder into one that can be cut at several widths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matryo.cli.options import JsonOption


def elasticize(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SRC", help="A Hugging Face directory (Gemma 3, Llama, Qwen) or a .gguf file."
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The directory to write.")],
    *,
    texts: Annotated[
        list[Path],
        typer.Option("--texts", metavar="FILE", help="What to learn from: .jsonl or .txt."),
    ],
    held_out: Annotated[
        list[Path] | None,
        typer.Option("--held-out", metavar="FILE", help="What to measure on; else a part of it."),
    ] = None,
    questions: Annotated[
        list[str] | None,
        typer.Option(
            "--questions", metavar="NAME=FILE", help="Multiple choice to measure, a .jsonl file."
        ),
    ] = None,
    widths: Annotated[
        str, typer.Option("--widths", metavar="PERCENT,…", help="Widths besides the full one.")
    ] = "25,50,75",
    measure: Annotated[
        str,
        typer.Option("--measure", help="What units are ordered by: activation, taylor or weight."),
    ] = "activation",
    fit: Annotated[
        bool, typer.Option("--fit/--no-fit", help="Refit the down matrices to all widths.")
    ] = True,
    steps: Annotated[
        int, typer.Option("--steps", min=0, help="Of the distillation; 0 = none.")
    ] = 300,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Of text, a step.")] = 4,
    sequence: Annotated[int, typer.Option("--sequence", min=2, help="Tokens of a row.")] = 128,
    rate: Annotated[
        float, typer.Option("--rate", min=0.0, help="The learning rate, at its peak.")
    ] = 2e-4,
    vocabulary: Annotated[
        int,
        typer.Option("--vocabulary", min=0, help="Likeliest ids to distil over; 0 = all of them."),
    ] = 16384,
    calibration: Annotated[
        int, typer.Option("--calibration", min=1, help="Rows of text to order and fit by.")
    ] = 64,
    measured: Annotated[int, typer.Option("--measured", min=1, help="Rows of held-out text.")] = 32,
    weights: Annotated[str, typer.Option("--weights", help="Of the files: bf16 or f32.")] = "bf16",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of every draw.")] = 0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of torch.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a dense model elastic: order its FFN units, then distil it into its own prefixes.

    The same command continues a run that was stopped. The result opens in transformers, and
    `matryo slice` cuts each width out of it; `matryo run` runs Gemma 3n only. Needs the extra: pip
    install 'matryo[train]'.
    """
    from matryo.cli.extra import training
    from matryo.cli.outcome import reply
    from matryo.cli.output import write_json
    from matryo.cli.progress import Bar
    from matryo.errors import ConfigError

    with training():
        from matryo.train.elastic_files import DTYPES
        from matryo.train.elasticize import Options
        from matryo.train.elasticize import elasticize as run
        from matryo.train.importance import MEASURES
        from matryo.train.recover import Recovery
    for name, value, allowed in (("measure", measure, MEASURES), ("weights", weights, DTYPES)):
        if value not in allowed:
            raise ConfigError(f"--{name} is {value!r}; expected one of {', '.join(allowed)}")
    recovery = Recovery(steps=steps, rows=rows, rate=rate, vocabulary=vocabulary)
    options = Options(
        source=source,
        target=target,
        texts=tuple(texts),
        held_out=tuple(held_out or ()),
        shares=_percentages(widths),
        measure=measure,  # type: ignore[arg-type]
        calibration=calibration,
        measured=measured,
        sequence=sequence,
        fit=fit,
        recovery=recovery,
        questions=_named(questions or []),
        dtype=weights,
        seed=seed,
        threads=threads,
    )
    with Bar("Measuring", unit="rows") as bar:
        report = run(options, say=reply, progress=bar)
    if json:
        write_json(report.to_json())
    else:
        reply(report.table())


def _percentages(text: str) -> tuple[int, ...]:
    from matryo.errors import InputError

    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"--widths is {text!r}; expected percentages such as 25,50,75") from None


def _named(pairs: list[str]) -> dict[str, Path]:
    from matryo.errors import InputError

    found = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not name or not equals or not path:
            raise InputError(f"--questions is {pair!r}; expected NAME=FILE")
        found[name] = Path(path)
    return found
