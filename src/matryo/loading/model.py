"""An open model: what `matryo.load` returns and everything else starts from.

In: a checkpoint that was opened (`loading/opened.py`). Out: logits, sessions, plans, figures.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt

from matryo.config import TextConfig
from matryo.elastic.complexity import Escalation, Mode, Thresholds
from matryo.elastic.controller import Controller
from matryo.elastic.ladder import levels
from matryo.elastic.ledger import Ledger, read_ledger
from matryo.elastic.policy import Kind, Policy, Rules
from matryo.engine import CHUNK, Embeddings, Engine
from matryo.errors import InputError, PlanError
from matryo.inputs.chat import ChatTemplate
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.tokenizer import Tokenizer
from matryo.loading.opened import Opened
from matryo.media.encode import Sound
from matryo.media.library import MediaLibrary
from matryo.media.merge import check_count, merged
from matryo.model.cost import Cost, plan_cost
from matryo.model.text import TextModel
from matryo.plan import Plan, find_plan
from matryo.sampling import Sampling, default_sampling
from matryo.session.runtime import Runtime
from matryo.session.session import Session
from matryo.tower_config import TowerConfig

if TYPE_CHECKING:
    from matryo.model.audio import AudioEncoder
    from matryo.model.vision import VisionEncoder

F32 = npt.NDArray[np.float32]
Positions = Literal["all", "last"]
KV_KINDS = ("f32", "bf16", "int8")


class Model:
    """One checkpoint in memory, at every size it contains; made by `matryo.load`.

    >>> import matryo
    >>> model = matryo.load()
    >>> model.logits([2, 105, 7], positions="last").shape == (1, model.config.vocab_size)
    True
    >>> model.close()
    """

    def __init__(self, opened: Opened, *, kv_kind: str | None = None) -> None:
        """kv_kind: f32, bf16 or int8; None = bf16, or f32 beside f32 weights.

        Raises InputError for another.
        """
        self._opened = opened
        self.config: TextConfig = opened.config
        self.plans: Mapping[str, Plan] = MappingProxyType(_by_size(opened.plans))
        self._engine: Engine | None = Engine(TextModel(opened.config, opened.weights), chunk=CHUNK)
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._kv_kind = checked_kv_kind(kv_kind or ("f32" if opened.kind == "f32" else "bf16"))
        self._sampling = default_sampling(opened.generation_config)
        self._library = opened.library()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<matryo.Model {self._opened.name} {self.weights} plans: {', '.join(self.plans)}>"

    @property
    def name(self) -> str:
        """The checkpoint's directory name."""
        return self._opened.name

    @property
    def weights(self) -> str:
        """The kind of the weights: f32, bf16, q8 or q4."""
        return self._opened.kind

    @property
    def default_plan(self) -> Plan:
        """The largest plan whose weights are at hand."""
        for plan in reversed(list(self.plans.values())):
            if self._is_at_hand(plan):
                return plan
        return self._opened.largest_plan

    @property
    def sampling(self) -> Sampling:
        """The checkpoint's own way to choose tokens, from its generation_config.json."""
        return self._sampling

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer.

        Raises InputError if it has none, CheckpointError if it is broken.
        """
        return self._opened.text.tokenizer

    @property
    def chat_template(self) -> ChatTemplate:
        """The checkpoint's chat template.

        Raises InputError if it has none, CheckpointError if it is broken.
        """
        return self._opened.text.chat_template

    def plan(self, wanted: str | Path | Plan | None = None) -> Plan:
        """A plan that can run: by name, as JSON file, as row of a table (`table.csv:ROW`), or
        itself, checked.

        None = the largest at hand. Raises PlanError if there is no such plan, or if its weights are
        not at hand.
        """
        if wanted is None:
            return self.default_plan
        name = "the plan" if isinstance(wanted, Plan) else f"plan {str(wanted)!r}"
        plan = (
            wanted.check(self.config)
            if isinstance(wanted, Plan)
            else find_plan(str(wanted), self.plans, self.config)
        )
        try:
            self._opened.check(plan)
        except PlanError as error:
            raise PlanError(f"{name} cannot run: {error}") from error
        return plan

    def cost(self, plan: str | Path | Plan | None = None) -> Cost:
        """Bytes read and multiplications of one decoded token of a plan."""
        return plan_cost(self.config, self._opened.weights, self.plan(plan))

    @property
    def identity(self) -> Mapping[str, str]:
        """What these weights are: the digest of their checkpoint, and their kind."""
        return dict(self._opened.identity)

    @property
    def kv_kind(self) -> str:
        """Kind of the K/V cache of sessions that ask for none: f32, bf16 or int8."""
        return self._kv_kind

    @property
    def engine(self) -> Engine:
        """Sequences of token ids below sessions. Raises InputError after `close`."""
        return self._open_engine()

    @property
    def vision(self) -> VisionEncoder:
        """The encoder of pictures: `model.vision.encode(pixels)`; opened when first asked for.

        Raises InputError if the checkpoint has none, CheckpointError if its file is missing or
        broken.
        """
        return self._opened.vision

    @property
    def audio(self) -> AudioEncoder:
        """The encoder of sound: `model.audio.encode(samples)`, `model.audio.stream()`.

        Raises as `vision`.
        """
        return self._opened.audio

    @property
    def towers(self) -> TowerConfig:
        """Shapes and ids of the encoders; None for one that config.json does not have."""
        return self._opened.towers.config

    @property
    def library(self) -> MediaLibrary:
        """Embeddings of pictures and clips, shared by all sessions of this model."""
        return self._library

    def embed(
        self,
        ids: Sequence[int] | npt.NDArray[Any],
        images: Sequence[F32] | None = None,
        audio: Sequence[Sound] | None = None,
    ) -> Embeddings | None:
        """Pictures and clips as inputs for `logits`, each in the place of its soft ids.

        ids (T,) · images: pixels (3, H, W) in [0, 1], in the order of the prompt · audio: samples
        (N,) at 16 kHz, or log-mel (T, bins), alone or with a mask of its frames; each takes as many
        soft ids as config.json says, `SoundTokens` as many as they are
        Raises InputError if the soft ids are not exactly as many, CheckpointError if an encoder's
        file is missing.
        """
        tokens = self._open_engine().check_ids(ids)
        encoder, kinds = self._library.encoder, []
        # Counts are checked for all before the first picture is encoded.
        for tower, given, word in (("vision", images, "pictures"), ("audio", audio, "clips")):
            if given is not None:
                media_ids = self._opened.towers.require(tower).ids
                wanted = sum(encoder.count(tower, one) for one in given)
                check_count(tokens, media_ids, wanted, len(given), word)
                kinds.append((tower, media_ids, given, word))
        return merged(
            tokens,
            [
                (media_ids, [encoder.soft(tower, one) for one in given], word)
                for tower, media_ids, given, word in kinds
            ],
        )

    def logits(
        self,
        ids: Sequence[int] | npt.NDArray[Any],
        plan: str | Path | Plan | None = None,
        positions: Positions = "all",
        *,
        images: Sequence[F32] | None = None,
        audio: Sequence[Sound] | None = None,
        embeddings: Embeddings | None = None,
        mask: npt.NDArray[Any] | None = None,
        chunk: int | None = None,
        kv: str | None = None,
    ) -> F32:
        """Logits after the soft cap, float32.

        ids (T,): returns (T, V) for "all", (1, V) for "last" · ids (B, T): returns (B, T, V) or (B,
        1, V), each row the same bits as alone; mask (B, T) is 0 at padding on the left, where
        logits are zeros
        images, audio: as in `embed`, with soft ids in place, for ids (T,) · embeddings: inputs in
        the place of some of the ids' own, for ids (T,) · chunk: tokens a step; changes no value
        kv: kind of the K/V cache, f32, bf16 or int8
        Raises InputError for ids, masks or positions that cannot be used, CapacityError beyond the
        context.
        """
        if positions not in ("all", "last"):
            raise InputError(f"positions: expected 'all' or 'last', got {positions!r}")
        if chunk is not None and (type(chunk) is not int or chunk < 1):
            raise InputError(f"chunk: expected a whole number from 1, got {chunk!r}")
        chosen = self.plan(plan)
        if images is not None or audio is not None:
            if embeddings is not None:
                raise InputError("pictures and sound, or embeddings: give one of the two")
            embeddings = self.embed(ids, images, audio)
        given = np.asarray(ids)
        if given.ndim != 2:
            if mask is not None:
                raise InputError(
                    "a mask belongs to ids of shape (B, T); these have one row: leave padding out"
                )
            return self._row_logits(given, chosen, positions, embeddings, chunk, kv)
        if embeddings is not None:
            raise InputError("embeddings belong to ids of shape (T,): call logits once a row")
        starts = left_padding(mask, given.shape)
        rows = [
            self._row_logits(row[start:], chosen, positions, None, chunk, kv)
            for row, start in zip(given, starts, strict=True)
        ]
        out = np.zeros(
            (len(rows), given.shape[1] if positions == "all" else 1, rows[0].shape[1]), np.float32
        )
        for target, row in zip(out, rows, strict=True):
            target[len(target) - len(row) :] = row
        return out

    def session(
        self,
        plan: str | Path | Plan | None = None,
        kv: str | None = None,
        *,
        limits: MediaLimits = DEFAULT_LIMITS,
        allow_urls: bool = False,
    ) -> Session:
        """A new, empty conversation.

        plan: as in `plan` · kv: f32, bf16 or int8, None = the model's · limits: of pictures, sound
        and video in prompts · allow_urls: whether prompts may name pictures on the network
        """
        session = Session(
            self._runtime(),
            self.plan(plan),
            kv_kind=self._kv_kind if kv is None else checked_kv_kind(kv),
            limits=limits,
            allow_urls=allow_urls,
        )
        if isinstance(plan, str):
            session.plan = plan
        return self._remember(session)

    def controller(
        self,
        policy: Kind = "auto",
        *,
        target_seconds: float | None = None,
        memory_bytes: int | None = None,
        duty: float | None = None,
        size: str | Path | Plan | None = None,
        kv: str | None = None,
        exact: bool = False,
        trace: str | Path | None = None,
    ) -> Controller:
        """What chooses the size of one conversation while it runs: give it to `Session.generate`.

        policy: fixed, latency (needs target_seconds, of a token), memory (keeps below memory_bytes,
        the control group's limit and what the machine has left), power (needs duty, the share of
        the time the machine may work), auto (all of them)
        size, kv: to begin with and to come back to, as in `session` · exact: only sizes that leave
        the cache exact · trace: a file for what is read and decided
        Raises InputError for budgets that contradict the policy, PlanError for a size that is not
        this model's, CapacityError if no size fits into the memory, OSError if the trace cannot be
        written.
        """
        asked = Policy(
            kind=policy, target_seconds=target_seconds, memory_bytes=memory_bytes, duty=duty
        )
        largest = self.plan(size)
        ladder = levels(
            self.config,
            self._opened.weights,
            self.plans,
            size if isinstance(size, str) and size in self.plans else largest,
            kv=self._kv_kind if kv is None else checked_kv_kind(kv),
            chunk=CHUNK,
            exact=exact,
        )
        files = read_ledger(self._opened.files, {}, {})
        libraries = [row for row in files.rows if row.name == "programs and libraries"]
        rules = Rules(
            policy=asked, levels=ladder, file_bytes=sum(row.resident_bytes for row in libraries)
        )
        return Controller(
            rules,
            self._opened.weights,
            mapped=not self._opened.arrays,
            trace=None if trace is None else Path(trace),
        )

    def escalation(
        self,
        small: str | Path | Plan | None = None,
        large: str | Path | Plan | None = None,
        *,
        mode: Mode = "approximate",
        thresholds: Thresholds | str | Path | None = None,
    ) -> Escalation:
        """What takes the large size where the small one is unsure: give it to `Session.generate`.

        small, large: the smallest and the largest named size if omitted · mode: exact, approximate
        or reanchor, see `matryo.elastic.complexity` · thresholds: or a file of `matryo calibrate`
        Raises InputError for sizes or a file that cannot be used, PlanError for unknown sizes.
        """
        if thresholds is None:
            thresholds = Thresholds()
        elif not isinstance(thresholds, Thresholds):
            thresholds = Thresholds.load(Path(thresholds))
        smallest = next(iter(self.plans.values())) if small is None else self.plan(small)
        return Escalation(smallest, self.plan(large), mode, thresholds)

    def restore(self, path: str | Path) -> Session:
        """Continue a session that `Session.save` wrote.

        Raises CheckpointError if the file is damaged, or was saved with other weights; OSError if
        it cannot be read.
        """
        return self._remember(Session.restore(self._runtime(), Path(path)))

    def ledger(self) -> Ledger:
        """Where every byte of this process lives: files, K/V, scratch."""
        cache_bytes = sum(session.cache_bytes for session in self._sessions)
        towers = self._opened.towers
        return read_ledger(
            (*self._opened.files, *towers.paths),
            {"weights": self._opened.arrays, "encoders": towers.arrays},
            {"K/V": cache_bytes, "pictures and sound": self._library.num_bytes},
        )

    def forget_pages(self) -> None:
        """Tell the system that no mapped weight is needed in memory now; what is used is read
        again, mostly from the system's own cache. Weights in private memory stay.
        """
        self._opened.forget_pages()

    def close(self) -> None:
        """Let go of the weights; sessions of this model cannot be used afterwards.

        Calling it again does nothing.
        """
        for session in self._sessions:
            session.close()
        self._engine = None
        self._library.clear()
        self._opened.close()

    def _row_logits(
        self,
        ids: npt.NDArray[Any],
        plan: Plan,
        positions: Positions,
        embeddings: Embeddings | None,
        chunk: int | None,
        kv: str | None,
    ) -> F32:
        engine = self._open_engine()
        kind = self._kv_kind if kv is None else checked_kv_kind(kv)
        sequence = engine.new_sequence(plan, kind)
        out = engine.prefill(
            sequence, plan, ids, logits=positions, embeddings=embeddings, chunk=chunk
        )
        if out is None:
            raise InputError("expected at least one token id")
        return out

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise InputError("this model was closed: load it again")
        return self._engine

    def _runtime(self) -> Runtime:
        return Runtime(
            engine=self._open_engine(),
            text=self._opened.text,
            plans=self.plans,
            find_plan=self.plan,
            bos_id=self.config.bos_id,
            eos_ids=self._opened.eos_ids,
            suppressed=suppressed_ids(self.config, self._opened.eos_ids),
            sampling=self._sampling,
            kv_kind=self._kv_kind,
            identity=self._opened.identity,
            library=self._library,
        )

    def _remember(self, session: Session) -> Session:
        self._sessions.add(session)
        return session

    def _is_at_hand(self, plan: Plan) -> bool:
        try:
            self._opened.check(plan)
        except PlanError:
            return False
        return True


def suppressed_ids(config: TextConfig, eos_ids: frozenset[int]) -> npt.NDArray[np.int64]:
    """Ids that are no text: padding, and the multimodal ids, whose rows are copies of padding's."""
    pad = set() if config.pad_id is None or config.pad_id in eos_ids else {config.pad_id}
    return np.array(sorted(pad | {*range(config.ple_vocab_size, config.vocab_size)}), np.int64)


def checked_kv_kind(kind: str) -> str:
    """The kind itself. Raises InputError if there is no such kind of K/V cache."""
    if kind not in KV_KINDS:
        raise InputError(f"kv: expected one of {', '.join(KV_KINDS)}, got {kind!r}")
    return kind


def left_padding(mask: npt.NDArray[Any] | None, shape: tuple[int, ...]) -> list[int]:
    """How many positions of each row are padding.

    Raises InputError unless a row is some zeros and then some ones.
    """
    if mask is None:
        return [0] * shape[0]
    given = np.asarray(mask) != 0
    if given.shape != shape:
        raise InputError(f"mask: expected the shape of the ids {shape}, got {given.shape}")
    starts = shape[1] - given.sum(axis=1)
    expected = np.arange(shape[1]) >= starts[:, None]
    if not np.array_equal(given, expected) or (starts == shape[1]).any():
        raise InputError(
            "mask: expected zeros (padding) on the left and at least one one in every row"
        )
    return [int(start) for start in starts]


def _by_size(plans: Mapping[str, Plan]) -> dict[str, Plan]:
    """Smallest first; plans of one size stay in their order."""
    return dict(
        sorted(plans.items(), key=lambda item: (sum(item[1].ffn_width), len(item[1].layers)))
    )
