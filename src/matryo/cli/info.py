"""`matryo info`: what a checkpoint is, which sizes it holds, and where its bytes live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from matryo.cli.options import JsonOption, KVKind, ModelArgument, SizeOption, Weights

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from matryo.cli.description import Description, SizeDescription
    from matryo.config import TextConfig
    from matryo.elastic.ledger import Ledger
    from matryo.tower_config import TowerConfig


def info(
    model: ModelArgument = None,
    *,
    size: SizeOption = None,
    weights: Annotated[
        Weights, typer.Option(help="Kind of weights to count a Hugging Face directory for.")
    ] = Weights.Q4,
    kv: Annotated[KVKind, typer.Option(help="Kind of K/V cache to count for.")] = KVKind.BF16,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every byte with the checksums.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Describe a checkpoint: architecture, sizes, files, memory.

    A Hugging Face directory is described as it is, without packing it.
    """
    from matryo.cli.description import describe_checkpoint
    from matryo.cli.output import write_json
    from matryo.cli.progress import Bar
    from matryo.loading.home import find_directory

    with Bar("Verifying", unit="bytes") as bar:
        description = describe_checkpoint(
            find_directory(model),
            weights=weights.value,
            kv=kv.value,
            size=size,
            verify=bar if verify else None,
        )
    if json:
        write_json({**description.to_json(), "verified": verify}, indent=1)
    else:
        _show(description, verified=verify)


def _show(description: Description, *, verified: bool) -> None:
    from matryo.cli.output import console, print_name

    screen = console()
    print_name(screen, description.path.name)
    form = "packed" if description.form == "packed" else "Hugging Face directory, not packed"
    stored = f", weights {description.weights}" if description.form == "packed" else ""
    print_name(screen, f"{description.path} ({form}{stored})")
    if verified:
        screen.print("every byte is what the checksums say")
    _show_architecture(screen, description.config, description.towers)
    _show_sizes(screen, description)
    _show_files(screen, description)
    show_ledger(screen, description.ledger)


def _show_architecture(screen: Console, config: TextConfig, towers: TowerConfig) -> None:
    from matryo.cli.output import new_table

    table = new_table("Architecture")
    table.show_header = False
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (*architecture(config), *encoders(towers)):
        table.add_row(name, value)
    screen.print(table)


def architecture(config: TextConfig) -> list[tuple[str, str]]:
    """The shape of a decoder, one line a part."""
    owners, readers = range(config.num_owners), config.num_layers - config.num_owners
    full = [layer for layer in owners if not config.window[layer]]
    window = max(config.window)
    sparse = [layer for layer in range(config.num_layers) if config.sparsity[layer]]
    shares = sorted({f"{config.sparsity[layer]:.0%}" for layer in sparse})
    lowest, widest = min(config.ffn_width), max(config.ffn_width)
    rows = [
        (
            "layers",
            f"{config.num_layers}: {config.num_owners} write K/V, {readers} read theirs",
        ),
        (
            "attention",
            f"{config.num_heads} heads, {config.num_kv_heads} for K/V, of {config.head_dim}; "
            f"K/V of {config.num_owners - len(full)} layers over a window of {window}, "
            f"of {len(full)} over everything",
        ),
        ("FFN", f"{widest}" if lowest == widest else f"{lowest} to {widest}"),
        (
            "cut units",
            f"{' and '.join(shares)} of the FFN in {len(sparse)} layers" if sparse else "none",
        ),
        ("hidden size", f"{config.hidden_size}, in 4 streams"),
        ("per-layer inputs", f"{config.ple_dim} a layer, for {config.ple_vocab_size} ids"),
        ("vocabulary", f"{config.vocab_size}"),
        ("context", f"{config.context_length} tokens"),
    ]
    return rows


def encoders(towers: TowerConfig) -> list[tuple[str, str]]:
    """What a checkpoint sees and hears, one line an encoder."""
    rows = []
    if towers.vision is not None:
        vision = towers.vision
        rows.append(("pictures", f"MobileNet-V5, {vision.ids.count} tokens a picture"))
    if towers.audio is not None:
        audio = towers.audio
        rows.append(
            (
                "sound",
                f"{audio.num_layers} conformer layers of {audio.hidden_size}, a token each "
                f"{audio.frames_per_token * 10} ms, {audio.ids.count} tokens a clip",
            )
        )
    return rows


def _show_sizes(screen: Console, description: Description) -> None:
    from matryo.cli.output import format_bytes, format_count, new_table

    table = new_table(
        f"Sizes, counted from shapes (weights {description.weights}, K/V {description.kv})"
    )
    table.add_column("size", overflow="fold")
    table.add_column("what runs", overflow="fold")
    for heading in ("params", "in all", "read/token", "K/V/token", "kept"):
        table.add_column(heading, justify="right")
    incomplete = any(size.missing_file for size in description.sizes.values())
    if incomplete:
        table.add_column("needs", overflow="fold")
    for names, size in by_plan(description.sizes):
        cells = [
            ", ".join(names),
            size.plan.describe(),
            format_count(size.parameters.effective),
            format_count(size.parameters.total),
            format_bytes(size.bytes_per_token),
            format_bytes(size.kv_bytes_per_token),
            format_bytes(size.kv_bytes_kept_per_token),
        ]
        add_row(table, *cells, *([size.missing_file or ""] if incomplete else []))
    screen.print(table)
    screen.print(
        "params: parameters that compute; in all: with the tables of embeddings. read/token: "
        "weights that one decoded token reads, without cut units. K/V/token: what it writes; kept: "
        "the part that stays when the windows have moved on.",
        style="dim",
    )


def by_plan(sizes: Mapping[str, SizeDescription]) -> list[tuple[list[str], SizeDescription]]:
    """Names of one plan together, in the order of their first names."""
    rows: dict[object, tuple[list[str], SizeDescription]] = {}
    for name, size in sizes.items():
        rows.setdefault(size.plan, ([], size))[0].append(name)
    return list(rows.values())


def _show_files(screen: Console, description: Description) -> None:
    from matryo.cli.output import format_bytes, new_table

    table = new_table("Files")
    table.add_column("file", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("holds", overflow="fold")
    for file in description.files:
        add_row(
            table,
            file.name,
            format_bytes(file.bytes),
            file.holds if file.present else f"missing: {file.holds}",
        )
    screen.print(table)


def show_ledger(screen: Console, ledger: Ledger) -> None:
    """Where the bytes of this process live, as a table."""
    from matryo.cli.output import format_bytes, new_table

    table = new_table(f"Memory of this process, read from {ledger.source}")
    table.add_column("what", overflow="fold")
    table.add_column("kind")
    table.add_column("in all", justify="right", no_wrap=True)
    table.add_column("in memory now", justify="right")
    for row in ledger.rows:
        add_row(
            table,
            row.name,
            row.kind,
            format_bytes(row.total_bytes),
            format_bytes(row.resident_bytes),
        )
    table.add_section()
    add_row(table, "the whole process", "", "", format_bytes(ledger.resident_bytes))
    screen.print(table)


def add_row(table: Table, *cells: str) -> None:
    """A row of untrusted texts."""
    from matryo.cli.escape import escape_name

    table.add_row(*map(escape_name, cells))
