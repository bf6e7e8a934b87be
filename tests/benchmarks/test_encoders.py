"""Encoders in the benchmarks: contenders, agreement, lag of a stream, claims, tables."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.case import Case, Options
from benchmarks.contenders import NAMES, TITLES, of, our_sound
from benchmarks.contenders.torch_pictures import rows, side_for, split
from benchmarks.driver import Refused, availability
from benchmarks.encoder_agreement import COMPARISONS, NORM, PROJECTION, compare, embedded, measure
from benchmarks.sound_clip import clip
from benchmarks.suites import picture, sound, sovit, stream

from benchmarks import claims, encoder_report


@pytest.mark.parametrize("name", NAMES)
def test_every_contender_has_the_four_functions_and_says_what_is_missing(
    name: str, tmp_path: Path
) -> None:
    module, options = of(name, Options(models=str(tmp_path)))
    assert all(callable(getattr(module, part)) for part in ("available", "load", "run", "close"))
    assert options.setting == name.partition(":")[2]
    can, reason = module.available(options)
    assert can or reason


def test_settings_reach_the_contender(tmp_path: Path) -> None:
    (tmp_path / "towers-q8").mkdir()
    reasons = availability(["our_sound:q8", "our_sound:f32"], Options(models=str(tmp_path)))
    assert reasons == {"our_sound:q8": "", "our_sound:f32": "no towers-f32 in the models folder"}


def test_suites_and_comparisons_know_their_contenders() -> None:
    for suite in (picture, sovit, sound, stream):
        assert set(suite.CONTENDERS) <= set(TITLES)
    for comparison in COMPARISONS.values():
        assert len(set(comparison.contenders)) == len(comparison.contenders)


def test_sovit_gets_the_size_that_gemma_3_gives_it() -> None:
    assert split("sovit_bf16") == ("sovit", "bf16")
    assert split("int8") == ("mobilenet", "int8")
    assert [side_for("sovit", side) for side in (768, 384)] == [896, 384]
    assert [side_for("mobilenet", side) for side in (768, 384)] == [768, 384]
    grid = np.arange(12).reshape(2, 2, 3)
    assert rows(grid)[1].tolist() == [1, 7]


def test_features_agree_with_themselves_and_not_with_others() -> None:
    one = np.random.default_rng(0).standard_normal((9, 50))
    assert compare(one, one) == pytest.approx((1, 1, 0))
    least, mean, largest = compare(one, one + np.eye(9, 50) * [[5], *[[0]] * 8])
    assert least < 0.95 < mean < 1
    assert largest == pytest.approx(5 / np.sqrt((one**2).mean()))
    with pytest.raises(ValueError, match="features beside"):
        compare(one, one.T)


def test_features_are_embedded_as_the_model_does_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    (tmp_path / "towers-hf").mkdir()
    norm, projection = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    save_file(
        {NORM.format("vision"): norm, PROJECTION.format("vision"): projection.bfloat16()},
        tmp_path / "towers-hf" / "model.safetensors",
    )
    got = embedded("vision", np.array([[3.0, 4.0]], np.float32), tmp_path)
    wanted = np.array([3.0, 3.0 + 8.0]) / np.sqrt((9 + 121) / 2)  # the first norm cancels out
    np.testing.assert_allclose(got, [wanted], rtol=1e-5)


def test_without_a_reference_there_is_no_agreement(tmp_path: Path) -> None:
    with pytest.raises(Refused):
        measure(["sound"], [], Options(models=str(tmp_path)), tmp_path)


class LateStream:
    """Gives each token a fixed time after its 160 ms are there."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.samples, self.given = seconds, 0, 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        self.samples += len(samples)
        ready = self.samples // 2560 - self.given
        if ready:
            time.sleep(self.seconds)
        self.given += ready
        return np.zeros((ready, 4), np.float32)

    def num_bytes(self) -> int:
        return 7


@pytest.mark.parametrize(("piece", "late"), [(20, 0.0), (160, 0.05)])
def test_lag_is_counted_from_the_end_of_a_token(
    monkeypatch: pytest.MonkeyPatch, piece: int, late: float
) -> None:
    class Encoder:
        def stream(self) -> LateStream:
            return LateStream(late)

    monkeypatch.setattr(our_sound, "encoder", lambda state: Encoder())
    result = our_sound.live(
        our_sound.State(Options(models="")), Case("stream", "", prompt=1, generate=piece)
    )
    details: dict[str, Any] = result.details
    assert details["tokens"] == 6
    assert 1e3 * late <= details["lag_median_ms"] < 1e3 * late + 30
    assert details["lag_max_ms"] >= details["lag_median_ms"]
    assert 160 <= details["first_token_ms"] < 160 + 1e3 * late + 60


def test_clips_have_their_length_and_are_not_clipped() -> None:
    sound = clip(2)
    assert sound.shape == (32_000,) and sound.dtype == np.float32
    assert 0.1 < np.abs(sound).max() < 1


