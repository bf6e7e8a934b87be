"""Option groups shared by several commands; each field is one option, `command` flattens them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

MODEL_HELP = (
    "A packed or Hugging Face directory, or the name of a pulled model; "
    "the embedded model if omitted."
)
SIZE_HELP = (
    "Which of the nested models: a preset such as e2b, a plan as plan.json or plans.json:NAME, "
    "or a row of a table as table.csv:ROW."
)


class Weights(StrEnum):
    """Kinds of packed weights."""

    F32 = "f32"
    BF16 = "bf16"
    Q8 = "q8"
    Q4 = "q4"


class KVKind(StrEnum):
    """Kinds of K/V cache elements."""

    F32 = "f32"
    BF16 = "bf16"
    INT8 = "int8"


class ModeName(StrEnum):
    """What becomes of the cache when an unsure answer goes on at the large size."""

    EXACT = "exact"
    APPROXIMATE = "approximate"
    REANCHOR = "reanchor"


class PolicyName(StrEnum):
    """Who chooses the size while an answer is written."""

    FIXED = "fixed"
    LATENCY = "latency"
    MEMORY = "memory"
    POWER = "power"
    AUTO = "auto"


ModelOption = Annotated[
    str | None,
    typer.Option("-m", "--model", metavar="PATH|NAME", help=MODEL_HELP, show_default=False),
]
ModelArgument = Annotated[
    str | None, typer.Argument(metavar="[MODEL]", help=MODEL_HELP, show_default=False)
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        "--size", metavar="SIZE", help=SIZE_HELP, show_default="the largest that the files hold"
    ),
]
WeightsOption = Annotated[
    Weights | None,
    typer.Option(help="Kind of weights a Hugging Face directory is packed to.", show_default="q4"),
]
KVOption = Annotated[
    KVKind | None,
    typer.Option(help="Kind of the K/V cache.", show_default="bf16; f32 beside f32 weights"),
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Worker threads.", show_default="one a core")
]
MaxTokensOption = Annotated[
    int, typer.Option("-n", "--max-tokens", min=1, help="Longest answer, in tokens.")
]
LikelihoodOption = Annotated[
    bool,
    typer.Option(
        "--likelihood", help="Predict the references of prompts instead of generating answers."
    ),
]
WindowOption = Annotated[
    int | None,
    typer.Option(
        min=2,
        help="Tokens of a text that are seen at a time.",
        show_default="1024, or the context",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOptions:
    """Which model is opened, and how."""

    model: ModelOption = None
    size: SizeOption = None
    weights: WeightsOption = None
    kv: KVOption = None
    threads: ThreadsOption = None
    context: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most tokens a session may hold.", show_default="the checkpoint's"
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How an answer is generated; what is not given comes from the checkpoint."""

    max_tokens: MaxTokensOption = 512
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="0 always takes the likeliest token.", show_default="the checkpoint's"
        ),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(
            min=0, help="Sample from the K likeliest; 0 = all.", show_default="the checkpoint's"
        ),
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Sample from the likeliest that sum to P.",
            show_default="the checkpoint's",
        ),
    ] = None
    min_p: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Drop tokens below P times the likeliest.",
            show_default="the checkpoint's",
        ),
    ] = None
    repetition_penalty: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Above 1 discourages repetition.", show_default="the checkpoint's"
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Same seed, same answer.", show_default="a new one each time"),
    ] = None
    draft: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE|lookup|auto",
            help="Guess tokens ahead and check several in one pass: by a smaller size, by looking "
            "the text up, or by both. The answer is the same without.",
            show_default=False,
        ),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(help="Stop before this text; may be repeated.", show_default=False),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ElasticOptions:
    """What chooses the size while an answer is written."""

    policy: Annotated[
        PolicyName | None,
        typer.Option(
            help="Change the size while the answer is written, to keep a budget; auto keeps all.",
            show_default="the one whose budget is given; else fixed",
        ),
    ] = None
    target_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS", help="Most milliseconds a token may take (latency).", show_default=False
        ),
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Most memory this process may have resident, such as 2GB (memory).",
            show_default=False,
        ),
    ] = None
    duty: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the time the machine may work, such as 0.5 (power).",
            show_default=False,
        ),
    ] = None
    exact: Annotated[
        bool, typer.Option("--exact", help="Only sizes that leave the cache exact.")
    ] = False
    escalate: Annotated[
        ModeName | None,
        typer.Option(
            help="Begin small and take --size where the answer is unsure, in a cache that stays "
            "exact, that the small size wrote, or that is computed again where it pays.",
            show_default=False,
        ),
    ] = None
    thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="When it is unsure: from `matryo calibrate`.", show_default=False
        ),
    ] = None
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write what was read and decided, as JSON lines.",
            show_default=False,
        ),
    ] = None
