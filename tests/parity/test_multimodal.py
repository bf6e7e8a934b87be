"""Pictures and clips among text give the logits of transformers, end to end.

A tiny random model with every part. Two correct float32 implementations differ by about 1e-4 on
logits of magnitude 25.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import Gemma3nForConditionalGeneration

import matryo
from helpers.random_weights import F32, MEDIA_IDS, TEXT_VOCAB
from helpers.tiny_multimodal import reference_logits
from helpers.towers import IDS
from matryo.errors import CapacityError, InputError
from matryo.inputs.mel import MelFilters

TOLERANCE = 5e-4
IMAGE = [IDS["boi_token_id"], *[IDS["image_token_id"]] * 16, IDS["eoi_token_id"]]
CLIP = [IDS["boa_token_id"], *[IDS["audio_token_id"]] * 12, IDS["eoa_token_id"]]


@pytest.fixture(scope="module")
def reference(tiny_multimodal_model: Gemma3nForConditionalGeneration) -> Any:
    return tiny_multimodal_model


@pytest.fixture(scope="module")
def model(multimodal_checkpoint: Path) -> Iterator[matryo.Model]:
    with matryo.load(multimodal_checkpoint, weights="f32") as model:
        yield model


def pictures(rng: np.random.Generator, count: int, side: int = 64) -> list[F32]:
    return [rng.random((3, side, side), np.float32) for _ in range(count)]


def mels(rng: np.random.Generator, *lengths: int) -> list[F32]:
    return [(rng.standard_normal((length, 128)) - 3).astype(np.float32) for length in lengths]


def padded(clips: list[F32]) -> tuple[F32, np.ndarray]:
    """Log-mel of one length, as the reference's feature extractor gives it, and what is sound."""
    longest = max(map(len, clips))
    out = np.full((len(clips), longest, 128), np.log(1e-5), np.float32)
    mask = np.zeros((len(clips), longest), bool)
    for row, clip in enumerate(clips):
        out[row, : len(clip)], mask[row, : len(clip)] = clip, True
    return out, mask


def prompt(rng: np.random.Generator, *media: list[int]) -> list[int]:
    """Random text before, between and after media."""
    ids = [2, *rng.integers(5, 500, 4)]
    for part in media:
        ids += [*part, *rng.integers(5, 500, 3)]
    return [int(token) for token in ids]


def test_a_picture(
    model: matryo.Model, reference: Gemma3nForConditionalGeneration, rng: np.random.Generator
) -> None:
    ids, images = prompt(rng, IMAGE), pictures(rng, 1)
    want = reference_logits(reference, ids, images)
    assert np.abs(model.logits(ids, images=images) - want).max() < TOLERANCE
    without = model.logits(ids)
    assert np.abs(without - want).max() > 1.0  # the picture matters


@pytest.mark.parametrize("frames", [100, 189, 17])
def test_a_clip_of_any_length(
    model: matryo.Model,
    reference: Gemma3nForConditionalGeneration,
    rng: np.random.Generator,
    frames: int,
) -> None:
    """189 frames are 12 tokens, as many as a clip has; the others are filled up."""
    ids, clips = prompt(rng, CLIP), mels(rng, frames)
    want = reference_logits(reference, ids, None, *padded(clips))
    assert np.abs(model.logits(ids, audio=clips) - want).max() < TOLERANCE


def test_pictures_and_clips_interleaved(
    model: matryo.Model, reference: Gemma3nForConditionalGeneration, rng: np.random.Generator
) -> None:
    ids = prompt(rng, CLIP, IMAGE, IMAGE, CLIP)
    images, (sound, mask) = pictures(rng, 2), padded(mels(rng, 150, 60))
    want = reference_logits(reference, ids, images, sound, mask)
    got = model.logits(ids, images=images, audio=[*zip(sound, mask, strict=True)])
    assert np.abs(got - want).max() < TOLERANCE
    swapped = model.logits(ids, images=images[::-1], audio=[*zip(sound, mask, strict=True)])
    assert np.abs(swapped - want).max() > 0.1


def test_every_chunking_gives_the_same_bits(model: matryo.Model, rng: np.random.Generator) -> None:
    ids, images, clips = prompt(rng, IMAGE, CLIP), pictures(rng, 1), mels(rng, 90)
    whole = model.logits(ids, images=images, audio=clips)
    for chunk in (1, 7, 20):
        assert np.array_equal(model.logits(ids, images=images, audio=clips, chunk=chunk), whole)
    last = model.logits(ids, positions="last", images=images, audio=clips)
    assert np.array_equal(last[0], whole[-1])


