"""What a step costs and how well the machine is used.

In: plans, tokens, seconds. Out: floating-point operations, the share of the measured peak of matrix
products, time left. The peak is measured where the run runs, in its threads: a share of it says how
much of the time the processor did what it does best. Where something else is busy then, a step may
be faster: it is the peak from there on.
"""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Sequence

import torch

from matryo.config import TextConfig
from matryo.model.cost import decode_macs
from matryo.plan import Plan
from matryo.train.widths import Pass

FORWARD, WITH_BACKWARD = 2, 6  # operations a multiply-accumulate: alone, and with both gradients


def measured_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """Operations a second of one large product, the best of those that fit into `seconds`."""
    size = 1024 if device.type == "cpu" else 8192
    # Its own draws: measuring changes no number of a run.
    own = torch.Generator(device).manual_seed(0)
    a = torch.randn(size, size, device=device, dtype=dtype, generator=own)
    best, until = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < until:
        start = time.perf_counter()
        torch.mm(a, a)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2.0 * size**3 / (time.perf_counter() - start))
    return best


class Peak:
    """The highest speed that was seen, in operations a second."""

    def __init__(self, measured: float) -> None:
        self.speed = measured

    def share(self, speed: float) -> float:
        """`speed` as a share of the highest, which it may be itself."""
        self.speed = max(self.speed, speed)
        return speed / self.speed


def operations(
    config: TextConfig,
    passes: Sequence[Pass],
    tokens: int,
    sequence: int,
    shares: bool = False,
) -> float:
    """Floating-point operations of a step over `tokens` in rows of `sequence`. shares: layers that
    a plan has in common with an earlier one, from the first on, are computed once.
    """
    total = 0.0
    for number, one in enumerate(passes):
        earlier = [p.plan for p in passes[:number] if bool(p.weight) == bool(one.weight)]
        plan = one.plan
        if shares and earlier:
            plan = _rest(plan, max(_alike(plan, other) for other in earlier))
        cost = WITH_BACKWARD if one.weight else FORWARD
        total += cost * macs_per_token(config, plan, sequence)
    return tokens * total


def _alike(plan: Plan, other: Plan) -> int:
    """How many of its first layers another plan runs alike."""
    ours, theirs = (list(zip(p.layers, p.ffn_width, strict=True)) for p in (plan, other))
    count = 0
    while count < min(len(ours), len(theirs)) and ours[count] == theirs[count]:
        count += 1
    return count


def _rest(plan: Plan, count: int) -> Plan:
    """Without its first layers, to be counted; of a plan that is all known, the last one."""
    first = min(count, len(plan.layers) - 1)
    return Plan(plan.layers[first:], plan.ffn_width[first:], plan.num_owners)


def macs_per_token(config: TextConfig, plan: Plan, sequence: int) -> float:
    """Multiply-accumulates of the forward pass: all FFN units, whatever is cut, for a product over
    a cut unit is computed here; attention over the visible keys, on average.
    """
    dense = dataclasses.replace(config, sparsity=(0.0,) * config.num_layers)
    attention = 0.0
    for layer in plan.layers:
        window = min(config.window[layer] or sequence, sequence)
        visible = window - window * (window - 1) / (2 * sequence)
        attention += 2 * config.num_heads * config.head_dim * visible
    return sum(decode_macs(dense, plan).values()) + attention


class Clock:
    """Seconds of the last steps."""

    def __init__(self, steps: int = 20) -> None:
        self._recent: deque[float] = deque(maxlen=steps)
        self._started = time.perf_counter()

    def start(self) -> None:
        """A step begins; what lies between steps is not counted."""
        self._started = time.perf_counter()

    def stop(self) -> float:
        """Seconds of the step that began last."""
        seconds = time.perf_counter() - self._started
        self._recent.append(seconds)
        return seconds

    def left(self, steps: int) -> float:
        """Seconds that `steps` more will take at the pace of the last ones."""
        return steps * sum(self._recent) / max(1, len(self._recent))
