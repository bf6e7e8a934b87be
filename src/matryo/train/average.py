"""The mean of the weights after each of a run's last steps.

In: a model that learns. Out: the mean of the weights that learn, which is measured and exported in
their place: what one step takes to learn its own rows and the next one gives back is not in it.
Source: Izmailov et al., 2018 (stochastic weight averaging); Sanyal et al., 2023 (of the latest).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from matryo.train.nested import LanguageModel
from matryo.train.shard import part_of, whole_tensors


class WeightMean:
    """Over the steps from `first` on, counted from 1; none before them."""

    def __init__(self, model: LanguageModel, first: int) -> None:
        """first: past the last step for no mean at all."""
        self._weights = {n: w for n, w in model.named_parameters() if w.requires_grad}
        self._first, self._count = first, 0
        self._means: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After each step."""
        if step < self._first:
            return
        self._count += 1
        if self._count == 1:
            self._means = {name: weight.clone() for name, weight in self._weights.items()}
        else:
            for name, mean in self._means.items():
                mean += (self._weights[name] - mean) / self._count

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the mean as its weights, and its own again at the end."""
        own = {name: self._weights[name].detach().clone() for name in self._means}
        self.use()
        try:
            yield
        finally:
            self._fill(own)

    def use(self) -> None:
        """For good."""
        self._fill(self._means)

    @property
    def count(self) -> int:
        """How many steps it is over."""
        return self._count

    def missed(self, step: int) -> int:
        """How many of the steps up to `step` it should be over and is not: they were taken when
        it was to begin later, or not at all.
        """
        return max(0, step - self._first + 1) - self._count

    def state(self, *, write: bool = True) -> dict[str, Any]:
        """For a checkpoint, as one process has it; every process calls this, one with `write`, and
        the others keep nothing of what is put together.
        """
        means = whole_tensors(self._means.items(), keep=write)
        return {"first": self._first, "count": self._count, "means": dict(means)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """The reverse; of a mean that was to begin elsewhere nothing is taken over."""
        if state["first"] == self._first:
            self._count = state["count"]
            self._means = {
                name: part_of(mean, self._weights[name]).to(self._weights[name].device)
                for name, mean in state["means"].items()
            }

    @torch.no_grad()
    def _fill(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self._weights[name].copy_(value)
