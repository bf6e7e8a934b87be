"""A task at several sizes: every item under every plan, then figures.

In: an open model, a task, names of sizes. Out: a `Report`.
"""

from __future__ import annotations

from collections.abc import Sequence

from matryo.errors import InputError, PlanError
from matryo.evaluate.evaluator import Evaluator, Progress, Settings
from matryo.evaluate.report import PartReport, Report, size_of
from matryo.evaluate.store import Store
from matryo.evaluate.task import Task
from matryo.loading.model import Model
from matryo.plan import Plan

__all__ = ["Settings", "evaluate"]


def evaluate(
    model: Model,
    task: Task,
    sizes: Sequence[str] | None = None,
    settings: Settings | None = None,
    *,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Report:
    """Evaluate a task at several sizes.

    sizes: as `Model.plan` takes them; None = every different one at hand · store: where results are
    kept, so that a run that was stopped goes on
    Raises InputError if nothing of the task can be evaluated, PlanError for a size that cannot run.
    """
    chosen = settings or Settings()
    plans = {name: model.plan(name) for name in sizes or plans_at_hand(model)}
    evaluator = Evaluator(model, chosen, store=store)
    items, left_out = evaluator.items(task.rows)
    total = len(items) * len(plans)
    results = {}
    for number, (name, plan) in enumerate(plans.items()):

        def tell(done: int, number: int = number, name: str = name) -> None:
            if progress is not None:
                progress(number * len(items) + done, total, name)

        results[name] = evaluator.results(plan, items, tell)
    failed = {
        key: result["error"]
        for found in results.values()
        for key, result in found.items()
        if "error" in result
    }
    good = [item for item in items if item.key not in failed]
    if not good:
        raise InputError(f"no row could be evaluated: {next(iter(failed.values()))}")
    parts: dict[str, list[int]] = {}
    for index, item in enumerate(good):
        parts.setdefault(item.row.part, []).append(index)
    reports = [
        PartReport.of(
            [good[index] for index in members],
            {
                name: [found[good[index].key] for index in members]
                for name, found in results.items()
            },
            seed=chosen.seed,
            resamples=chosen.resamples,
        )
        for members in parts.values()
    ]
    return Report(
        task=task,
        identity=model.identity,
        name=model.name,
        settings=chosen,
        kv_kind=evaluator.kv_kind,
        window=evaluator.window,
        stride=evaluator.stride,
        sizes={name: size_of(model.config, plan) for name, plan in plans.items()},
        parts=tuple(reports),
        left_out=(*task.broken, *left_out, *failed.values()),
    )


def plans_at_hand(model: Model) -> dict[str, Plan]:
    """The model's plans that can run, smallest first; of equal plans the first name."""
    found: dict[Plan, str] = {}
    for name in model.plans:
        try:
            found.setdefault(model.plan(name), name)
        except PlanError:  # needs a file that is not there
            continue
    return {name: plan for plan, name in found.items()}