def repetition(number: int, contender: str, seconds: float, **details: float) -> dict[str, Any]:
    return {
        "round": number,
        "contender": contender,
        "result": {
            "seconds": seconds, "tokens": 1, "resident_bytes": 10**9,
            "peak_bytes": int(1e9 * seconds), "details": details,
        },
        "bandwidth_before": 20.0, "bandwidth_after": 20.0, "others": 0.0,
    }  # fmt: skip


def record_of(title: str, prompt: int, seconds: dict[str, float], **details: float) -> Any:
    return {
        "case": {"prompt": prompt}, "title": title,
        "measurements": [
            repetition(number, name, value, **details)
            for number in range(3)
            for name, value in seconds.items()
        ],
    }  # fmt: skip


SOVIT = record_of(
    "openvino 768 px", 768,
    {"our_pictures:f32": 5.0, "our_pictures:int8": 2.0, "openvino_pictures:f32": 6.0,
     "openvino_pictures:int8": 4.0, "openvino_pictures:sovit_f32": 36.0,
     "openvino_pictures:sovit_int8": 16.0},
)  # fmt: skip


def test_claims_are_judged_by_the_best_engine() -> None:
    quantised, plain, memory = claims.lines([SOVIT])
    assert quantised[:2] == ["13x faster, quantised", "reproduced"]
    assert "Matryo int8 against OpenVINO f32, SoViT 18.0x" in quantised[2]
    assert "OpenVINO int8, onnxruntime's graph against OpenVINO f32, SoViT 9.0x" in quantised[2]
    assert "Otherwise read: OpenVINO int8, onnxruntime's graph against" in quantised[2]
    assert plain[1] == "reproduced" and "6.0x" in plain[2] and "7.2x" in plain[2]
    assert memory[1] == "reproduced"
    slow = record_of(
        "timm 768 px", 768, {"torch_pictures:f32": 6.0, "torch_pictures:sovit_f32": 36.0}
    )
    assert [line[1] for line in claims.lines([slow])] == ["nearly"]
    slower = record_of(
        "timm 768 px", 768, {"torch_pictures:f32": 9.0, "torch_pictures:sovit_f32": 36.0}
    )
    assert [line[1] for line in claims.lines([slower])] == ["refuted"]


def test_parameters_are_counted_where_they_were_measured() -> None:
    one = record_of("timm 384 px", 384, {"torch_pictures:f32": 1.0}, parameters=3e8)
    other = record_of("timm 384 px", 384, {"torch_pictures:sovit_f32": 1.0}, parameters=4e8)
    ((claim, verdict, figures),) = claims.lines([one, other])
    assert (claim, verdict) == ("46 % fewer parameters", "refuted")
    assert figures == "25% fewer: 300 against 400 million"


def test_pictures_are_compared_with_both_of_ours() -> None:
    table = encoder_report.picture_table([SOVIT])
    line = next(one for one in table.splitlines() if "OpenVINO f32 |" in one)
    assert "| 1.20x [1.20, 1.20], no difference" not in line
    assert "1.20x [1.20, 1.20] (2) | 3.00x [3.00, 3.00] (2)" in line
    only_theirs = record_of("timm 768 px", 768, {"torch_pictures:f32": 6.0})
    assert "1.00x" not in encoder_report.picture_table([only_theirs])


def test_the_worst_lag_is_shown() -> None:
    details = dict.fromkeys(encoder_report.STREAM_COLUMNS, 5.0)
    one = record_of("stream", 20, {"our_sound:q8": 1.0})
    for number, single in enumerate(one["measurements"]):
        single["result"]["details"] = {**details, "lag_max_ms": 10.0 * number}
    table = encoder_report.stream_table([one])
    assert "| stream | Matryo q8 | 5.0 | 5.0 | 20.0 |" in table


def test_agreement_shows_figures_or_a_reason() -> None:
    rows = [
        {"contender": "our_pictures:int8", "least_cosine": 0.9991, "mean_cosine": 0.9995,
         "largest": 0.2, "least_embedded": 0.9982, "reason": ""},
        {"contender": "our_pictures:f32", "least_cosine": 1.0, "mean_cosine": 1.0,
         "largest": 1e-5, "reason": ""},
        {"contender": "openvino_pictures:bf16", "least_cosine": 0.0, "mean_cosine": 0.0,
         "largest": 0.0, "reason": "no bf16"},
    ]  # fmt: skip
    text = encoder_report.agreement_section(
        [{"size": "256 px", "reference": "torch_pictures:f32", "agreement": rows}]
    )
    assert "| 256 px | Matryo int8 | timm f32 | 0.99910 | 0.99950 | 0.2 | 0.99820 |" in text
    assert "| 256 px | Matryo f32 | timm f32 | 1.00000 | 1.00000 | 1e-05 |  |" in text
    assert "| 256 px | OpenVINO bf16 | timm f32 | no bf16 |  |  |  |" in text
