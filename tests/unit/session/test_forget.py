"""What is left of a conversation whose beginning is forgotten."""

from __future__ import annotations

from matryo.media.parts import MediaPart
from matryo.media.prompt import Placed
from matryo.session.forget import without_beginning


def placed(start: int, count: int) -> Placed:
    return Placed(start, MediaPart("vision", "0" * 64, count, None), count)


def test_the_beginning_goes_and_the_first_id_stays() -> None:
    assert without_beginning([2, 10, 11, 12, 13], [], 2, 2) == ([2, 12, 13], [])
    assert without_beginning([9, 10, 11, 12, 13], [], 2, 2) == ([12, 13], [])


def test_what_is_short_enough_stays_as_it_is() -> None:
    assert without_beginning([2, 10], [], 5, 2) == ([2, 10], [])


def test_parts_move_with_their_ids_and_go_as_a_whole() -> None:
    ids = [2, *[50] * 4, 10, 11, *[50] * 3, 12]
    ids, parts = without_beginning(ids, [placed(1, 4), placed(7, 3)], 8, 2)
    assert ids == [2, 10, 11, 50, 50, 50, 12]  # the cut was inside the first part
    assert [(one.start, one.count) for one in parts] == [(3, 3)]
    assert ids[parts[0].start : parts[0].end] == [50] * 3
