"""Which token comes next: from logits to one id.

In: logits (V,) f32 after the soft cap, what was said so far, and a `Sampling`. Out: an id. Order of
the steps as in the checkpoint's home library: repetition penalty, mask, temperature, top-k, top-p,
min-p. The random number of a token is a function of the seed and of the token's position, so it
does not matter what else runs, and there is no state to save.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo import kernels
from matryo.errors import ConfigError, InputError

Logits = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_] | npt.NDArray[np.float32]
LogitMask = Mask | Callable[[Sequence[int]], Mask | None]
"""bool (V,): which ids are allowed; float32 (V,): added to the logits; or a function of the ids so
far giving one of them.
"""

_MAX_SEED = (1 << 64) - 1
_FIRST_CANDIDATES = 256  # top-p rarely needs more; doubled until enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen. What is None comes from the checkpoint's generation_config.json.

    >>> Sampling(temperature=0.7, top_k=40, seed=1).top_k
    40
    >>> Sampling(top_p=2.0)
    Traceback (most recent call last):
    matryo.errors.ConfigError: top_p: expected a number in 0 < top_p <= 1, got 2.0
    """

    temperature: float | None = None
    """0 always takes the likeliest token."""
    top_k: int | None = None
    """Choose among the k likeliest; 0 = all."""
    top_p: float | None = None
    """Choose among the likeliest that together have this probability; 1 = all."""
    min_p: float | None = None
    """Leave out tokens less likely than this fraction of the likeliest; 0 = none."""
    repetition_penalty: float | None = None
    """Logits of tokens already present are divided by this (multiplied if negative); 1 = off."""
    seed: int | None = None
    """Same seed, same prompt, same answer. None = a new one each time."""

    def __post_init__(self) -> None:
        _check_number("temperature", self.temperature, 0.0, math.inf)
        _check_number("top_p", self.top_p, 0.0, 1.0, above=True)
        _check_number("min_p", self.min_p, 0.0, 1.0)
        _check_number("repetition_penalty", self.repetition_penalty, 0.0, math.inf, above=True)
        _check_integer("top_k", self.top_k, None)
        _check_integer("seed", self.seed, _MAX_SEED)

    def resolve(self, defaults: Sampling) -> Sampling:
        """This, with what is None taken from `defaults`, and a seed if there is none."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        resolved = replace(defaults, **given)
        return (
            resolved if resolved.seed is not None else replace(resolved, seed=secrets.randbits(64))
        )

    def to_json(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Sampling:
        """Inverse of `to_json`. Raises ConfigError for an unknown field or a bad value."""
        unknown = sorted(set(document) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigError(f"sampling: unknown field {unknown[0]!r}")
        return cls(**document)


def default_sampling(generation_config: Mapping[str, Any]) -> Sampling:
    """Defaults of a checkpoint. `do_sample: false` means greedy. Raises ConfigError for bad
    values.
    """
    if generation_config.get("do_sample") is False:
        return replace(GEMMA_SAMPLING, temperature=0.0)
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    given = {
        name: generation_config[name] for name in names if generation_config.get(name) is not None
    }
    return replace(GEMMA_SAMPLING, **given)


def choose(
    logits: Logits,
    sampling: Sampling,
    ids: Sequence[int],
    *,
    suppressed: npt.NDArray[np.int64] | None = None,
    logit_mask: LogitMask | None = None,
) -> int:
    """Choose the token that follows `ids`.

    logits (V,) f32, changed in place · sampling: resolved, nothing None · ids: prompt and answer so
    far
    suppressed: ids that are never chosen
    Raises InputError if the mask has the wrong shape or allows no token.
    """
    _penalise(logits, ids, _given(sampling.repetition_penalty))
    if suppressed is not None:
        logits[suppressed] = -np.inf
    if logit_mask is not None:
        _apply_mask(logits, logit_mask(ids) if callable(logit_mask) else logit_mask)
        if not math.isfinite(logits.max()):
            raise InputError("the logit mask allows no token: allow at least one at every step")
    temperature = _given(sampling.temperature)
    if temperature == 0.0:
        return int(kernels.argmax(logits))
    candidates, scores = _candidates(logits, sampling, temperature)
    weights = np.exp(scores)
    cumulative = np.cumsum(weights)
    point = uniform(int(_given(sampling.seed)), len(ids)) * cumulative[-1]
    # `side="right"` never lands on a token of weight zero; the minimum guards the last one against
    # rounding.
    index = min(int(np.searchsorted(cumulative, point, side="right")), len(weights) - 1)
    return index if candidates is None else int(candidates[index])


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on nothing but a seed and a position (SplitMix64's output
    function, twice).
    """
    mixed = _mix(_mix(seed) ^ (position * 0x9E3779B97F4A7C15 & _MAX_SEED))
    return (mixed >> 11) * 2.0**-53


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MAX_SEED
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MAX_SEED
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MAX_SEED
    return value ^ (value >> 31)


