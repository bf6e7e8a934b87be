"""The sound encoder computes what transformers computes with the same weights."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import Gemma3nAudioConfig, Gemma3nAudioEncoder, Gemma3nAudioFeatureExtractor

from helpers.sound import TINY, TINY_CONFIG, audio_encoder, random_audio_state, sound
from matryo.inputs.mel import MelFilters
from matryo.kernels import audio, reference_audio
from matryo.model.audio import AudioEncoder

F32 = npt.NDArray[np.float32]
LIMIT = 2e-4  # of values around 1 after three blocks


@pytest.fixture(scope="module")
def oracle() -> Gemma3nAudioEncoder:
    model = Gemma3nAudioEncoder(Gemma3nAudioConfig(**TINY))
    model.train(False)
    state = random_audio_state(TINY_CONFIG)
    model.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
    return model


@pytest.fixture
def encoder(backend: str) -> AudioEncoder:
    ops: ModuleType = reference_audio if backend == "reference" else audio
    return audio_encoder(ops=ops)


def expected(oracle: Gemma3nAudioEncoder, mel: F32, mask: Any) -> tuple[F32, Any]:
    """Tokens (B, n, d) and their mask of a padded batch."""
    with torch.no_grad():
        out = oracle(torch.tensor(mel), ~torch.tensor(mask))
    return out.last_hidden_state.numpy(), ~out.audio_mel_mask.numpy()


def mel_of(rng: np.random.Generator, frames: int) -> F32:
    return rng.normal(-4.0, 3.0, (frames, TINY_CONFIG.num_mels)).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33, 97, 197, 497])
def test_tokens(
    encoder: AudioEncoder, oracle: Gemma3nAudioEncoder, frames: int, rng: np.random.Generator
) -> None:
    mel = mel_of(rng, frames)
    wanted, _ = expected(oracle, mel[None], np.ones((1, frames), bool))
    got = encoder.encode(mel=mel)
    assert got.shape == wanted[0].shape == (-(-frames // 16), TINY_CONFIG.hidden_size)
    assert np.abs(wanted).max() > 1
    assert np.abs(got - wanted[0]).max() < LIMIT


def test_a_padded_batch(
    encoder: AudioEncoder, oracle: Gemma3nAudioEncoder, rng: np.random.Generator
) -> None:
    lengths, frames = (130, 97, 50, 16, 3), 130
    mel = np.stack([mel_of(rng, frames) for _ in lengths])
    mask = np.arange(frames) < np.array(lengths)[:, None]
    mel[~mask] = np.log(1e-5)
    wanted, tokens = expected(oracle, mel, mask)
    for clip in range(len(lengths)):
        got = encoder.encode(mel=mel[clip], mask=mask[clip])
        assert np.abs(got - wanted[clip]).max() < LIMIT
        assert (encoder.valid_tokens(mask[clip]) == tokens[clip]).all()
        assert (got[~tokens[clip]] == 0).all()


def test_a_mask_with_holes(
    encoder: AudioEncoder, oracle: Gemma3nAudioEncoder, rng: np.random.Generator
) -> None:
    """Frames behind a hole see only the valid ones before it."""
    mel, mask = mel_of(rng, 300), np.ones(300, bool)
    mask[40:90] = mask[200:207] = False
    wanted, _ = expected(oracle, mel[None], mask[None])
    got = encoder.encode(mel=mel, mask=mask)
    assert np.abs(got - wanted[0]).max() < LIMIT


@pytest.mark.parametrize("samples", [513, 640, 641, 1_000, 16_000, 16_001, 48_333])
def test_log_mel_frames_and_their_mask(samples: int, rng: np.random.Generator) -> None:
    extractor = Gemma3nAudioFeatureExtractor()
    clip = sound(rng, samples)
    wanted = extractor([clip], return_tensors="np")
    mel, mask = MelFilters().clip(clip)
    assert np.abs(mel - wanted["input_features"][0]).max() < 1e-4
    assert (mask == wanted["input_features_mask"][0]).all()


def test_log_mel_frames_of_a_batch(rng: np.random.Generator) -> None:
    clips = [sound(rng, samples) for samples in (20_000, 48_333, 600)]
    wanted = Gemma3nAudioFeatureExtractor()(clips, return_tensors="np")
    for index, clip in enumerate(clips):
        mel, mask = MelFilters().clip(clip, 48_333)
        assert np.abs(mel - wanted["input_features"][index]).max() < 1e-4
        assert (mask == wanted["input_features_mask"][index]).all()
        assert mask.all() == (index == 1)
