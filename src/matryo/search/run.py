"""A search: the model's own sizes, what each layer is worth, then an optimiser, then held-out rows.

In: an open model, a task, settings, a store. Out: `Found`. Plans are tried in the families that the
first two steps suggest, so that most of them cost their upper layers only. With the same seed and
store a search that was stopped repeats nothing: it takes the same way, from the store, to where it
was.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from matryo.errors import InputError
from matryo.evaluate.run import plans_at_hand
from matryo.evaluate.store import Store
from matryo.evaluate.task import Task
from matryo.loading.model import Model
from matryo.search.found import Found, found_of
from matryo.search.front import Measured, best_of_each_size, non_dominated
from matryo.search.laboratory import Laboratory
from matryo.search.patterns import patterns
from matryo.search.sensitivity import Change, chain, measure_changes, thinned
from matryo.search.settings import SearchSettings
from matryo.search.space import Point, Space

Progress = Callable[[float, float | None, str], None]

MAX_FAMILIES = 8
CHAIN_POINTS = 12
REPORTED = 12
SENSITIVITY_SHARE = 0.5
"""Of the budget, at most, for what each layer is worth."""
REPEATS = 40
"""The optimiser has seen all it will propose when it repeats itself so often in a row."""


@dataclass(slots=True)
class _Clock:
    """The budget. cost: of one plan on the rows held out, as measured · progress: said so far"""

    started: float
    budget_s: float
    progress: Progress | None
    cost: float = 0.0
    reserved: float = 0.0

    @property
    def used(self) -> float:
        return time.monotonic() - self.started

    def allows(self, share: float = 1.0) -> bool:
        """Whether another plan fits into this share of the budget, the end of the search aside."""
        return self.used + self.cost < share * max(0.0, self.budget_s - self.reserved)

    def say(self, what: str) -> None:
        if self.progress is not None:
            self.progress(min(self.used, self.budget_s), self.budget_s, what)


def search(
    model: Model,
    task: Task,
    store: Store,
    settings: SearchSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Found:
    """Search. progress: called with (seconds used, seconds in all, what is being done).

    Raises InputError if the task, the model or the budget allows no search, or a package is
    missing.
    """
    chosen = settings or SearchSettings()
    _optuna()
    space = Space.of(model)
    laboratory = Laboratory(model, task, chosen, space, store)
    clock = _Clock(time.monotonic(), chosen.budget_s, progress)
    own = _measure_own_sizes(laboratory, clock)
    changes = _measure_layers(laboratory, clock)
    seeds = _seeds(space, changes, own)
    for point in seeds:
        if not clock.allows():
            break
        _tried(laboratory, clock, point)
    trials = _optimise(laboratory, clock, seeds)
    return _reported(laboratory, clock, own, changes, trials)


def _measure_own_sizes(laboratory: Laboratory, clock: _Clock) -> dict[str, Measured]:
    """The model's plans, all rows: the ends of the line, and what one plan costs in time."""
    space = laboratory.space
    count = len(laboratory.searched) + len(laboratory.held_out)
    clock.say("the largest size")
    before = clock.used
    laboratory.begin(lambda done: clock.say(f"the largest size: {done} of {count} rows"))
    plans = {
        name: plan
        for name, plan in plans_at_hand(laboratory.model).items()
        if space.largest.contains(plan)
    }
    # From the store the first plan took no time: the others tell then.
    whole = clock.used - before
    own = {}
    for number, (name, plan) in enumerate(plans.items()):
        left = len(plans) - number
        if clock.used + (left - 1) * whole > clock.budget_s:
            raise InputError(
                f"a budget of {clock.budget_s:.0f} s is too small: the {len(plans)} sizes of the "
                f"model alone take about {clock.used + left * whole:.0f} s; allow more time, or "
                "fewer rows with --limit"
            )
        clock.say(f"size {name}")
        before = clock.used
        own[name] = laboratory.measure(plan)
        clock.cost = max(clock.cost, clock.used - before)
        laboratory.columns(plan, held_out=True)
    searched, held_out = len(laboratory.searched), len(laboratory.held_out)
    # At the end: the plans to report on the rows held out.
    clock.reserved = min(0.4 * clock.budget_s, REPORTED * clock.cost * held_out / searched)
    return own


def _measure_layers(laboratory: Laboratory, clock: _Clock) -> list[Change]:
    def lost(point: Point) -> Any:
        clock.say(f"each layer alone: {laboratory.space.plan(point).describe()}")
        plan = laboratory.space.plan(point)
        laboratory.measure(plan)
        return laboratory.lost(plan)

    return measure_changes(laboratory.space, lost, lambda: clock.allows(SENSITIVITY_SHARE))


