"""Answers to prompts, greedily, with prompts computed once for all plans of an exact family.

In: an open model, a plan, `AnswerItem`s or `ReferenceItem`s. Out: one result an item: the text, how
many tokens, and why it ended; or how likely the reference was. Pictures and sound are encoded once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from matryo.evaluate.items import AnswerItem, ReferenceItem
from matryo.evaluate.likelihood import log_probabilities
from matryo.loading.model import Model
from matryo.plan import Plan
from matryo.sampling import GREEDY
from matryo.session.session import Session

Result = dict[str, Any]


class Answerer:
    """Answers items with one model; keeps computed prompts within `keep_bytes`."""

    def __init__(self, model: Model, kv_kind: str | None, *, keep_bytes: int = 0) -> None:
        self._model, self._kv_kind, self._keep_bytes = model, kv_kind, keep_bytes
        self._kept: OrderedDict[tuple[object, str], Session] = OrderedDict()
        self.kept_bytes = 0
        self.computed = self.resumed = 0  # prompts

    def answer(
        self, plan: Plan, items: Sequence[AnswerItem]
    ) -> Iterator[tuple[AnswerItem, Result]]:
        """Results, item by item.

        Raises InputError for a prompt that the model cannot take, CapacityError for one that is too
        long; the items before it were given.
        """
        for item in items:
            session = self._prompted(plan, item)
            session.plan = plan
            text, event = "", None
            for event in session.generate(
                None, max_tokens=item.max_tokens, sampling=GREEDY, stop=item.row.stop
            ):
                text += event.text
            tokens = 0 if event is None else event.stats.generated_tokens
            reason = None if event is None else event.finish_reason
            yield item, {"text": text, "tokens": tokens, "reason": reason}

    def predict(
        self, plan: Plan, items: Sequence[ReferenceItem]
    ) -> Iterator[tuple[ReferenceItem, Result]]:
        """Results as `Scorer` gives them, of the reference behind each prompt. Raises as
        `answer`.
        """
        for item in items:
            session = self._prompted(plan, item)
            session.plan = plan
            logits, targets = session.logits(item.ids), np.array(item.ids)
            yield (
                item,
                {
                    "logprob": [float(log_probabilities(logits, targets).sum())],
                    "tokens": [len(item.ids)],
                    "greedy": [bool((logits.argmax(axis=1) == targets).all())],
                },
            )

    def _prompted(self, plan: Plan, item: AnswerItem | ReferenceItem) -> Session:
        """A session that has taken the prompt and may be continued by this plan."""
        family = (plan.owners, plan.ffn_width[: len(plan.owners) - 1])
        kept = self._kept.get((family, item.row.digest))
        if kept is not None:
            self.resumed += 1
            return kept.fork()
        session = self._model.session(plan, self._kv_kind)
        prompt = item.row.prompt
        session.prefill(prompt if isinstance(prompt, str) else list(prompt))
        self.computed += 1
        size = session.cache_bytes
        if not self._make_room(size, family):
            return session
        self._kept[family, item.row.digest] = session
        self.kept_bytes += size
        return session.fork()

    def _make_room(self, size: int, family: object) -> bool:
        while self.kept_bytes + size > self._keep_bytes:
            oldest = next((key for key in self._kept if key[0] != family), None)
            if oldest is None:
                return False
            self.kept_bytes -= self._kept.pop(oldest).cache_bytes
        return True
