"""Results of items under plans: from the store, or computed and put there.

In: an open model, settings, rows. Out: `results(plan, items)`. What plans of one exact family have
in common is computed once, within `keep_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matryo.errors import CapacityError, InputError
from matryo.evaluate.answers import Answerer
from matryo.evaluate.items import AnswerItem, Item, ReferenceItem, ScoreItem, prepare
from matryo.evaluate.likelihood import Scorer
from matryo.evaluate.rows import Row, digest_of
from matryo.evaluate.store import Store, name_of_plan
from matryo.loading.model import Model
from matryo.plan import Plan

Result = dict[str, Any]
Progress = Callable[[float, float | None, str], None]

WINDOW = 1024  # tokens a text is predicted from, if the context has as many


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a task is evaluated.

    limit: most items of each part, chosen by `seed` · window: tokens of a text that are seen at a
    time · stride: of these, how many are predicted · max_tokens: of an answer · kv: kind of the K/V
    cache · likelihood: references are predicted instead of answers generated · resamples: of the
    bootstrap
    Raises InputError for values that cannot be.
    """

    limit: int | None = None
    seed: int = 0
    window: int | None = None
    stride: int | None = None
    max_tokens: int = 128
    kv: str | None = None
    likelihood: bool = False
    resamples: int = 1000

    def __post_init__(self) -> None:
        for name in ("limit", "window", "stride", "max_tokens", "resamples"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise InputError(f"{name}: expected a whole number from 1, got {value!r}")
        if type(self.seed) is not int or self.seed < 0:
            raise InputError(f"seed: expected a whole number from 0, got {self.seed!r}")


class Evaluator:
    """One model under one kind of settings."""

    def __init__(
        self, model: Model, settings: Settings, *, store: Store | None = None, keep_bytes: int = 0
    ) -> None:
        self.model, self.settings, self._store = model, settings, store
        self.kv_kind = settings.kv or model.kv_kind
        self._context = model.engine.context
        self.window = min(settings.window or WINDOW, self._context)
        self.stride = settings.stride or max(1, self.window // 2)
        self.scorer = Scorer(model.engine, self.kv_kind, keep_bytes=keep_bytes)
        self.answerer = Answerer(model, settings.kv, keep_bytes=keep_bytes)

    def items(self, rows: Sequence[Row]) -> tuple[list[Item], list[str]]:
        """Items of rows, at most `limit` of each part, and why some rows are left out.

        Raises InputError if nothing is left.
        """
        prepared = prepare(
            rows,
            self.model.tokenizer,
            context=self.window,
            stride=self.stride,
            max_tokens=self.settings.max_tokens,
            likelihood=self.settings.likelihood,
        )
        kept, left_out = [], []
        for item in prepared:
            length = _length(item)
            if length > self._context:
                left_out.append(
                    f"{item.row.where}: {length} tokens, the context holds {self._context}"
                )
            else:
                kept.append(item)
        if not kept:
            raise InputError(f"no row can be evaluated: {left_out[0]}")
        return self._limited(kept), left_out

    def results(
        self, plan: Plan, items: Sequence[Item], progress: Callable[[int], None] | None = None
    ) -> dict[str, Result]:
        """A result for every item's key; `{"error": …}` for a prompt that the model cannot take.

        progress: called with how many are done.
        """
        name = name_of_plan(self.model.identity, self.kv_kind, plan)
        done = {} if self._store is None else self._store.known(name, (one.key for one in items))
        if progress is not None:
            progress(len(done))
        waiting = [item for item in items if item.key not in done]
        for item, result in self._computed(plan, waiting):
            done[item.key] = result
            if self._store is not None and "error" not in result:
                self._store.put(name, item.key, result)
            if progress is not None:
                progress(len(done))
        if self._store is not None:
            self._store.commit()
        return done

    def _computed(self, plan: Plan, items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        yield from self.scorer.score(plan, [one for one in items if isinstance(one, ScoreItem)])
        for item in items:
            if not isinstance(item, ScoreItem):
                yield from self._answered(plan, item)

    def _answered(
        self, plan: Plan, item: AnswerItem | ReferenceItem
    ) -> Iterator[tuple[Item, Result]]:
        try:
            if isinstance(item, ReferenceItem):
                yield from self.answerer.predict(plan, [item])
            else:
                yield from self.answerer.answer(plan, [item])
        except (InputError, CapacityError) as error:
            yield item, {"error": f"{item.row.where}: {error}"}

    def _limited(self, items: Iterable[Item]) -> list[Item]:
        """At most `limit` of each part: those that a hash with the seed puts first, in order."""
        parts: dict[str, list[Item]] = {}
        for item in items:
            parts.setdefault(item.row.part, []).append(item)
        limit = self.settings.limit
        chosen = []
        for members in parts.values():
            if limit is not None and len(members) > limit:
                first = sorted(members, key=lambda item: digest_of(self.settings.seed, item.key))
                keys = {item.key for item in first[:limit]}
                members = [item for item in members if item.key in keys]
            chosen += members
        return chosen


def _length(item: Item) -> int:
    """Tokens that must fit; prompts of answers are known only when they are read."""
    if not isinstance(item, ScoreItem):
        return 0
    return len(item.prefix) + max(len(ids) for ids in item.continuations) - 1
