"""Stages keep the order, hold each other back, carry errors over, and end when they are told to."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from matryo.errors import InputError
from matryo.pipeline import Pipeline

PATIENCE_S = 10.0


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("matryo-")]


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert threads() == []


def test_items_keep_their_order_through_stages_of_uneven_speed() -> None:
    def uneven(numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            time.sleep(0.002 * (number % 3))
            yield number * 10

    with Pipeline() as line:
        first = line.stage("first", iter(range(30)), capacity=3)
        second = line.stage("second", uneven(first), capacity=2)
        assert list(second) == [number * 10 for number in range(30)]
        assert line.figures()["second"].items == 30


def test_stages_run_at_the_same_time() -> None:
    """Each waits for the other: a pipeline that took turns would stand still."""
    started, reached = threading.Event(), threading.Event()

    def first() -> Iterator[int]:
        yield 1
        assert reached.wait(PATIENCE_S)
        yield 2

    def second(numbers: Iterator[int]) -> Iterator[int]:
        for number in numbers:
            started.set()
            reached.set()
            yield number

    with Pipeline() as line:
        numbers = line.stage("second", second(line.stage("first", first(), capacity=1)), capacity=1)
        assert started.wait(PATIENCE_S)
        assert list(numbers) == [1, 2]


def test_a_slow_reader_holds_the_stages_back() -> None:
    made: list[int] = []

    def endless() -> Iterator[int]:
        number = 0
        while True:
            made.append(number)
            yield number
            number += 1

    with Pipeline() as line:
        first = line.stage("first", endless(), capacity=3)
        second = line.stage("second", (number for number in first), capacity=2)
        wait_until(lambda: len(made) == 7)  # 3 waiting + 1 in hand, 2 waiting + 1 in hand
        time.sleep(0.05)
        assert len(made) == 7
        assert [next(second) for _ in range(3)] == [0, 1, 2]
        wait_until(lambda: len(made) == 10)
        time.sleep(0.02)
        assert len(made) == 10


def test_an_error_arrives_behind_the_items_before_it_with_its_place() -> None:
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise InputError("the third frame is broken")

    with Pipeline() as line:
        numbers = line.stage("b", (n for n in line.stage("a", failing(), capacity=5)), capacity=5)
        assert [next(numbers), next(numbers)] == [1, 2]
        with pytest.raises(InputError, match="third frame") as caught:
            next(numbers)
        assert "failing" in [entry.name for entry in caught.traceback]
        assert list(numbers) == []


def test_an_error_of_a_later_stage_ends_the_earlier_ones() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    def failing(numbers: Iterator[int]) -> Iterator[int]:
        next(numbers)
        raise ValueError("out of order")
        yield 0

    with pytest.raises(ValueError, match="out of order"), Pipeline() as line:
        list(line.stage("b", failing(line.stage("a", endless(), capacity=2)), capacity=1))
    assert closed.is_set()


def test_leaving_early_closes_generators_and_ends_threads_that_wait() -> None:
    closed = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    never = threading.Event()

    def starving() -> Iterator[int]:
        yield 0
        while not never.wait(0.01):
            pass

    with Pipeline() as line:
        full = line.stage("full", endless(), capacity=1)
        next(full)
        starved = line.stage("reader", (x for x in line.stage("empty", starving(), capacity=1)),
                             capacity=1)  # fmt: skip
        assert next(starved) == 0
        never.set()
    assert closed == ["matryo-full"]
    assert list(full) == []


def test_ctrl_c_reaches_a_reader_that_waits() -> None:
    released = threading.Event()

    def slow() -> Iterator[int]:
        released.wait(PATIENCE_S)
        yield 1

    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        released.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.05, press)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt), Pipeline() as line:
            next(line.stage("slow", slow(), capacity=1))
            raise AssertionError("the item came, the signal did not")
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_figures_tell_work_from_waiting() -> None:
    def working(numbers: Iterator[int], seconds: float) -> Iterator[int]:
        for number in numbers:
            time.sleep(seconds)
            yield number

    with Pipeline() as line:
        fast = line.stage("fast", working(iter(range(8)), 0.002), capacity=1)
        slow = line.stage("slow", working(fast, 0.02), capacity=1)
        assert len(list(slow)) == 8
        figures = line.figures()
    assert figures["slow"].busy_s > 0.15
    assert figures["fast"].blocked_s > 0.05 > figures["slow"].blocked_s
    assert figures["slow"].starved_s < 0.05
    assert figures["fast"].busy_s < figures["fast"].blocked_s


def test_a_stage_that_makes_no_sense_is_refused() -> None:
    line = Pipeline()
    with pytest.raises(InputError, match="capacity of stage a: expected at least 1, got 0"):
        line.stage("a", [1], capacity=0)
    list(line.stage("a", [1], capacity=1))
    with pytest.raises(InputError, match="stage a"):
        line.stage("a", [1], capacity=1)
    line.close()
    with pytest.raises(InputError, match="ended"):
        line.stage("b", [1], capacity=1)