def _seeds(space: Space, changes: Sequence[Change], own: dict[str, Measured]) -> list[Point]:
    """The model's plans, the chain of the sensitivity, and published patterns."""
    sizes = [space.point(one.plan) for one in own.values()]
    steps = thinned(chain(space, changes), space, CHAIN_POINTS) if changes else []
    return list(dict.fromkeys([*sizes, *steps, *patterns(space)]))


def _optimise(laboratory: Laboratory, clock: _Clock, seeds: Sequence[Point]) -> int:
    """Let the optimiser try plans until time or trials are over; returns how many it tried."""
    optuna = _optuna()
    settings, space = laboratory.settings, laboratory.space
    families = _families(space, seeds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its warnings are about its own experiments
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(seed=settings.evaluation.seed, n_startup_trials=0)
        study = optuna.create_study(
            directions=["minimize"] * len(settings.objectives), sampler=sampler
        )
        options = {f"layer {layer}": len(space.options(layer)) for layer in space.upper}
        distributions = {
            "family": optuna.distributions.CategoricalDistribution(range(len(families))),
            **{
                name: optuna.distributions.IntDistribution(0, count - 1)
                for name, count in options.items()
            },
        }
        for point in seeds:
            plan = space.plan(point)
            if point[: len(space.lower)] in families and plan in laboratory.measured:
                study.add_trial(
                    optuna.trial.create_trial(
                        params={
                            "family": families.index(point[: len(space.lower)]),
                            **{
                                f"layer {layer}": space.options(layer).index(point[layer])
                                for layer in space.upper
                            },
                        },
                        distributions=distributions,
                        values=list(_costs(laboratory, laboratory.measured[plan])),
                    )
                )
        tried = repeated = 0
        while clock.allows() and repeated < REPEATS and tried != settings.trials:
            trial = study.ask(distributions)
            lower = families[trial.params["family"]]
            upper = {
                layer: space.options(layer)[trial.params[f"layer {layer}"]] for layer in space.upper
            }
            point = space.changed((*lower, *([0] * (len(seeds[0]) - len(lower)))), upper)
            repeated = repeated + 1 if space.plan(point) in laboratory.measured else 0
            study.tell(trial, _costs(laboratory, _tried(laboratory, clock, point)))
            tried += 1
        optuna.logging.set_verbosity(verbosity)
    return tried


def _families(space: Space, seeds: Sequence[Point]) -> list[Point]:
    """Widths of the layers that write K/V, as the seeds have them; few, so that plans share."""
    found = list(dict.fromkeys(point[: len(space.lower)] for point in seeds))
    if len(found) <= MAX_FAMILIES:
        return found
    ordered = sorted(found, key=sum)
    last = len(ordered) - 1
    return [ordered[round(n * last / (MAX_FAMILIES - 1))] for n in range(MAX_FAMILIES)]


def _tried(laboratory: Laboratory, clock: _Clock, point: Point) -> Measured:
    plan = laboratory.space.plan(point)
    count = len(laboratory.measured) + (plan not in laboratory.measured)
    clock.say(f"plan {count}: {plan.describe()}")
    return laboratory.measure(plan)


def _costs(laboratory: Laboratory, measured: Measured) -> tuple[float, ...]:
    return measured.costs(
        laboratory.settings.objectives, higher_is_better=laboratory.metric.higher_is_better
    )


def _reported(
    laboratory: Laboratory,
    clock: _Clock,
    own: dict[str, Measured],
    changes: Sequence[Change],
    trials: int,
) -> Found:
    """The front of the search, on the rows that were held out."""
    measured = list(laboratory.measured.values())
    costs = [_costs(laboratory, one) for one in measured]
    front = [measured[index] for index in non_dominated(costs)]
    higher = laboratory.metric.higher_is_better
    chosen = best_of_each_size(front, REPORTED, higher_is_better=higher)
    mine = {one.plan for one in own.values()}
    kept = []
    for number, one in enumerate(plan for plan in chosen if plan.plan not in mine):
        clock.say(f"held-out rows: plan {number + 1} of {len(chosen)}")
        laboratory.columns(one.plan, held_out=True)
        kept.append(one)
    return found_of(laboratory, own, kept, changes, trials)


def _optuna() -> Any:
    try:
        import matplotlib
        import optuna
    except ImportError as error:
        raise InputError(f"a search needs {error.name}: pip install 'matryo[search]'") from error
    del matplotlib
    return optuna
