"""Stop strings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matryo.errors import InputError
from matryo.inputs.stopping import StopMatcher

TEXT = st.text(alphabet="ab\n", max_size=30)
STOPS = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3)


def run(parts: list[str], stops: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    return "".join([*(matcher.add(part) for part in parts), matcher.finish()]), matcher.stopped


@given(parts=st.lists(TEXT, max_size=8), stops=STOPS)
def test_the_output_is_the_text_before_the_first_stop_however_it_is_split(
    parts: list[str], stops: list[str]
) -> None:
    text, stopped = run(parts, stops)
    whole = "".join(parts)
    assert (text, stopped) == run([whole], stops) == run(list(whole), stops)
    assert whole.startswith(text)
    assert not any(stop in text for stop in stops)
    assert stopped == any(stop in whole for stop in stops)
    assert stopped or text == whole


@given(parts=st.lists(TEXT, max_size=8), stops=STOPS)
def test_nothing_is_held_back_that_cannot_become_a_stop(parts: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    given_text, out = "", ""
    for part in parts:
        given_text += part
        out += matcher.add(part)
        if matcher.stopped:
            return
        held = given_text[len(out) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_text_after_a_stop_is_dropped() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.add("one E") == "one "
    assert matcher.add("ND two") == ""
    assert matcher.add("three") == "" == matcher.finish()


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        StopMatcher(["a", ""])
