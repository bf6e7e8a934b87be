"""The sizes a controller may choose from, and what each of them costs.

In: the weights at hand and the plans a model has. Out: `Level`s, the fullest first. A level is a
plan, a kind of K/V cache and the most tokens the context may hold. The order is the order in which
things are given up: first the plan gets smaller, in steps inside the exact family of the largest
plan as far as possible, then K/V become int8, then the context gets shorter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from matryo.config import TextConfig
from matryo.errors import PlanError
from matryo.kernels.reference_pages import PAGE, page_bytes
from matryo.model.cost import plan_cost
from matryo.plan import Plan
from matryo.weights import TextWeights

SHORTEST_WINDOW = 512
"""Tokens; a context is not made shorter than this (or than it is)."""
LEAST_DIFFERENCE = 0.02
"""Of the bytes of a token; plans that are closer to each other are one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One way to run.

    cost: bytes of weights read for one token · weight_bytes: of the plan, in memory, without the
    tables that are only gathered
    kv: kind of the K/V cache · kv_bytes_per_token: of the layers that see the whole context
    kv_bytes_fixed: of the sliding layers · window: most tokens in the context
    exact: whether the plan is of the exact family of the fullest level's
    """

    name: str
    plan: Plan
    cost: int
    weight_bytes: int
    kv: str
    kv_bytes_per_token: float
    kv_bytes_fixed: int
    window: int
    exact: bool

    def kv_bytes(self, num_tokens: int) -> int:
        """Of a conversation of so many tokens, as far as the level keeps them."""
        return self.kv_bytes_fixed + round(self.kv_bytes_per_token * min(num_tokens, self.window))


def levels(
    config: TextConfig,
    weights: TextWeights,
    plans: Mapping[str, Plan],
    largest: str | Plan,
    *,
    kv: str,
    chunk: int,
    exact: bool = False,
) -> tuple[Level, ...]:
    """The ladder below and with the plan `largest`.

    plans: named sizes; those that are larger, or own other layers, or need files that are not at
    hand, are left out · exact: only plans of the exact family of `largest`
    Raises PlanError if the weights at hand cannot run `largest`.
    """
    top = largest if isinstance(largest, Plan) else plans[largest]
    weights.check(top.check(config))
    name = _name(top, plans) if isinstance(largest, Plan) else largest
    steps = _steps(config, weights, plans, top, name)
    found: list[Level] = []
    for step_name, plan in steps:
        if exact and not plan.same_cache(top):
            continue
        level = _level(config, weights, step_name, plan, top, kv, chunk)
        if found and level.cost > (1.0 - LEAST_DIFFERENCE) * found[-1].cost:
            if step_name not in plans or found[-1].name in plans:
                continue
            found.pop()  # a plan with a name is kept instead of a mixture beside it
        found.append(level)
    return (*found, *_leaner(config, found[-1], chunk))


def _steps(
    config: TextConfig, weights: TextWeights, plans: Mapping[str, Plan], top: Plan, name: str
) -> list[tuple[str, Plan]]:
    """Named plans and mixtures between neighbours, the most expensive first."""
    named: dict[Plan, str] = {top: name}
    for other, plan in plans.items():
        if plan.owners == top.owners and top.contains(plan) and _is_at_hand(weights, plan):
            named.setdefault(plan, other)
    cost = {plan: plan_cost(config, weights, plan).bytes for plan in named}
    ordered = sorted(named, key=lambda plan: -cost[plan])
    steps = [(named[ordered[0]], ordered[0])]
    for larger, smaller in pairwise(ordered):
        if larger.contains(smaller):
            mixed = _between(larger, smaller)
            between = f"{named[smaller]}+{named[larger]}"
            steps += [(f"{between}:{len(mixed) - i}", plan) for i, plan in enumerate(mixed)]
        steps.append((named[smaller], smaller))
    return sorted(steps, key=lambda step: -plan_cost(config, weights, step[1]).bytes)


def _between(larger: Plan, smaller: Plan) -> list[Plan]:
    """Mix-n-Match plans: above the last owner first, where a change leaves K/V as they are.

    Readers are narrowed from the top in two halves, then those that the smaller plan has not are
    left out; then the layers below are narrowed from the top, in two halves too.
    """
    width = dict(zip(smaller.layers, smaller.ffn_width, strict=True))
    last = larger.owners[-1]
    free = [layer for layer in larger.layers if layer >= last]
    bound = [layer for layer in larger.layers if layer < last]
    now = dict(zip(larger.layers, larger.ffn_width, strict=True))
    found = []

    def add() -> None:
        found.append(Plan(tuple(now), tuple(now.values()), larger.num_owners))

    for layers in _halves([layer for layer in free if layer in width]):
        now.update({layer: width[layer] for layer in layers})
        add()
    kept = {layer: value for layer, value in now.items() if layer in width}
    if len(kept) < len(now):
        now = kept
        add()
    for layers in _halves(bound)[:1]:
        now.update({layer: width[layer] for layer in layers if layer in width})
        add()
    return [plan for plan in found if plan not in (larger, smaller)]


def _halves(layers: list[int]) -> list[list[int]]:
    middle = len(layers) // 2
    return [part for part in (layers[middle:], layers[:middle]) if part]


def _level(
    config: TextConfig,
    weights: TextWeights,
    name: str,
    plan: Plan,
    top: Plan,
    kv: str,
    chunk: int,
) -> Level:
    cost = plan_cost(config, weights, plan)
    per_token, fixed = _kv_bytes(config, plan, kv, chunk)
    return Level(
        name=name,
        plan=plan,
        cost=cost.bytes,
        weight_bytes=cost.stored_bytes - _table_bytes(weights, plan),
        kv=kv,
        kv_bytes_per_token=per_token,
        kv_bytes_fixed=fixed,
        window=config.context_length,
        exact=plan.same_cache(top),
    )


def _leaner(config: TextConfig, smallest: Level, chunk: int) -> list[Level]:
    """What follows the smallest plan: int8, then half of the context again and again."""
    found = []
    last = smallest
    if smallest.kv != "int8":
        per_token, fixed = _kv_bytes(config, smallest.plan, "int8", chunk)
        last = replace(smallest, kv="int8", kv_bytes_per_token=per_token, kv_bytes_fixed=fixed)
        found.append(last)
    while last.window // 2 >= SHORTEST_WINDOW:
        last = replace(last, window=last.window // 2)
        found.append(last)
    return found


def _kv_bytes(config: TextConfig, plan: Plan, kind: str, chunk: int) -> tuple[float, int]:
    page = page_bytes(kind, config.num_kv_heads, config.head_dim)
    full = sum(1 for layer in plan.owners if not config.window[layer])
    rings = sum(
        -(-min(config.window[layer] + chunk, config.context_length) // PAGE) + 1
        for layer in plan.owners
        if config.window[layer]
    )
    return full * page / PAGE, rings * page


def _table_bytes(weights: TextWeights, plan: Plan) -> int:
    """Of the per-layer tables, whose rows are gathered and given back."""
    kept = set(plan.layers)
    return sum(
        table.matrix.data.nbytes * len(kept.intersection(table.layers)) // len(table.layers)
        for table in weights.ple
    )


def _is_at_hand(weights: TextWeights, plan: Plan) -> bool:
    try:
        weights.check(plan)
    except PlanError:
        return False
    return True


def _name(plan: Plan, plans: Mapping[str, Plan]) -> str:
    return next((name for name, known in plans.items() if known == plan), plan.describe())
