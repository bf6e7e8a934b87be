"""Write the table of docs/clusters.md: memory and speed predicted for training all of E4B on N
accelerators; `--check` only says whether it is fresh.

In: the shapes of E4B, the constants below. Out: the lines between the page's markers. Nothing here
is measured: the page says which figures are assumed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.between import replace_between  # noqa: E402
from benchmarks.synthetic.hugging_face import config as shape  # noqa: E402
from benchmarks.synthetic.shapes import Dimensions, nested_sizes  # noqa: E402

from matryo.config import NUM_STREAMS, TextConfig  # noqa: E402
from matryo.model.parameters import count_parameters  # noqa: E402
from matryo.plan import full_plan, presets  # noqa: E402

PAGE = ROOT / "docs" / "clusters.md"
SEQUENCE, TOKENS = 4096, 8192  # of a row; of a pass and accelerator
STATE_BYTES = 16  # a weight: itself, its gradient, two averages of AdamW, in float32
FLOAT = 4
SHARE = 0.35  # of the peak of bf16 products
RECOMPUTE = 8 / 6  # operations with every layer computed twice forward
HEAD_BYTES = 0.4e9
OVERHEAD_BYTES = 2e9  # the driver, the library, fragments


@dataclass(frozen=True)
class Accelerator:
    """flops: dense bf16 a second · inside, between: usable bytes a second and accelerator within a
    machine of eight and from machine to machine.
    """

    name: str
    flops: float
    memory: float
    inside: float
    between: float


ACCELERATORS = (
    Accelerator("A100 80 GB", 312e12, 80e9, 240e9, 20e9),
    Accelerator("H100 80 GB", 989e12, 80e9, 360e9, 40e9),
    Accelerator("B200 180 GB", 2250e12, 180e9, 720e9, 40e9),
)
COUNTS = (1, 2, 4, 8, 16, 32, 64)


def e4b() -> TextConfig:
    dimensions = Dimensions()
    return TextConfig.from_json(shape(nested_sizes(dimensions)["e4b"], dimensions))


def bytes_needed(config: TextConfig, count: int) -> float:
    """Of one accelerator at the worst moment of a step."""
    sizes = count_parameters(config, full_plan(config))
    state = STATE_BYTES * sizes.total / count
    layer = FLOAT * sizes.effective / config.num_layers
    # The table, its gradient and what is sent of it; two layers, and a gradient of one.
    gathered = 0.0 if count == 1 else 3 * FLOAT * sizes.ple + 3 * layer
    embedding = 0.0 if count == 1 else 2 * FLOAT * sizes.embedding
    streams = NUM_STREAMS * config.hidden_size * config.num_layers
    inputs = 2 * config.ple_dim * config.num_layers
    one_layer = 4 * max(config.ffn_width) + 12 * NUM_STREAMS * config.hidden_size
    activations = FLOAT * TOKENS * (streams + inputs + one_layer)
    return state + gathered + embedding + activations + HEAD_BYTES + OVERHEAD_BYTES


def seconds(config: TextConfig, kind: Accelerator, count: int) -> tuple[float, float]:
    """Of a step with the two released sizes: products, and sending."""
    from matryo.train.meter import operations
    from matryo.train.widths import Pass

    plans = (full_plan(config), presets(config)["e2b"])
    passes = [Pass("", plan, 1.0) for plan in plans]
    computing = RECOMPUTE * operations(config, passes, TOKENS, SEQUENCE) / (SHARE * kind.flops)
    total = count_parameters(config, full_plan(config)).total
    # A pass gathers all weights twice and sends their gradients once.
    sent = len(passes) * 3 * FLOAT * total * (count - 1) / count
    return computing, sent / (kind.inside if count <= 8 else kind.between)


def table() -> str:
    config = e4b()
    heading = " | ".join(f"{kind.name}, tokens/s" for kind in ACCELERATORS)
    lines = [f"| accelerators | GB each | {heading} |", "|---" * (2 + len(ACCELERATORS)) + "|"]
    for count in COUNTS:
        needed = bytes_needed(config, count)
        cells = []
        for kind in ACCELERATORS:
            if needed > kind.memory:
                cells.append("does not fit")
                continue
            computing, sending = seconds(config, kind, count)
            low, high = (count * TOKENS / s for s in (computing + sending, max(computing, sending)))
            cells.append(f"{low:,.0f}" if count == 1 else f"{low:,.0f}-{high:,.0f}")
        lines.append(f"| {count} | {needed / 1e9:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Write or check the page; returns the exit code."""
    before = PAGE.read_text(encoding="utf-8")
    if "--check" in sys.argv[1:]:
        fresh = table() in before
        print("fresh" if fresh else "stale: run python scripts/cluster_table.py")
        return 0 if fresh else 1
    replace_between(PAGE, "table", table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
