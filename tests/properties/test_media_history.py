"""Whatever a session with pictures and sound went through, it answers as one that was told all of
it at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import matryo
from matryo.session import Session

ROUNDS, STEPS = 8, 7


@pytest.fixture(scope="module")
def model(multimodal_checkpoint: Path) -> Iterator[matryo.Model]:
    with matryo.load(multimodal_checkpoint, weights="f32", kv="f32") as model:
        yield model


def next_logits(session: Session) -> Any:
    """Logits of the next token; the session stays as it is."""
    return session._run_waiting(None, None).copy()


def turn(content: list[Any]) -> list[dict[str, Any]]:
    items = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in content]
    return [{"role": "user", "content": items}]


@pytest.mark.parametrize("number", range(ROUNDS))
def test_any_history_gives_the_answer_of_a_fresh_session(
    model: matryo.Model, tmp_path: Path, number: int
) -> None:
    rng = np.random.default_rng(number)
    pool: list[Any] = [
        *(
            {"type": "image", "image": rng.integers(0, 256, (9, 9, 3)).astype(np.uint8)}
            for _ in range(3)
        ),
        *(
            {"type": "audio", "audio": rng.standard_normal(2000 + 900 * n).astype(np.float32)}
            for n in range(2)
        ),
        "the a", "b",
    ]  # fmt: skip
    session, said = model.session(), ["a"]
    session.prefill(turn(said))
    for _ in range(STEPS):
        match int(rng.integers(6)):
            case 0 | 1:
                said = [*said[: int(rng.integers(len(said) + 1))], pool[int(rng.integers(7))]]
            case 2 if len(said) > 1:
                said[int(rng.integers(len(said)))] = pool[int(rng.integers(7))]
            case 3:
                session.trim(int(rng.integers(len(session) + 1)))
            case 4:
                session.save(tmp_path / "saved")
                if rng.integers(2):
                    model._library.clear()
                session = model.restore(tmp_path / "saved")
            case 5:
                session = session.fork()
                session.plan = ("e2b", "full")[int(rng.integers(2))]
        cancel = _After(int(rng.integers(200)))
        list(session.generate(turn(said), max_tokens=1, cancel=cancel, sampling=matryo.GREEDY))
        session.prefill(turn(said))
        if not session.is_exact:
            session.reanchor()
        fresh = model.session(session.plan)
        fresh.prefill(turn(said))
        assert session.ids == fresh.ids
        assert np.array_equal(next_logits(session), next_logits(fresh))


class _After:
    """Says stop from the given question on."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0
