"""A session as values and arrays, and back.

In: ids, plan, cache, who wrote which part of it, the way tokens were chosen, the identity of the
weights. Out: a file (`session/file.py`), or a session's parts again. A file with a right checksum
may still be made by anybody: every value is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.config import TextConfig
from matryo.engine import CachedSequence, Span
from matryo.errors import CheckpointError, MatryoError
from matryo.media.parts import MediaPart
from matryo.media.prompt import Placed
from matryo.plan import Plan
from matryo.sampling import Sampling
from matryo.session.file import SessionFile, read_session, write_session
from matryo.session.runtime import Runtime

F32 = npt.NDArray[np.float32]

_MEDIA = "media."
_KEYS = {"plan", "kv", "cached", "spans", "sampling", "identity"}


@dataclass(frozen=True, slots=True)
class StoredSession:
    """The parts of a session that are worth keeping.

    embeddings: by number in `placed`, those of parts that are not wholly in the cache; of others
    the digest is enough
    """

    ids: list[int]
    plan: Plan
    kv_kind: str
    sequence: CachedSequence
    sampling: Sampling | None
    identity: Mapping[str, str]
    placed: list[Placed]
    embeddings: Mapping[int, F32]


def write_stored(path: Path, stored: StoredSession) -> None:
    """Write a session file. Raises OSError if it cannot."""
    values = {
        "plan": stored.plan.to_json(),
        "kv": stored.kv_kind,
        "cached": len(stored.sequence),
        "spans": [[span.start, span.plan.to_json()] for span in stored.sequence.spans],
        "sampling": None if stored.sampling is None else stored.sampling.to_json(),
        "identity": dict(stored.identity),
    }
    arrays: dict[str, npt.NDArray[Any]] = {"ids": np.array(stored.ids, np.int32)}
    if stored.placed:
        values["media"] = [
            [one.start, one.count, one.part.tower, one.part.count, one.part.digest]
            for one in stored.placed
        ]
        arrays.update({f"{_MEDIA}{number}": soft for number, soft in stored.embeddings.items()})
    arrays.update(stored.sequence.cache.export())
    write_session(path, values, arrays)


def read_stored(path: Path, runtime: Runtime) -> StoredSession:
    """Read a session file for the model of `runtime`.

    Raises CheckpointError if the file is damaged, holds values that no session has, or was saved
    with other weights.
    """
    file = read_session(path)
    try:
        return _checked(file, runtime)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (MatryoError, TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{path}: holds values that no session has: {error}") from error


def _checked(file: SessionFile, runtime: Runtime) -> StoredSession:
    values = file.values
    placed_values = values.pop("media", [])
    if set(values) != _KEYS:
        raise CheckpointError(f"expected the values {sorted(_KEYS)}, got {sorted(values)}")
    _check_identity(values["identity"], runtime.identity)
    config = runtime.engine.model.config
    plan = runtime.find_plan(Plan.from_json(values["plan"], config))
    ids = _ids(file, runtime)
    cached = values["cached"]
    if type(cached) is not int or not 0 <= cached <= max(len(ids) - 1, 0):
        raise CheckpointError(
            f"expected at most {max(len(ids) - 1, 0)} cached tokens, got {cached!r}"
        )
    sequence = runtime.engine.new_sequence(plan, values["kv"])
    pages = {
        name: array
        for name, array in file.arrays.items()
        if name != "ids" and not name.startswith(_MEDIA)
    }
    sequence.cache.import_(cached, pages)
    sequence.spans = _spans(values["spans"], cached, config)
    sampling = None if values["sampling"] is None else Sampling.from_json(values["sampling"])
    placed = _placed(placed_values, ids, runtime)
    embeddings = _embeddings(file, placed, config)
    return StoredSession(
        ids, plan, values["kv"], sequence, sampling, runtime.identity, placed, embeddings
    )


def _check_identity(saved: object, expected: Mapping[str, str]) -> None:
    if saved != dict(expected):
        names = saved if isinstance(saved, dict) else {}
        different = [name for name in expected if names.get(name) != expected[name]]
        raise CheckpointError(
            f"was saved with other weights (different: {', '.join(different) or 'everything'}): "
            "load the model it was saved with, or begin a new session"
        )


def _ids(file: SessionFile, runtime: Runtime) -> list[int]:
    array = file.arrays.get("ids")
    if array is None or array.dtype != np.int32 or array.ndim != 1:
        raise CheckpointError("expected the token ids as a flat int32 array")
    if not array.size:
        return []
    runtime.engine.check_room(len(array))
    return [int(token) for token in runtime.engine.check_ids(array)]


def _placed(values: Any, ids: list[int], runtime: Runtime) -> list[Placed]:
    """Pictures and clips; each stands for a run of its kind's soft ids."""
    placed, end = [], 0
    for start, shown, tower, count, digest in values:
        if tower not in ("vision", "audio") or not re.fullmatch("[0-9a-f]{64}", digest):
            raise CheckpointError(f"expected a picture or clip and its digest, got {tower!r:.40}")
        soft = runtime.library.towers.require(tower).ids.soft
        whole = all(type(number) is int for number in (start, shown, count))
        if not whole or start < end or not 1 <= shown <= count or shown > len(ids) - start:
            raise CheckpointError(f"expected {shown!r:.40} places from {start!r:.40} on")
        end = start + shown
        if set(ids[start:end]) != {soft}:
            raise CheckpointError(f"expected soft tokens of {tower} from {start} on")
        placed.append(Placed(start, MediaPart(tower, digest, count, None), shown))
    return placed


def _embeddings(file: SessionFile, placed: list[Placed], config: TextConfig) -> dict[int, F32]:
    found = {}
    for name, array in file.arrays.items():
        if not name.startswith(_MEDIA):
            continue
        number = int(name.removeprefix(_MEDIA))
        expected = (placed[number].part.count, config.hidden_size) if number < len(placed) else None
        if array.dtype != np.float32 or array.shape != expected or not np.isfinite(array).all():
            raise CheckpointError(
                f"expected float32 {expected} as {name}, got {array.dtype} {array.shape}"
            )
        found[number] = array
    return found


def _spans(values: Any, cached: int, config: TextConfig) -> list[Span]:
    spans = [Span(start, Plan.from_json(plan, config)) for start, plan in values]
    starts = [span.start for span in spans]
    whole = all(type(start) is int for start in starts)
    if not whole or starts != sorted(set(starts)) or starts[:1] != ([0] if cached else []):
        raise CheckpointError(
            f"expected parts of the cache that begin at 0 and ascend, got {starts}"
        )
    if starts and starts[-1] >= cached:
        raise CheckpointError(
            f"expected parts of the cache below {cached}, got one at {starts[-1]}"
        )
    return spans