def _candidates(
    logits: Logits, sampling: Sampling, temperature: float
) -> tuple[npt.NDArray[np.int32] | None, npt.NDArray[np.float64]]:
    """Ids that may be chosen (None = all, in order) and the logarithms of their weights, float64,
    the largest 0.
    """
    top_k, top_p, min_p = _given(sampling.top_k), _given(sampling.top_p), _given(sampling.min_p)
    if top_k > 0:
        ids, values = kernels.top_k(logits, min(int(top_k), len(logits)))
        scores = _scores(values, temperature)
        cumulative = np.cumsum(np.exp(scores))
        keep = min(
            _smallest_nucleus(cumulative, top_p * cumulative[-1]), _num_likely(scores, min_p)
        )
        return ids[:keep], scores[:keep]
    all_scores = _scores(logits, temperature)
    if top_p >= 1.0 and min_p == 0.0:
        return None, all_scores
    total = float(np.exp(all_scores).sum())
    count = _FIRST_CANDIDATES
    while True:
        count = min(count, len(logits))
        ids, values = kernels.top_k(logits, count)
        scores = _scores(values, temperature)
        cumulative = np.cumsum(np.exp(scores))
        keep = min(_smallest_nucleus(cumulative, top_p * total), _num_likely(scores, min_p))
        # The cut lies inside what was looked at, or everything was looked at.
        if keep < count or count == len(logits):
            return ids[:keep], scores[:keep]
        count *= 4


def _scores(logits: Logits, temperature: float) -> npt.NDArray[np.float64]:
    """Logits (n) relative to the largest, divided by the temperature; the smallest of temperatures
    gives -inf, not NaN.
    """
    wide = logits.astype(np.float64)
    with np.errstate(over="ignore"):
        scores: npt.NDArray[np.float64] = (wide - wide.max()) / temperature
    return scores


def _smallest_nucleus(cumulative: npt.NDArray[np.float64], mass: float) -> int:
    """How many of the descending weights, given as running sums, it takes to reach `mass`; at least
    one.
    """
    return min(int(np.searchsorted(cumulative, mass)) + 1, len(cumulative))


def _num_likely(scores: npt.NDArray[np.float64], min_p: float) -> int:
    """How many of the descending scores, the first 0, have at least `min_p` of the probability of
    the first.
    """
    if min_p == 0.0:
        return len(scores)
    return int(np.count_nonzero(scores >= math.log(min_p)))


def _penalise(logits: Logits, ids: Sequence[int], penalty: float) -> None:
    if penalty == 1.0 or not ids:
        return
    present = np.unique(np.asarray(ids, np.int64))
    present = present[present < len(logits)]
    values = logits[present].astype(np.float64)
    with np.errstate(over="ignore"):
        penalised = np.where(values > 0, values / penalty, values * penalty)
    largest = float(np.finfo(np.float32).max)
    logits[present] = np.clip(penalised, -largest, largest)


def _apply_mask(logits: Logits, mask: Mask | None) -> None:
    if mask is None:
        return
    if mask.shape != logits.shape or mask.dtype not in (np.bool_, np.float32):
        raise InputError(
            f"logit mask: expected bool or float32 of shape {logits.shape}, got {mask.dtype} of "
            f"shape {mask.shape}"
        )
    if mask.dtype == np.bool_:
        np.copyto(logits, -np.inf, where=np.logical_not(mask))
    else:
        logits += mask
        if np.isnan(logits).any() or np.isposinf(logits).any():
            raise InputError("logit mask: expected numbers or -inf, got NaN or +inf")


def _given(value: float | None) -> float:
    if value is None:
        raise ConfigError(
            "sampling: a field is None where a resolved Sampling is needed; call `resolve` first"
        )
    return value


def _check_number(
    name: str, value: float | None, low: float, high: float, *, above: bool = False
) -> None:
    if value is None:
        return
    inside = (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )
    if not inside or not low <= value <= high or (above and value == low):
        allowed = f"{low:g} {'<' if above else '<='} {name}" + (
            f" <= {high:g}" if high < math.inf else ""
        )
        raise ConfigError(f"{name}: expected a number in {allowed}, got {value!r}")


def _check_integer(name: str, value: int | None, high: int | None) -> None:
    if value is None:
        return
    inside = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not inside or (high is not None and value > high):
        allowed = f"0 <= {name}" + (f" <= {high}" if high is not None else "")
        raise ConfigError(f"{name}: expected a whole number in {allowed}, got {value!r}")


# What Gemma 3n's generation_config.json says; used where a checkpoint has none.
GEMMA_SAMPLING = Sampling(temperature=1.0, top_k=64, top_p=0.95, min_p=0.0, repetition_penalty=1.0)
GREEDY = Sampling(temperature=0.0)
