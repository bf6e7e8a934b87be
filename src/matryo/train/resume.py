"""Training checkpoints: everything that the next step depends on, in one file that appears whole.

In: weights, optimisers, the step, the position in the data. Out: `checkpoints/step-00000100.pt`;
the last few are kept. What is drawn at random follows from the seed and the step. A run that was
killed at any moment continues from the newest with the loss curve of a run that was not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from matryo.checkpoint.atomic import TEMPORARY, replacing
from matryo.checkpoint.writing import room
from matryo.errors import CheckpointError, ConfigError
from matryo.train.nested import LanguageModel
from matryo.train.shard import load_state, part_of, whole_state, whole_tensors

_FORMAT = 2
# May differ between the parts of a run: what comes after the steps, or changes no number of them;
# and what helps a run whose loss is none.
FREE = frozenset(
    {"output", "schedule", "export", "save_every", "evaluate_every", "keep", "threads",
     "deterministic", "recompute", "shard", "data.held_out", "data.held_out_rows", "data.cache",
     "optimizer.rate", "optimizer.embedding_rate", "optimizer.vector_rate", "optimizer.clip"}
)  # fmt: skip
_PATHS = frozenset(
    {"data.files", "model.start", "model.tokenizer", "teacher.model", "teacher.encoders"}
)


def save(
    directory: Path,
    model: LanguageModel,
    optimizers: Sequence[torch.optim.Optimizer],
    progress: Mapping[str, Any],
    keep: int,
    *,
    write: bool = True,
) -> Path:
    """Writes the state after `progress["step"]` steps and drops all but the newest `keep`.

    Weights that are split over processes are put together: all of them call this, one with `write`.
    Raises CapacityError if the disk is full; what was there before stays.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"step-{progress['step']:08d}.pt"
    # Weights that do not learn are the start's.
    learning = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    state = {
        "format": _FORMAT,
        "weights": dict(whole_tensors(learning, keep=write)),
        "optimizers": [whole_state(optimizer, keep=write) for optimizer in optimizers],
        **progress,
    }
    if not write:
        return path
    last = newest(directory)
    begin = "the start" if last is None else last.name
    with room(path, f"run the same command to continue from {begin}"), replacing(path) as file:
        torch.save(state, file)
    for old in every(directory)[:-keep]:
        old.unlink()
    return path


def every(directory: Path) -> list[Path]:
    """All checkpoints, oldest first; what a killed process left of one is removed."""
    if not directory.is_dir():
        return []
    for left in directory.glob(f".step-*{TEMPORARY}"):
        left.unlink(missing_ok=True)  # another process of the run may be first
    return sorted(directory.glob("step-*.pt"))


def newest(directory: Path) -> Path | None:
    """The newest checkpoint; None if there is none."""
    found = every(directory)
    return found[-1] if found else None


def restore(
    path: Path,
    model: LanguageModel,
    optimizers: Sequence[torch.optim.Optimizer],
    recipe: Mapping[str, Any],
) -> dict[str, Any]:
    """Fills model and optimisers; returns the progress that `save` was given.

    Raises CheckpointError for a file that is broken, ConfigError for a run of another recipe.
    """
    # Processes that take parts of it share its pages instead of reading all of it each.
    split = any(isinstance(weight, DTensor) for weight in model.parameters())
    state = _read(path, mapped=split)
    _same_recipe(state["recipe"], recipe, path)
    weights = state.pop("weights")
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not value.requires_grad:
                continue
            if name not in weights or weights[name].shape != value.shape:
                raise CheckpointError("does not fit the model", file=str(path), tensor=name)
            value.copy_(part_of(weights[name], value))
    for optimizer, values in zip(optimizers, state.pop("optimizers"), strict=True):
        load_state(optimizer, values)
    return state


def check_recipe(path: Path, recipe: Mapping[str, Any]) -> None:
    """Raises as `restore` for a broken file and a run of another recipe; reads no weights."""
    _same_recipe(_read(path, mapped=True)["recipe"], recipe, path)


def _read(path: Path, *, mapped: bool) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, "cpu", weights_only=True, mmap=mapped)
        found = state.pop("format")
    except Exception as error:
        raise CheckpointError(
            "is broken: delete it to continue from the one before", file=str(path)
        ) from error
    if found != _FORMAT:
        raise CheckpointError("of another version of Matryo", file=str(path), got=str(found))
    return state


def _same_recipe(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    before, now = _flat(old), _flat(new)
    for key in sorted(set(before) | set(now)):
        if before.get(key) != now.get(key):
            raise ConfigError(
                f"{path.parent.parent} holds a run of another recipe: {key} was "
                f"{str(before.get(key))[:200]}, is {str(now.get(key))[:200]}; choose another "
                "output, or delete that one"
            )


def _flat(recipe: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """What must stay, by its key in a recipe; of paths the names, for a run may be moved."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        name = place + key
        if name in FREE:
            continue
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        elif name == "data.mix":
            found[name] = [[[Path(f).name for f in one["files"]], one["weight"]] for one in value]
        elif name in _PATHS and value is not None:
            paths = value if isinstance(value, list) else [value]
            found[name] = [Path(entry).name for entry in paths]
        else:
            found[name] = value
    return found
