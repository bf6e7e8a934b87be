"""Speed beside the largest plan, and memory as the system counts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import matryo
from matryo.loading import Model
from matryo.plan import Plan
from matryo.search import measure
from matryo.search.measure import Meter, Speed, device


def test_a_plan_is_measured_in_turns_with_the_largest(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that gets slower with every run: the ratio stays what it is."""
    small, large = model.plan("small"), model.plan("large")
    meter = Meter(model, large, "f32")
    runs: list[Plan] = []

    def run(plan: Plan) -> Speed:
        runs.append(plan)
        slower = 1.0 + 0.001 * len(runs)
        return Speed(
            slower * (1.0 if plan == large else 0.5), slower * (4.0 if plan == large else 1)
        )

    monkeypatch.setattr(meter, "_run", run)
    monkeypatch.setattr(measure, "MEASURED_S", 0.0)
    assert meter.calibrate(Speed(10.0, 20.0)) == Speed(10.0, 20.0)
    speed = meter.speed(small)
    assert runs == [small, large, small, large, small, large, small]
    assert speed.prefill_ms == pytest.approx(5.0, rel=0.01)
    assert speed.decode_ms == pytest.approx(5.0, rel=0.01)


def test_times_are_positive_and_the_largest_is_measured_once(model: Model) -> None:
    meter = Meter(model, model.plan("large"), "bf16")
    reference = meter.calibrate()
    assert reference.prefill_ms > 0 and reference.decode_ms > 0
    assert meter.reference == reference
    assert set(device()) == {"host", "machine", "isa", "threads"}


@pytest.fixture
def packed(tmp_path: Path, tiny_checkpoint: Path) -> Iterator[Model]:
    """Packed into files, which are mapped."""
    from helpers.readable import make_readable
    from matryo.checkpoint.convert import convert

    source = make_readable(tiny_checkpoint, tmp_path / "source")
    convert(source, tmp_path / "packed", weights="f32")
    with matryo.load(tmp_path / "packed") as opened:
        yield opened


def test_a_smaller_plan_keeps_less_in_memory(packed: Model) -> None:
    meter = Meter(packed, packed.plan("large"), "f32")
    small, large = (meter.resident_bytes(packed.plan(name)) for name in ("small", "large"))
    assert 0 < small < large
    assert meter.resident_bytes(packed.plan("small")) == pytest.approx(small, rel=0.2)


def test_private_weights_are_resident_whatever_runs(model: Model) -> None:
    meter = Meter(model, model.plan("large"), "f32")
    small, large = (meter.resident_bytes(model.plan(name)) for name in ("small", "large"))
    assert small == pytest.approx(large, rel=0.05) and large > 0
