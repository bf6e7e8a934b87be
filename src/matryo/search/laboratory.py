"""Everything a search measures of a plan, each thing once: quality, speed, memory.

In: an open model, the task's items in two shares, a store. Out: `Measured` plans and columns for
intervals. What the store knows is not measured again, in this process or a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matryo.errors import InputError
from matryo.evaluate.evaluator import Evaluator
from matryo.evaluate.intervals import F64, Bootstrap, Interval
from matryo.evaluate.items import Item
from matryo.evaluate.metrics import find_metric, metrics_for
from matryo.evaluate.rows import digest_of
from matryo.evaluate.store import Store, name_of_plan
from matryo.evaluate.task import Task
from matryo.loading.model import Model
from matryo.plan import Plan
from matryo.search.front import Measured
from matryo.search.measure import DECODED, PROMPT, ROUNDS, Meter, Speed, device
from matryo.search.settings import SearchSettings
from matryo.search.space import Space, effective

MIN_ROWS = 4
"""Fewest rows of a share: with fewer no interval means anything."""


class Laboratory:
    """Measures plans for one task on one device."""

    def __init__(
        self, model: Model, task: Task, settings: SearchSettings, space: Space, store: Store
    ) -> None:
        self.model, self.settings, self.space, self._store = model, settings, space, store
        self.task = task if settings.part is None else task.only(settings.part)
        if len(self.task.parts) > 1:
            raise InputError(
                f"{task.name} has several parts: choose what to search for with one of "
                f"{', '.join(self.task.parts)}"
            )
        self.evaluator = Evaluator(
            model, settings.evaluation, store=store, keep_bytes=settings.keep_bytes
        )
        items, left_out = self.evaluator.items(self.task.rows)
        self.left_out = [*task.broken, *left_out]
        self.metric = find_metric(metrics_for(items), settings.metric)
        self.searched, self.held_out = self._split(items)
        self._meter = Meter(model, space.largest, self.evaluator.kv_kind)
        self._device = digest_of(device(), PROMPT, DECODED, ROUNDS)
        self.measured: dict[Plan, Measured] = {}
        self._columns: dict[tuple[Plan, bool], F64] = {}

    @property
    def sign(self) -> float:
        """Times a difference of the metric: positive is better."""
        return 1.0 if self.metric.higher_is_better else -1.0

    def begin(self, on_progress: Callable[[int], None] | None = None) -> None:
        """Measure the largest plan, to which all others are compared; rows that the model cannot
        take are dropped.

        Raises InputError if too few are left.
        """
        largest = self.space.largest
        found = self.evaluator.results(largest, [*self.searched, *self.held_out], on_progress)
        failed = {key: result["error"] for key, result in found.items() if "error" in result}
        self.left_out += failed.values()
        self.searched = [item for item in self.searched if item.key not in failed]
        self.held_out = [item for item in self.held_out if item.key not in failed]
        self._check_rows()
        known = self._store.known(self._name(largest), ["speed"]).get("speed")
        reference = self._meter.calibrate(None if known is None else Speed(**known))
        self._store.put(self._name(largest), "speed", reference.to_json())

    def measure(self, plan: Plan) -> Measured:
        """Quality on the rows of the search, speed and memory."""
        if plan not in self.measured:
            sums = self.columns(plan, held_out=False).sum(axis=0)
            self.measured[plan] = Measured(
                plan,
                effective(self.model.config, plan),
                float(self.metric.value(sums)),
                self._speed(plan),
                self._resident(plan),
            )
        return self.measured[plan]

    def columns(self, plan: Plan, *, held_out: bool) -> F64:
        """What the metric counts, a row for each item of a share."""
        if (plan, held_out) not in self._columns:
            items = self.held_out if held_out else self.searched
            found = self.evaluator.results(plan, items)
            self._columns[plan, held_out] = self.metric.columns(
                items, [found[item.key] for item in items]
            )
        return self._columns[plan, held_out]

    def interval(self, plan: Plan) -> Interval:
        """Quality on the rows held out."""
        bootstrap = self._bootstrap(held_out=True)
        return bootstrap.interval(self.columns(plan, held_out=True), self.metric.value)

    def lost(self, plan: Plan) -> Interval:
        """How much worse than the largest a plan is, on the rows of the search."""
        sign, value = -self.sign, self.metric.value
        return self._bootstrap(held_out=False).combined(
            [self.columns(one, held_out=False) for one in (plan, self.space.largest)],
            lambda sums: sign * (value(sums[0]) - value(sums[1])),
        )

    def above_line(self, plan: Plan) -> Interval:
        """How much better than a straight line from the smallest to the largest plan, drawn over
        effective parameters, a plan is on the rows held out.
        """
        ends = (self.space.smallest, self.space.largest)
        low, high = (effective(self.model.config, one) for one in ends)
        share = (effective(self.model.config, plan) - low) / (high - low)
        sign, value = self.sign, self.metric.value

        def gain(sums: list[F64]) -> F64:
            own, small, large = (value(one) for one in sums)
            result: F64 = sign * (own - (small + share * (large - small)))
            return result

        return self._bootstrap(held_out=True).combined(
            [self.columns(one, held_out=True) for one in (plan, *ends)], gain
        )

    def _speed(self, plan: Plan) -> Speed:
        name = self._name(plan)
        known = self._store.known(name, ["speed"]).get("speed")
        if known is not None:
            return Speed(**known)
        speed = self._meter.speed(plan)
        self._store.put(name, "speed", speed.to_json())
        return speed

    def _resident(self, plan: Plan) -> int:
        name = self._name(plan)
        known = self._store.known(name, ["resident"]).get("resident")
        if known is None:
            known = {"bytes": self._meter.resident_bytes(plan)}
            self._store.put(name, "resident", known)
        return int(known["bytes"])

    def _name(self, plan: Plan) -> str:
        return name_of_plan(self.model.identity, self.evaluator.kv_kind, plan, self._device)

    def _bootstrap(self, *, held_out: bool) -> Bootstrap:
        settings = self.settings.evaluation
        items = self.held_out if held_out else self.searched
        return Bootstrap(len(items), settings.seed, settings.resamples)

    def _split(self, items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
        """By a hash of each item, so that a row stays on its side whatever else is in the file."""
        seed = self.settings.evaluation.seed
        border = int(self.settings.held_out * (1 << 32))
        sides: tuple[list[Item], list[Item]] = ([], [])
        for item in items:
            number = int(digest_of("held out", seed, item.key)[:8], 16)
            sides[number < border].append(item)
        return sides

    def _check_rows(self) -> None:
        if min(len(self.searched), len(self.held_out)) < MIN_ROWS:
            left_out = self.left_out
            why = f"; {len(left_out)} rows are left out: {left_out[0]}" if left_out else ""
            raise InputError(
                f"{self.task.name}: {len(self.searched)} rows to search with and "
                f"{len(self.held_out)} held out; give a task with more rows (a longer text, or a "
                f"smaller --window), at least {MIN_ROWS} each{why}"
            )
