"""One conversation: text and messages above, token ids below.

In: prompts as text, messages, ids, or text with pictures and sound. Out: a stream of `Event`s. A
session is its token ids, the pictures and clips that some of them stand for, and the K/V cache of a
beginning of them. The last id is never in the cache: running it gives the logits of the next token,
so a session can stop anywhere (Ctrl-C, cancel, an error, a saved file) and go on as if nothing had
happened.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from matryo.elastic.complexity import Escalation
from matryo.elastic.controller import Controller
from matryo.engine import F32, Cancel, Embeddings, Engine, Progress
from matryo.errors import CancelledError, InputError
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.stopping import StopMatcher
from matryo.media.prompt import Placed, embeddings_between, same_until
from matryo.plan import Plan
from matryo.sampling import LogitMask, Sampling, choose
from matryo.session.ahead import Ahead, first_draft
from matryo.session.draft import Choose, Drafter, Guesser, make_drafters
from matryo.session.events import Clock, Event, FinishReason
from matryo.session.forget import without_beginning
from matryo.session.pieces import Pieces
from matryo.session.prompt import Prompt, Prompted, common_prefix, read_prompt
from matryo.session.runtime import Runtime


class Session:
    """A conversation with a model; made by `Model.session`.

    Not safe for use from two threads at once; several sessions of one model may run in several
    threads.

    >>> import matryo
    >>> session = matryo.load().session()
    >>> events = list(session.generate("The house was", max_tokens=4, sampling=matryo.GREEDY))
    >>> [event.kind for event in events]
    ['token', 'token', 'token', 'token', 'done']
    >>> events[-1].finish_reason, events[-1].stats.generated_tokens
    ('length', 4)
    """

    def __init__(
        self,
        runtime: Runtime,
        plan: Plan,
        *,
        kv_kind: str,
        limits: MediaLimits = DEFAULT_LIMITS,
        allow_urls: bool = False,
    ) -> None:
        self._open: Runtime | None = runtime
        self._reader = runtime.library.reader(limits=limits, allow_urls=allow_urls)
        self._placed: list[Placed] = []
        self._kv_kind = kv_kind
        self._ids: list[int] = []
        self._plan = plan
        self._plan_name = runtime.plan_name(plan)
        self._sequence = self._engine.new_sequence(plan, kv_kind)
        self._generation = 0
        self._last_sampling: Sampling | None = None
        self._ahead: Ahead | None = None

    def __len__(self) -> int:
        """Number of token ids."""
        return len(self._ids)

    @property
    def _runtime(self) -> Runtime:
        if self._open is None:
            raise InputError(
                "the model of this session was closed: load it again and restore or begin a session"
            )
        return self._open

    @property
    def _engine(self) -> Engine:
        return self._runtime.engine

    @property
    def ids(self) -> list[int]:
        """All token ids so far, prompt and answers; a copy."""
        return list(self._ids)

    @property
    def num_cached(self) -> int:
        """How many of the ids are in the K/V cache; never the last."""
        return min(len(self._sequence), max(len(self._ids) - 1, 0))

    @property
    def cache_bytes(self) -> int:
        """Bytes of the K/V pages, those shared with forks included."""
        return self._sequence.cache.nbytes

    @property
    def plan(self) -> Plan:
        """The plan that computes the next token. May be set at any time, to a Plan, a name or a
        file.
        """
        return self._plan

    @plan.setter
    def plan(self, plan: str | Path | Plan) -> None:
        self._plan = self._runtime.find_plan(plan)
        known = isinstance(plan, str) and plan in self._runtime.plans
        self._plan_name = str(plan) if known else self._runtime.plan_name(self._plan)

    @property
    def plan_name(self) -> str:
        """Name of the plan, or what it consists of if it has none."""
        return self._plan_name

    @property
    def is_exact(self) -> bool:
        """Whether the cache is, bit for bit, what the current plan would have written: see
        `Plan.same_cache`.
        """
        return self._sequence.is_exact(self._plan)

    @property
    def last_sampling(self) -> Sampling | None:
        """How the latest generation chose its tokens, its seed included; None before the first."""
        return self._last_sampling

    def reanchor(self) -> None:
        """Drop the cache, so that the current plan computes all of it again with the next call:
        then `is_exact` is true.
        """
        self._ahead = None
        self._sequence = self._engine.new_sequence(self._plan, self._kv_kind)

    def prefill(
        self, prompt: Prompt, *, cancel: Cancel | None = None, on_progress: Progress | None = None
    ) -> None:
        """Take a prompt as `generate` does and compute its cache, but choose no token.

        Raises as `generate`, and CancelledError if cancelled; what was computed until then stays.
        """
        self._take(self._read(prompt))
        self._generation += 1
        self._match_cache()
        waiting = self._ids[self.num_cached : -1]
        if waiting:
            embeddings = self._embeddings(len(self._ids) - 1, cancel)
            self._engine.prefill(
                self._sequence,
                self._plan,
                waiting,
                logits="none",
                embeddings=embeddings,
                cancel=cancel,
                progress=on_progress,
            )

    def generate(
        self,
        prompt: Prompt | None = None,
        *,
        max_tokens: int = 256,
        sampling: Sampling | None = None,
        stop: str | Iterable[str] = (),
        logit_mask: LogitMask | None = None,
        draft: Guesser | None = None,
        cancel: Cancel | None = None,
        on_prefill_progress: Progress | None = None,
        controller: Controller | None = None,
        escalation: Escalation | None = None,
    ) -> Iterator[Event]:
        """Generate an answer, one event a token and a last one that says why it ended.

        prompt: a text continues the session (a new one begins with the begin token) · ids are
        appended as they are · messages are the whole conversation: what the session shares with it
        is kept, the rest replaced · a list of texts, pictures and sounds continues the session ·
        None goes on where the session is
        sampling: fields that are None come from the checkpoint · stop: texts that end the answer
        and are not in it
        logit_mask: which tokens are allowed; a function of the ids may be asked about guesses too
        draft: guess tokens ahead and check several in one pass; the ids are the same without.
        "lookup" guesses from the text, a smaller plan by running it, "auto" tries both; each
        guesses as far as it pays
        cancel: asked before every step, such as threading.Event
        controller: chooses the size by the state of the machine, see `Model.controller`
        escalation: chooses the size by how sure it is, see `Model.escalation`; one of draft,
        controller and escalation at a time
        Raises at once InputError for prompts, ids or options that cannot be used, CapacityError if
        the prompt leaves no room for a token; while iterating CheckpointError if the weights give
        no numbers.
        """
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        matcher = StopMatcher(stops)
        if type(max_tokens) is not int or max_tokens < 1:
            raise InputError(f"max_tokens: expected a whole number from 1, got {max_tokens!r}")
        if prompt is None and not self._ids:
            raise InputError("the session is empty and there is no prompt: give one")
        if sum(one is not None for one in (draft, controller, escalation)) > 1:
            raise InputError(
                "draft, controller and escalation each decide which size computes a token: "
                "give one of them"
            )
        chosen = (sampling or Sampling()).resolve(self._runtime.sampling)
        drafters = make_drafters(draft, self._runtime, self._plan, lambda: self._sequence)
        pieces = Pieces(self._runtime, matcher)
        # From here on only the prompt can be refused, before anything has changed.
        self._take(Prompted(self._ids, self._placed) if prompt is None else self._read(prompt))
        self._last_sampling = chosen
        self._generation += 1
        return self._stream(
            pieces,
            self._generation,
            max_tokens,
            chosen,
            logit_mask,
            drafters,
            cancel,
            on_prefill_progress,
            controller,
            escalation,
        )

    def logits(self, continuation: Sequence[int]) -> F32:
        """What the current plan predicts for each of some ids if they came next, (n, V) float32:
        row i after the session and the first i of them. The session stays as it is.

        Raises InputError for ids or a session without use, CapacityError if they do not fit.
        """
        ids = [int(token) for token in self._engine.check_ids(continuation)]
        if not self._ids:
            raise InputError("the session is empty: give it a prompt first")
        copy = self.fork()
        copy._ids += ids[:-1]
        embeddings = copy._embeddings(len(copy._ids), None)
        waiting = copy._ids[copy.num_cached :]
        out = self._engine.prefill(
            copy._sequence, self._plan, waiting, logits="all", embeddings=embeddings
        )
        if out is None:
            raise InputError("there is nothing to run")
        return out[-len(ids) :]

    def trim(self, length: int) -> None:
        """Forget all but the first `length` ids. Raises InputError if there are fewer."""
        if type(length) is not int or not 0 <= length <= len(self._ids):
            raise InputError(f"trim: expected a length from 0 to {len(self._ids)}, got {length!r}")
        del self._ids[length:]
        self._placed = [one.until(length) for one in self._placed if one.start < length]
        self._match_cache()

    def fork(self) -> Session:
        """An independent copy that shares the cache's pages until one of the two writes to them."""
        self._match_cache()
        copy = Session(self._runtime, self._plan, kv_kind=self._kv_kind)
        copy._ids = list(self._ids)
        copy._placed, copy._reader = list(self._placed), self._reader
        copy._sequence = self._sequence.fork()
        copy._last_sampling = self._last_sampling
        return copy

    def save(self, path: str | Path) -> None:
        """Write the session to a file that `Model.restore` continues, bit for bit. The file appears
        whole or not at all.

        Raises OSError if it cannot be written.
        """
        from matryo.session.stored import StoredSession, write_stored

        self._match_cache()
        write_stored(
            Path(path),
            StoredSession(
                self._ids,
                self._plan,
                self._kv_kind,
                self._sequence,
                self._last_sampling,
                self._runtime.identity,
                self._placed,
                {
                    number: self._runtime.library.soft(one.part)
                    for number, one in enumerate(self._placed)
                    if one.end > self.num_cached
                },
            ),
        )

    @classmethod
    def restore(cls, runtime: Runtime, path: Path) -> Session:
        """Continue what `save` wrote. Raises CheckpointError if the file is damaged or of another
        model.
        """
        from matryo.session.stored import read_stored

        stored = read_stored(path, runtime)
        session = cls(runtime, stored.plan, kv_kind=stored.kv_kind)
        session._ids = stored.ids
        session._placed = stored.placed
        for number, values in stored.embeddings.items():
            stored.placed[number].part.embeddings = values
        session._sequence = stored.sequence
        session._last_sampling = stored.sampling
        return session

    def close(self) -> None:
        """Let go of the cache and the model; the ids stay, anything that computes raises
        InputError.
        """
        self._sequence.trim(0)
        self._open = None

    def _stream(
        self,
        pieces: Pieces,
        generation: int,
        max_tokens: int,
        sampling: Sampling,
        logit_mask: LogitMask | None,
        drafters: Sequence[Drafter],
        cancel: Cancel | None,
        on_progress: Progress | None,
        controller: Controller | None,
        escalation: Escalation | None,
    ) -> Iterator[Event]:
        def chosen(logits: F32, ids: Sequence[int]) -> int:
            suppressed = self._runtime.suppressed
            return choose(logits, sampling, ids, suppressed=suppressed, logit_mask=logit_mask)

        started = time.perf_counter()
        self._check_current(generation)
        reason_to_change = "" if controller is None else self._adapt(controller, begins=True)
        if escalation is not None:
            self.plan = escalation.plan
        self._match_cache()
        clock = Clock(started, len(self._ids), self.num_cached)
        if reason_to_change:
            yield self._size_event(clock, reason_to_change)
            self._check_current(generation)
        reason: FinishReason | None = None
        token = None
        try:
            logits = self._run_waiting(cancel, on_progress)
        except CancelledError:
            reason = "cancelled"
        clock.prompt_seconds = time.perf_counter() - started
        if controller is not None and clock.prompt_tokens - clock.cached_tokens == 1:
            controller.note_token(clock.prompt_seconds)  # the answer goes on where it stopped
        while reason is None:
            left = max_tokens - clock.generated_tokens
            if escalation and (why := escalation.follow(logits, self._sequence, left)):
                self.plan = escalation.plan
                yield self._size_event(clock, why)
                self._check_current(generation)
                if self._plan == escalation.large:
                    logits = self._run_waiting(None, None)
            token = chosen(logits, self._ids)
            plan = self._plan_name
            self._ids.append(token)
            now = time.perf_counter()
            clock.token(now)
            reason = self._reason_to_stop(token, clock.generated_tokens, max_tokens)
            if reason == "stop":
                break
            text = pieces.add(token)
            if pieces.stopped:
                reason = "stop_string"
            yield Event(
                "token", text, token, clock.generated_tokens - 1, plan, None, clock.stats(now)
            )
            self._check_current(generation)
            if reason is None and cancel is not None and cancel.is_set():
                reason = "cancelled"
            if reason is None and controller is not None:
                if reason_to_change := self._adapt(controller):
                    yield self._size_event(clock, reason_to_change)
                    self._check_current(generation)
                logits = self._run_paced(controller, cancel)
            elif reason is None:
                logits = self._next_logits(drafters, chosen, left - 1, clock)
        stats = clock.stats(time.perf_counter())
        yield Event(
            "done", pieces.finish(), token, clock.generated_tokens, self._plan_name, reason, stats
        )

    def _adapt(self, controller: Controller, *, begins: bool = False) -> str:
        """Do what a controller says; returns why, "" if nothing changes."""
        change = controller.next(len(self._ids), self.cache_bytes)
        level = controller.level
        if change is not None or begins:
            self._plan, self._plan_name = level.plan, level.name
            self._kv_kind = level.kv
            self._sequence.cache.convert(level.kv)
        if len(self._ids) > level.window:
            self._ids, self._placed = without_beginning(
                self._ids, self._placed, level.window // 2, self._runtime.bos_id
            )
            self.reanchor()  # positions change
        return "" if change is None else change.reason

    def _run_paced(self, controller: Controller, cancel: Cancel | None) -> F32:
        """The next logits, with the rest behind them that a controller wants."""
        before = time.perf_counter()
        logits = self._run_waiting(None, None)
        controller.rest_after(time.perf_counter() - before, cancel)
        return logits

    def _size_event(self, clock: Clock, reason: str) -> Event:
        count, stats = clock.generated_tokens, clock.stats(time.perf_counter())
        return Event("size", "", None, count, self._plan_name, None, stats, reason)

    def _reason_to_stop(self, token: int, generated: int, max_tokens: int) -> FinishReason | None:
        if token in self._runtime.eos_ids:
            return "stop"
        if generated >= max_tokens:
            return "length"
        return "context" if len(self._ids) >= self._engine.context else None

    def _check_current(self, generation: int) -> None:
        if generation != self._generation:
            raise InputError("another generation of this session has begun: read one at a time")

    def _run_waiting(self, cancel: Cancel | None, on_progress: Progress | None) -> F32:
        """Run what is not in the cache, normally one id; returns the logits (V,) after the last."""
        self._match_cache()
        waiting = self._ids[self.num_cached :]
        embeddings = self._embeddings(len(self._ids), cancel)
        if len(waiting) == 1 and embeddings is None:
            logits: F32 | None = self._engine.decode([self._sequence], [self._plan], waiting)
        else:
            logits = self._engine.prefill(
                self._sequence,
                self._plan,
                waiting,
                embeddings=embeddings,
                cancel=cancel,
                progress=on_progress,
            )
        if logits is None:
            raise InputError("there is nothing to run")
        last: F32 = logits[-1]
        return last

    def _next_logits(
        self, drafters: Sequence[Drafter], chosen: Choose, left: int, clock: Clock
    ) -> F32:
        """The logits (V,) after the last id, of which `left` more may be chosen; computed now, or
        by the pass that guessed it.
        """
        if not drafters:
            return self._run_waiting(None, None)
        ahead = self._ahead
        if ahead is not None:
            logits = ahead.after(self._ids, self._plan)
            if logits is not None:
                clock.accepted_tokens += 1
                return logits
            ahead.close()
        self._match_cache()
        if len(self._ids) - self.num_cached > 1:
            return self._run_waiting(None, None)
        room = min(left - 1, self._engine.context - len(self._ids), self._engine.chunk - 1)
        drafter, draft = first_draft(drafters, self._ids, room, chosen)
        clock.drafted_tokens += len(draft.ids)
        last = self._ids[-1]
        self._ahead = Ahead.run(self._engine, self._sequence, self._plan, last, drafter, draft)
        return self._ahead.first

    def _match_cache(self) -> None:
        """Make the cache one of a beginning of the ids, without the last, for the plan's owners."""
        self._ahead = None
        if self._sequence.cache.owners != self._plan.owners:
            # A plan with other owner layers finds no K/V of theirs here: all of it has to be
            # computed.
            self._sequence = self._engine.new_sequence(self._plan, self._kv_kind)
        self._sequence.trim(max(len(self._ids) - 1, 0))

    def _take(self, prompted: Prompted) -> None:
        """Become another conversation, keeping the cache of what is the same at the beginning.

        Two pictures have equal ids: the cache ends where they differ.
        """
        ids = prompted.ids
        self._engine.check_ids(ids)
        self._engine.check_room(len(ids) + 1)
        same = common_prefix(self._ids, ids)
        differs = same_until(self._placed, prompted.placed)
        self._sequence.trim(min(same, len(ids) - 1, same if differs is None else differs))
        self._ids, self._placed = ids, prompted.placed

    def _embeddings(self, end: int, cancel: Cancel | None) -> Embeddings | None:
        """Those of the ids from the cache's end to `end`; what is not known is encoded."""
        library = self._runtime.library
        return embeddings_between(self._placed, self.num_cached, end, library, cancel)

    def _read(self, prompt: Prompt) -> Prompted:
        """The session once it has taken a prompt."""
        return read_prompt(prompt, self._ids, self._placed, self._runtime, self._reader)
