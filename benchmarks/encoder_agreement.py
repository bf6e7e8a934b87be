"""Same features or no number: do the engines compute the same encoder?

In: one encoder, the contenders. Out: for each, against the reference in float32 on the same
picture or sound: the least and the mean cosine of its feature vectors, and the largest difference
in units of the reference's root mean square. Random weights; int8 settings say here how much their
rounding costs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from . import record
from .case import Case, Options
from .driver import Refused, Worker, availability
from .runner import say
from .suites import picture, sound, sovit


@dataclass(frozen=True)
class Comparison:
    """One encoder: a case of `prompt` pixels or seconds, and who computes it, reference first."""

    title: str
    prompt: int
    contenders: tuple[str, ...]


COMPARISONS = {
    "picture": Comparison(
        "MobileNet-V5, 256 px", 256,
        ("torch_pictures:f32", *(n for n in picture.CONTENDERS if n != "torch_pictures:f32")),
    ),
    "sovit": Comparison(
        "SoViT-400M, 384 px", 384,
        ("torch_pictures:sovit_f32",
         *(n for n in sovit.CONTENDERS if ":sovit" in n and n != "torch_pictures:sovit_f32")),
    ),
    "sound": Comparison(
        "Sound, 5 s", 5,
        ("transformers_sound:f32",
         *(n for n in sound.CONTENDERS if n != "transformers_sound:f32")),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Agreement:
    contender: str
    least_cosine: float = 0.0
    mean_cosine: float = 0.0
    largest: float = 0.0
    reason: str = ""


def compare(reference: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """(least cosine, mean cosine, largest difference / rms of the reference) of feature vectors
    (tokens, C). Raises ValueError if the shapes differ.
    """
    if reference.shape != other.shape:
        raise ValueError(f"{other.shape} features beside the reference's {reference.shape}")
    a, b = reference.astype(np.float64), other.astype(np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return (
        float(cosines.min()),
        float(cosines.mean()),
        float(np.abs(a - b).max() / np.sqrt((a**2).mean())),
    )


def measure(
    names: Sequence[str],
    contenders: Sequence[str],
    options: Options,
    results: Path = record.RESULTS,
    step: str = "",
) -> dict[str, object]:
    """Compare the encoders called `names`, save and return the document.

    contenders: those that take part beside the reference; none = all. Raises Refused without a
    reference.
    """
    records: list[dict[str, object]] = []
    for name in names:
        comparison = COMPARISONS[name]
        reference, *others = comparison.contenders
        wanted = [one for one in others if not contenders or one in contenders]
        found = check(name, comparison.prompt, reference, wanted, options)
        records.append(
            {
                "size": comparison.title,
                "reference": reference,
                "agreement": [asdict(one) for one in found],
            }
        )
    return record.save("encoder_agreement", options, {}, records, results, step)


def check(
    name: str, prompt: int, reference: str, others: Sequence[str], options: Options
) -> list[Agreement]:
    """One after another, so that one encoder at a time is in memory."""
    absent = {one: why for one, why in availability([reference, *others], options).items() if why}
    if reference in absent:
        raise Refused(absent[reference])
    found: list[Agreement] = []
    with tempfile.TemporaryDirectory() as folder:
        expected = features(name, prompt, reference, options, Path(folder))
        for one in others:
            if one in absent:
                found.append(Agreement(one, reason=absent[one]))
                continue
            try:
                values = compare(expected, features(name, prompt, one, options, Path(folder)))
                found.append(Agreement(one, *values))
            except (Refused, ValueError) as reason:
                found.append(Agreement(one, reason=str(reason)))
            say(f"  {found[-1]}")
    return found


def features(name: str, prompt: int, contender: str, options: Options, folder: Path) -> np.ndarray:
    """What one contender computes. Raises Refused with its own words."""
    path = folder / f"{contender.replace(':', '-')}.npz"
    worker = Worker(contender, options)
    try:
        worker.run(Case("features", name, prompt=prompt, note=str(path)))
    finally:
        worker.close()
    values: np.ndarray = np.load(path)["values"]
    return values
