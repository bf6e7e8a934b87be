"""Same features or no number: do the engines compute the same encoder?

In: one encoder, the contenders. Out: for each, against the reference in float32 on the same
picture or sound: the least and the mean cosine of its feature vectors, and the largest difference
in units of the reference's root mean square. Random weights; int8 settings say here how much their
rounding costs. Features of pictures are also taken through the embedder, to what the language
model gets, and the least cosine is given again.
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

NORM = "model.embed_{}.soft_embedding_norm.weight"
PROJECTION = "model.embed_{}.embedding_projection.weight"
EPS = 1e-6


@dataclass(frozen=True)
class Comparison:
    """One encoder: a case of `prompt` pixels or seconds, and who computes it, reference first.

    tower: whose embedder the features are taken through, if any
    """

    title: str
    prompt: int
    contenders: tuple[str, ...]
    tower: str = ""


COMPARISONS = {
    **{
        f"picture-{side}": Comparison(
            f"MobileNet-V5, {side} px", side,
            ("torch_pictures:f32", *(n for n in picture.CONTENDERS if n != "torch_pictures:f32")),
            "vision",
        )
        for side in picture.SIDES
    },
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
    least_embedded: float = 0.0
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
        found = check(name, comparison, wanted, options)
        records.append(
            {
                "size": comparison.title,
                "reference": reference,
                "agreement": [asdict(one) for one in found],
            }
        )
    return record.save("encoder_agreement", options, {}, records, results, step)


def check(
    name: str, comparison: Comparison, others: Sequence[str], options: Options
) -> list[Agreement]:
    """One after another, so that one encoder at a time is in memory."""
    reference, prompt = comparison.contenders[0], comparison.prompt
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
                got = features(name, prompt, one, options, Path(folder))
                figures = [*compare(expected, got)]
                if comparison.tower:
                    both = (
                        embedded(comparison.tower, x, options.models_path) for x in (expected, got)
                    )
                    figures.append(compare(*both)[0])
                found.append(Agreement(one, *figures))
            except (Refused, ValueError) as reason:
                found.append(Agreement(one, reason=str(reason)))
            say(f"  {found[-1]}")
    return found


def embedded(tower: str, values: np.ndarray, folder: Path) -> np.ndarray:
    """Features as inputs of the language model: rms(W · rms(x; norm)) of `towers-hf`."""
    from safetensors import safe_open

    found = {}
    for path in (folder / "towers-hf").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for name in {NORM.format(tower), PROJECTION.format(tower)} & set(file.keys()):
                found[name] = file.get_tensor(name).double().numpy()
    normed = unit_rows(values.astype(np.float64)) * found[NORM.format(tower)]
    return unit_rows(normed @ found[PROJECTION.format(tower)].T)


def unit_rows(x: np.ndarray) -> np.ndarray:
    """Rows of mean square 1."""
    rows: np.ndarray = x / np.sqrt((x**2).mean(axis=1, keepdims=True) + EPS)
    return rows


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
