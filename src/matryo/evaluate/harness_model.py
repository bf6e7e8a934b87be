"""Matryo as a model of lm-evaluation-harness.

In: the requests of the harness. Out: log-likelihoods and answers of one size. Tokens are split
between context and continuation as the harness does it, so that figures can be compared with those
of its other models. Imports lm_eval, and is imported by nothing but `harness` and tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

# Before a class is registered: the harness looks for its own models only if it knows none.
import lm_eval.models  # noqa: F401
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from matryo.errors import ConfigError, InputError
from matryo.evaluate.likelihood import Scorer
from matryo.loading import load
from matryo.sampling import GREEDY, Sampling

MAX_ANSWER = 256
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")


@dataclass(frozen=True, slots=True)
class Request:
    """One context and its continuations, as `Scorer` takes them."""

    key: str
    prefix: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]


@register_model("matryo")
class MatryoLM(TemplateLM):  # type: ignore[misc]
    """`--model matryo --model_args path=…,size=…`; without `path` the embedded model.

    path, weights, context, threads: as `matryo.load` · size: as `Model.plan` · kv: kind of the K/V
    cache · max_gen_toks: of answers, unless the task says · batch_size, max_batch_size, device:
    the harness passes them to every model; here they change nothing
    Raises ConfigError for any other argument.
    """

    def __init__(
        self,
        path: str | None = None,
        size: str | None = None,
        *,
        weights: str | None = None,
        context: int | None = None,
        threads: int | None = None,
        kv: str | None = None,
        max_gen_toks: int = MAX_ANSWER,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **unknown: object,
    ) -> None:
        super().__init__()
        if unknown:
            raise ConfigError(
                f"model_args: {next(iter(unknown))!r} is unknown; allowed: path, size, weights, "
                "context, threads, kv, max_gen_toks"
            )
        del batch_size, max_batch_size, device
        self.model = load(path, weights=weights, context=context, threads=threads)
        self._kv = kv or self.model.kv_kind
        self._plan = self.model.plan(size)
        self._scorer = Scorer(self.model.engine, self._kv)
        self._max_answer = max_gen_toks
        bos = self.model.tokenizer.bos_id
        if bos is None:
            raise InputError(f"{self.model.name} has no token that begins a text")
        self._bos: int = bos
        self._bos_text = self.model.tokenizer.spelling_of(bos) or ""

    @property
    def eot_token_id(self) -> int:
        """The token that begins a text: what an empty context is replaced by."""
        return self._bos

    @property
    def max_length(self) -> int:
        """Tokens of context."""
        return self.model.engine.context

    @property
    def tokenizer_name(self) -> str:
        """What the harness keeps prepared requests under."""
        return f"matryo-{self.model.identity['checkpoint'][:16]}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The checkpoint's template; it has one only."""
        return self.model.chat_template.source if chat_template else None

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A conversation as text."""
        return self.model.chat_template.render(
            chat_history, add_generation_prompt=add_generation_prompt
        )

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        """Ids; they begin with the begin token unless it is written or not wanted."""
        begins = add_special_tokens is not False and not (
            self._bos_text and string.startswith(self._bos_text)
        )
        return self.model.tokenizer.encode(string, bos=begins)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        asked = []
        for (_, context, continuation), number in zip(requests, range(len(requests)), strict=True):
            # What is too long loses its beginning, as with the other models.
            ids = [*context, *continuation][-(self.max_length + 1) :]
            split = max(1, len(ids) - len(continuation))
            asked.append((number, tuple(ids[:split]), tuple(ids[split:])))
        groups = [
            (prefix, [(number, ids) for number, _, ids in members])
            for prefix, members in (
                (prefix, list(found)) for prefix, found in groupby(asked, key=lambda one: one[1])
            )
        ]
        items = [
            Request(str(number), prefix, tuple(ids for _, ids in members))
            for number, (prefix, members) in enumerate(groups)
        ]
        answers: list[tuple[float, bool]] = [(0.0, True)] * len(requests)
        scored = self._scorer.score(self._plan, items)
        for (_, result), (_, members) in zip(scored, groups, strict=True):
            for (number, _), logprob, greedy in zip(
                members, result["logprob"], result["greedy"], strict=True
            ):
                answers[number] = (logprob, greedy)
        return answers

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, in the harness's own windows."""
        sums = []
        for request in requests:
            (text,) = request.args
            windows = get_rolling_token_windows(
                self.tok_encode(text, add_special_tokens=False), self._bos, self.max_length, 1
            )
            parts = [(None, *make_disjoint_window(window)) for window in windows]
            sums.append(sum(logprob for logprob, _ in self._loglikelihood_tokens(parts)))
        return sums

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """Answers. Raises InputError for ways to choose tokens that Matryo does not have."""
        return [self._answer(*request.args) for request in requests]

    def _answer(self, context: str, options: dict[str, Any]) -> str:
        options = dict(options)
        until = options.pop("until", [])
        longest = int(options.pop("max_gen_toks", options.pop("max_tokens", self._max_answer)))
        sampling = _sampling_of(options)
        room = self.max_length - longest
        if room < 1:
            raise InputError(
                f"answers of {longest} tokens leave no room in a context of {self.max_length}"
            )
        ids = self.tok_encode(context)[-room:]
        session = self.model.session(self._plan, self._kv)
        stop = [until] if isinstance(until, str) else [text for text in until if text]
        events = session.generate(ids, max_tokens=longest, sampling=sampling, stop=stop)
        return "".join(event.text for event in events)


def _sampling_of(options: dict[str, Any]) -> Sampling:
    """Greedy unless the task asks to draw."""
    draws = options.pop("do_sample", options.get("temperature", 0) not in (0, 0.0, None))
    unknown = sorted(set(options) - set(SAMPLING))
    if unknown:
        raise InputError(f"generation_kwargs: {unknown[0]!r} is unknown")
    return Sampling(**options) if draws else GREEDY
