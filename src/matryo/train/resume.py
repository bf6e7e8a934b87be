"""Training checkpoints: everything that the next step depends on, in one file that appears whole.

In: weights, optimisers, the step, the position in the data, random states. Out:
`checkpoints/step-00000100.pt`; the last few are kept. A run that was killed at any moment continues
from the newest with the loss curve of a run that was not.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from matryo.checkpoint.atomic import TEMPORARY, replacing
from matryo.errors import CapacityError, CheckpointError, ConfigError
from matryo.train.nested import LanguageModel
from matryo.train.shard import load_state, part_of, whole_state, whole_weights

_FORMAT = 2
# May differ between the parts of a run: what comes after the steps, or changes no number of them.
FREE = frozenset(
    {"output", "schedule", "export", "save_every", "evaluate_every", "keep", "threads",
     "deterministic", "recompute", "shard", "data.held_out", "data.held_out_rows", "data.cache"}
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
    state = {
        "format": _FORMAT,
        # Weights that do not learn are the start's.
        "weights": {name: value for name, value in whole_weights(model, learning=True) if write},
        "optimizers": [whole_state(optimizer) for optimizer in optimizers],
        "torch_rng": torch.get_rng_state(),
        "accelerator_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        **progress,
    }
    if not write:
        return path
    try:
        with replacing(path) as file:
            torch.save(state, file)
    except (OSError, RuntimeError) as error:
        # torch's writer reports a full disk as a RuntimeError of its own.
        full = isinstance(error, RuntimeError) or error.errno == errno.ENOSPC
        if not full:
            raise
        last = newest(directory)
        raise CapacityError(
            f"the disk is full: {path.name} could not be written; free some space and run the same "
            f"command to continue from {'the start' if last is None else last.name}"
        ) from error
    for old in every(directory)[:-keep]:
        old.unlink()
    return path


def every(directory: Path) -> list[Path]:
    """All checkpoints, oldest first; what a killed process left of one is removed."""
    if not directory.is_dir():
        return []
    for left in directory.glob(f".step-*{TEMPORARY}"):
        left.unlink()
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
    """Fills model, optimisers and random states; returns the progress that `save` was given.

    Raises CheckpointError for a file that is broken, ConfigError for a run of another recipe.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        found = state.pop("format")
    except Exception as error:
        raise CheckpointError(
            "is broken: delete it to continue from the one before", file=str(path)
        ) from error
    if found != _FORMAT:
        raise CheckpointError("of another version of Matryo", file=str(path), got=str(found))
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
    torch.set_rng_state(state.pop("torch_rng"))
    others = state.pop("accelerator_rng")
    if others and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(others)
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
