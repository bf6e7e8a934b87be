"""The figures of a generation."""

from __future__ import annotations

from matryo.session.events import Clock


def test_figures_follow_the_clock() -> None:
    clock = Clock(started=10.0, prompt_tokens=50, cached_tokens=10)
    first = clock.stats(10.5)
    assert (first.generated_tokens, first.tps, first.prompt_tps, first.seconds_to_first_token) == (
        0,
        0.0,
        0.0,
        0.0,
    )
    clock.prompt_seconds = 2.0
    clock.token(12.0)
    assert clock.stats(12.0).prompt_tps == 20.0
    assert clock.stats(12.0).tps == 0.0 and clock.stats(12.0).seconds_to_first_token == 2.0
    for now in (12.5, 13.0, 14.0):
        clock.token(now)
    assert clock.stats(14.0).tps == 1.5 and clock.stats(14.0).generated_tokens == 4
