"""Options that choose the size while an answer is written."""

from __future__ import annotations

import pytest

from matryo.cli.elastic import open_controller, parse_bytes
from matryo.cli.options import ElasticOptions, LoadOptions, PolicyName
from matryo.cli.outcome import CommandError
from matryo.errors import InputError
from matryo.loading import load


@pytest.mark.parametrize(
    ("text", "count"),
    [("2GB", 2 * 10**9), ("1.5 GiB", 1610612736), ("500m", 5 * 10**8), ("7", 7), ("1kB", 1000)],
)
def test_sizes_of_memory(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "2XB", "-1GB", "1e9", "2 G G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="no amount of memory"):
        parse_bytes(text)


def test_a_budget_means_its_policy_and_several_mean_auto() -> None:
    with load() as model:

        def kind(**options: object) -> str | None:
            made = open_controller(model, LoadOptions(), ElasticOptions(**options))  # type: ignore[arg-type]
            return None if made is None else made.rules.policy.kind

        assert kind() is None
        assert kind(policy=PolicyName.FIXED) is None
        assert kind(memory="100GB") == "memory"
        assert kind(target_ms=5.0) == "latency"
        assert kind(duty=0.5) == "power"
        assert kind(duty=0.5, target_ms=5.0) == "auto"
        assert kind(policy=PolicyName.AUTO) == "auto"
        with pytest.raises(InputError, match="no use for the budget"):
            kind(policy=PolicyName.FIXED, memory="100GB")
