"""Speculative decoding: what a pass over several ids costs, and the speed-up at each acceptance.

    python -m benchmarks.speculation MODEL --draft e2b   # measures, a few minutes
    python -m benchmarks.speculation --plot              # draws what was measured

The answer of a plain generation is taken first. A drafter then pays for its guesses as it always
does, but proposes that answer with a share of it spoilt by chance (seeded): so every acceptance
can be timed on any weights, also random ones. Plain and drafted generations take turns.
Out: benchmarks/curves/speculation.json, docs/images/speculation.png.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import matryo
from matryo.session.draft import Choose, Draft, DraftLength, LookupDrafter, PlanDrafter

from . import machine

RESULT = Path(__file__).parent / "curves" / "speculation.json"
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "speculation.png"
CHANCES = (0.0, 0.5, 0.8, 0.95, 1.0)
MOST_IDS = 9


def timed(session: matryo.Session, tokens: int, draft: str | None) -> tuple[float, list[int]]:
    """Seconds a token after the first, and the ids, of an answer that is then taken back."""
    length = len(session)
    *_, end = session.generate(max_tokens=tokens, sampling=matryo.GREEDY, draft=draft)
    ids = session.ids[length:]
    session.trim(length)
    return 1.0 / end.stats.tps, ids


def pass_seconds(model: matryo.Model, session: matryo.Session, rounds: int) -> list[float]:
    """Seconds of one pass over 1 to 9 ids at the session's plan, medians of interleaved rounds."""
    engine, sequence = session._engine, session._sequence
    found: list[list[float]] = [[] for _ in range(MOST_IDS)]
    before = len(sequence)
    for _ in range(rounds):
        for count in range(1, MOST_IDS + 1):
            started = time.perf_counter()
            engine.extend(sequence, session.plan, list(range(300, 300 + count)))
            found[count - 1].append(time.perf_counter() - started)
            sequence.trim(before)
    return [statistics.median(one) for one in found]


def spoilt(propose: Any, truth: Sequence[int], start: int, chance: float, seed: int) -> Any:
    """`propose` of a drafter, its guesses replaced by the truth with some of it spoilt."""
    draw = random.Random(seed)

    def replaced(self: Any, ids: Sequence[int], count: int, choose: Choose) -> Draft:
        paid = propose(self, ids, count, choose)
        place = len(ids) - start
        right = truth[place : place + count]
        guessed = tuple(one if draw.random() < chance else (one + 1) % 1000 for one in right)
        return Draft(guessed, paid.seconds)

    return replaced


def measure(path: str, draft: str, tokens: int, rounds: int) -> dict[str, Any]:
    """All of it, as one JSON document."""
    with matryo.load(path) as model:
        session = model.session()
        session.prefill(list(range(300, 428)))
        passes = pass_seconds(model, session, max(rounds, 3))
        _, truth = timed(session, tokens + MOST_IDS, None)
        rows: list[dict[str, Any]] = []
        for kind, guesser, cls in (
            ("plan", draft, PlanDrafter),
            ("lookup", "lookup", LookupDrafter),
        ):
            for chance in CHANCES:
                ratios = []
                for number in range(rounds):
                    plain, _ = timed(session, tokens, None)
                    fake = spoilt(cls.propose, truth, len(session), chance, number)
                    with (
                        mock.patch.object(cls, "propose", fake),
                        mock.patch.object(DraftLength, "__init__", _started(passes)),
                    ):
                        drafted, ids = timed(session, tokens, guesser)
                    if ids != truth[:tokens]:
                        raise AssertionError("drafted and plain ids differ")
                    ratios.append(plain / drafted)
                rows.append({"drafter": kind, "chance": chance, "ratios": ratios})
                print(kind, chance, [round(one, 3) for one in ratios], flush=True)
        return {
            "machine": machine.describe(),
            "model": Path(path).name,
            "plan": session.plan_name,
            "draft": draft,
            "tokens": tokens,
            "pass_seconds": passes,
            "rows": rows,
        }


def _started(passes: Sequence[float]) -> Any:
    """A DraftLength that knows the plain pass, so that short answers are not spent on learning."""
    plain = DraftLength.__init__

    def init(self: DraftLength, **settings: Any) -> None:
        plain(self, **{"passes": {1: passes[0], 3: passes[2]}, **settings})

    return init


def plot(document: dict[str, Any], path: Path) -> None:
    """Speed-up against acceptance, and the cost of a pass."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), dpi=130)
    names = {"plan": f"{document['draft']} guesses", "lookup": "free guesses (look-up)"}
    for kind, colour in (("plan", "#3d7ea6"), ("lookup", "#b5651d")):
        rows = [row for row in document["rows"] if row["drafter"] == kind]
        middle = [statistics.median(row["ratios"]) for row in rows]
        low = [m - min(row["ratios"]) for m, row in zip(middle, rows, strict=True)]
        high = [max(row["ratios"]) - m for m, row in zip(middle, rows, strict=True)]
        chances = [row["chance"] for row in rows]
        left.errorbar(chances, middle, [low, high], fmt="o-", color=colour, label=names[kind])
    left.axhline(1.0, color="#999999", lw=0.8)
    left.set_xlabel("share of guesses that are right")
    left.set_ylabel("speed against plain decoding")
    left.legend(frameon=False, fontsize=8)
    one = document["pass_seconds"][0]
    counts = range(1, len(document["pass_seconds"]) + 1)
    right.plot(counts, [seconds / one for seconds in document["pass_seconds"]], "o-", color="#555")
    right.set_xlabel("ids in one pass")
    right.set_ylabel("time against one id")
    right.set_ylim(0)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{document['model']}, {document['plan']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--draft", default="e2b")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plot", action="store_true")
    options = parser.parse_args()
    if options.model:
        document = measure(options.model, options.draft, options.tokens, options.rounds)
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(document, indent=1) + "\n")
    if options.plot or options.model:
        plot(json.loads(RESULT.read_text()), PICTURE)


if __name__ == "__main__":
    main()