def test_samples_are_their_log_mel(model: matryo.Model, rng: np.random.Generator) -> None:
    ids = prompt(rng, CLIP)
    samples = (0.1 * rng.standard_normal(16_000)).astype(np.float32)
    one = model.logits(ids, audio=[samples])
    other = model.logits(ids, audio=[MelFilters().clip(samples)])
    assert np.abs(one - other).max() < TOLERANCE


def test_embed_and_logits_are_one(model: matryo.Model, rng: np.random.Generator) -> None:
    ids, images = prompt(rng, IMAGE), pictures(rng, 1)
    embeddings = model.embed(ids, images)
    assert embeddings is not None and list(embeddings.rows) == [6 + row for row in range(16)]
    assert np.array_equal(
        model.logits(ids, embeddings=embeddings), model.logits(ids, images=images)
    )


@pytest.mark.parametrize("kind", ["bf16", "q8", "q4"])
def test_packed_kinds_stay_close(
    multimodal_checkpoint: Path, model: matryo.Model, rng: np.random.Generator, kind: str
) -> None:
    """What pictures become before the language model: rounding of weights, and nothing else."""
    images, clips = pictures(rng, 1), mels(rng, 189)
    with matryo.load(multimodal_checkpoint, weights=kind) as rounded:
        for ids, media in ((IMAGE, {"images": images}), (CLIP, {"audio": clips})):
            ours, theirs = rounded.embed(ids, **media), model.embed(ids, **media)
            assert ours is not None and theirs is not None
            norms = np.linalg.norm(ours.values, axis=1) * np.linalg.norm(theirs.values, axis=1)
            cosine = (ours.values * theirs.values).sum(axis=1) / norms
            assert cosine.min() > {"bf16": 0.9995, "q8": 0.99, "q4": 0.8}[kind]


@pytest.mark.parametrize(
    ("ids", "images", "audio", "message"),
    [
        (IMAGE, 2, 0, "2 pictures need 32 soft tokens .id 513., the prompt has 16"),
        (IMAGE + IMAGE, 1, None, "1 pictures need 16 soft tokens"),
        (IMAGE[:-3], 1, None, "the prompt has 14"),
        (IMAGE, 1, 1, "1 clips need 12 soft tokens .id 529., the prompt has 0"),
        (CLIP, None, 0, "0 clips need 0 soft tokens"),
    ],
)
def test_counts_must_match(
    model: matryo.Model,
    rng: np.random.Generator,
    ids: list[int],
    images: int | None,
    audio: int | None,
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        model.logits(
            ids,
            images=None if images is None else pictures(rng, images),
            audio=None if audio is None else mels(rng, *[50] * audio),
        )


def test_what_is_no_picture_and_no_sound(model: matryo.Model, rng: np.random.Generator) -> None:
    good = pictures(rng, 1)[0]
    for pixels in (good[0], good[:2], good * 255, good.astype(np.float64), good[:, :0], None):
        with pytest.raises((InputError, matryo.errors.ShapeError)):
            model.logits(IMAGE, images=[pixels])  # type: ignore[list-item]
    mel = mels(rng, 50)[0]
    bad: list[object] = [
        mel[:, :127], mel[None], mel[:0], mel * np.float32(np.nan), [1.0], None,
        (mel, np.ones(49, bool)), (mel, np.ones(50)), np.zeros(400, np.float32),
        (np.zeros(4000, np.float32), np.ones(4000, bool)),
    ]  # fmt: skip
    for sound in bad:
        with pytest.raises((InputError, matryo.errors.ShapeError)):
            model.logits(CLIP, audio=[sound])  # type: ignore[list-item]
    with pytest.raises(InputError, match="13 tokens; expected at most 12"):
        model.logits(CLIP, audio=mels(rng, 193))


def test_media_and_embeddings_exclude_each_other(
    model: matryo.Model, rng: np.random.Generator
) -> None:
    images = pictures(rng, 1)
    with pytest.raises(InputError, match="give one of the two"):
        model.logits(IMAGE, images=images, embeddings=model.embed(IMAGE, images))
    with pytest.raises(CapacityError):
        model.logits(IMAGE * 20, images=images * 20)


def test_hard_rows_stand_for_ids_without_media(
    model: matryo.Model, reference: Gemma3nForConditionalGeneration, rng: np.random.Generator
) -> None:
    ids = rng.permutation(np.arange(TEXT_VOCAB, TEXT_VOCAB + 2 * MEDIA_IDS))
    want = reference_logits(reference, ids)
    assert np.abs(model.logits(ids) - want).max() < TOLERANCE
