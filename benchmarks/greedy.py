"""Speculation changes no token: greedy answers with and without guesses, compared id by id.

    python -m benchmarks.greedy [MODEL] [--tokens 10000] [--length 400] --out FILE

Answers to random prompts are written plainly, then with every drafter: as it decides itself how
far to guess, and forced to guess 1 to 8 tokens in turn, whether that pays or not. An answer that
differs is an error at once. Out: how many tokens were compared, guessed and kept; stopped runs go
on where they were.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

import matryo
from benchmarks.kept import Kept
from matryo.loading import Model
from matryo.session.draft import MAX_DRAFT, DraftLength
from matryo.session.prompt import common_prefix


def answer(
    model: Model, prompt: Sequence[int], length: int, draft: str | None
) -> tuple[list[int], int, int]:
    """The ids of a greedy answer of just that length, how many were guessed, and guessed right."""
    session = model.session()
    mask = np.ones(model.config.vocab_size, np.bool_)
    mask[list(model._opened.eos_ids)] = False
    *_, end = session.generate(
        prompt, max_tokens=length, sampling=matryo.GREEDY, logit_mask=mask, draft=draft
    )
    return session.ids[len(prompt) :], end.stats.drafted_tokens, end.stats.accepted_tokens


def compare(
    model: Model, prompts: list[list[int]], plain: list[list[int]], draft: str, forced: bool
) -> dict[str, Any]:
    """One drafter on all prompts. Raises AssertionError where an answer differs."""
    turns = itertools.cycle(range(1, MAX_DRAFT + 1))
    patch = mock.patch.object(DraftLength, "next", lambda self: next(turns))
    total = {"tokens": 0, "drafted": 0, "accepted": 0}
    with patch if forced else nullcontext():
        for prompt, wanted in zip(prompts, plain, strict=True):
            ids, drafted, accepted = answer(model, prompt, len(wanted), draft)
            if ids != wanted:
                place = common_prefix(ids, wanted)
                raise AssertionError(f"{draft}: token {place} behind {prompt} differs")
            total["tokens"] += len(ids)
            total["drafted"] += drafted
            total["accepted"] += accepted
    return total


def measure(model: Model, kept: Kept, drafts: Sequence[str], tokens: int, length: int) -> None:
    """Every drafter, decided and forced, over the same answers."""
    draw, most = random.Random(0), model.config.ple_vocab_size
    bos = [] if model.config.bos_id is None else [model.config.bos_id]
    prompts = [
        [*bos, *(draw.randrange(most // 4, most) for _ in range(15))]
        for _ in range(-(-tokens // length))
    ]

    def plainly() -> dict[str, Any]:
        answers = [answer(model, prompt, length, None)[0] for prompt in prompts]
        return {"answers": [" ".join(map(str, ids)) for ids in answers]}

    plain = [[int(one) for one in ids.split()] for ids in kept.part("plain", plainly)["answers"]]
    for draft, forced in itertools.product(drafts, (False, True)):
        key = f"{draft}, {'1 to 8 guesses in turn' if forced else 'as it pays'}"
        kept.part(key, compare, model, prompts, plain, draft, forced)


def main() -> None:
    """Compare what is not compared yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--length", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with matryo.load(options.model, threads=options.threads) as model:
        smallest = next(iter(model.plans))
        settings = {
            "model": {"name": model.name, **model.identity},
            "kv": model.kv_kind,
            "smallest": smallest,
            "length": options.length,
        }
        kept = Kept(options.out, settings)
        measure(model, kept, (smallest, "lookup"), options.tokens, options.length)


if __name__ == "__main__":
    main()
