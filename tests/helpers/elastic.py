"""A ladder of made-up sizes, for tests of policies."""

from __future__ import annotations

from dataclasses import replace

from matryo.elastic.ladder import Level
from matryo.elastic.policy import Policy, Rules
from matryo.plan import Plan

MB = 10**6


def ladder(*, windows: tuple[int, ...] = ()) -> tuple[Level, ...]:
    """Sizes of 100, 80, 60 and 50 MB; then int8, then shorter contexts."""
    sizes = []
    for number, megabytes in enumerate((100, 80, 60, 50)):
        plan = Plan((0, 1), (32 * (5 - number), 32), 1)
        sizes.append(
            Level(
                name=f"s{megabytes}", plan=plan, cost=megabytes * MB, weight_bytes=megabytes * MB,
                kv="bf16", kv_bytes_per_token=10_000.0, kv_bytes_fixed=0, window=1000,
                exact=number == 0,
            )
        )  # fmt: skip
    last = replace(sizes[-1], kv="int8", kv_bytes_per_token=5_000.0)
    return (*sizes, last, *(replace(last, window=window) for window in windows))


def rules(policy: Policy, **more: object) -> Rules:
    return Rules(policy=policy, levels=ladder(**more))  # type: ignore[arg-type]


LATENCY = rules(Policy(kind="latency", target_seconds=0.1))
