"""The data of a recipe, opened for the model that it starts from.

In: a recipe, the model's start. Out: corpora with the media that its encoders take, the heads that
the encoders learn with, and rows to compare an exported model on: a text, a picture, a sound.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.config import TextConfig
from matryo.errors import ConfigError
from matryo.inputs.text_format import TextFormat, read_json_object
from matryo.inputs.tokenizer import Tokenizer
from matryo.loading.opened import end_ids, image_size
from matryo.media.parts import clip_samples
from matryo.train.auxiliary import Auxiliary
from matryo.train.conversation import ConversationEncoder, towers_of
from matryo.train.data import Corpus, open_corpus
from matryo.train.encoders import SoftEmbeddings
from matryo.train.export import Probe
from matryo.train.features import KINDS, EncoderTeacher
from matryo.train.media_store import MediaShape
from matryo.train.recipe import Recipe
from matryo.train.start import Start
from matryo.train.step import Encoders
from matryo.train.teachers import INDEX as TEACHER_INDEX
from matryo.train.teachers import CachedTeacher, Teacher, cache_key, make_cache, open_teacher

TOKENS, HELD_OUT, TEACHER = "tokens", "held-out", "teacher"


def open_data(
    recipe: Recipe,
    start: Start,
    config: TextConfig,
    tokenizer: Tokenizer,
    note: Callable[[str], None],
) -> tuple[list[Corpus], Corpus | None]:
    """The sources of a run, and what is only measured. Raises as `open_corpus`."""
    data, towers = recipe.data, towers_of(start.towers, config.hidden_size)
    text = TextFormat(start.directory, bos_id=config.bos_id)
    options: dict[str, Any] = {
        "end_id": config.eos_ids[0],
        "field": data.field,
        "bad_rows": data.bad_rows,
        "advice": "repair it, or set data.bad_rows: skip",
        "note": note,
        "encoder": ConversationEncoder(text, towers, _end_ids(start, config), data.learn),
        "names": (data.label, data.transcript),
        "encoding": _encoding(start.directory, start, recipe, config),
        "longest": data.sequence,
    }

    def opened(files: Sequence[Path], place: str, **more: Any) -> Corpus:
        cache = recipe.output / place
        if data.cache is not None:
            names = json.dumps([[str(file) for file in files], options["encoding"], repr(more)])
            cache = data.cache / hashlib.sha256(names.encode()).hexdigest()[:16]
        return open_corpus(files, tokenizer, cache, **options, **more)

    changed = _media(start, data.picture_changes, data.sound_changes)
    sources = data.sources
    corpora = [
        opened(one.files, TOKENS if len(sources) == 1 else f"{TOKENS}/{number}", media=changed)
        for number, one in enumerate(sources)
    ]
    held_out = opened(data.held_out, HELD_OUT, media=_media(start)) if data.held_out else None
    return corpora, held_out


def make_encoders(
    recipe: Recipe, start: Start, config: TextConfig, corpora: Sequence[Corpus]
) -> Encoders | None:
    """What encoders learn beside the decoder; None if nothing. Raises ConfigError if the rows have
    nothing of what is asked for.
    """
    o, wanted = recipe.objective, None if recipe.teacher is None else recipe.teacher.encoders
    if not (o.classes or o.ctc or wanted):
        return None
    labels = {label for corpus in corpora for label in corpus.labels}
    transcripts = {text for corpus in corpora for text in corpus.transcripts}
    for weight, found, name in ((o.classes, labels, "label"), (o.ctc, transcripts, "transcript")):
        if weight and not found:
            raise ConfigError(f"no row has a {name}, which objective.classes or .ctc learns from")
    audio = start.towers.audio
    auxiliary = Auxiliary(config.hidden_size, labels, transcripts, classes=o.classes, ctc=o.ctc)
    teacher: EncoderTeacher | None = None
    if recipe.teacher is not None and wanted is not None:
        kinds = tuple(kind for kind in KINDS if getattr(start.towers, kind) is not None)
        if not kinds:
            raise ConfigError("teacher.encoders: this model has no encoders to teach")
        teacher = EncoderTeacher.open(wanted)
        auxiliary.learn_features(config.hidden_size, teacher.width, kinds, recipe.teacher.features)
    return Encoders(
        auxiliary,
        SoftEmbeddings(start.model),
        1 if audio is None else audio.frames_per_token,
        teacher,
    )


def make_teacher(
    recipe: Recipe,
    tokenizer: Tokenizer,
    corpora: Sequence[Corpus],
    note: Callable[[str], None],
) -> Teacher | None:
    """The causal model that teaches, or its file, which is made if it is not there.

    Raises ConfigError if it has another tokenizer, or a file is wanted of other rows than packed
    texts, CheckpointError if it cannot be opened.
    """
    if recipe.teacher is None or recipe.teacher.model is None:
        return None
    source, top = recipe.teacher.model, recipe.teacher.top
    if not top:
        return open_teacher(source, tokenizer)
    sequence = recipe.data.sequence
    if any(len(corpus.index) for corpus in corpora):
        raise ConfigError("teacher.top keeps expectations of texts alone: use 0 for conversations")
    if top > len(tokenizer):
        raise ConfigError(f"teacher.top is {top}; there are {len(tokenizer)} ids")
    places = [(corpus, row) for corpus in corpora for row in range(corpus.num_rows(sequence))]

    def rows(number: int) -> npt.NDArray[np.int64]:
        corpus, row = places[number]
        return corpus.row(row, sequence).ids[:-1]

    key = cache_key(source, ":".join(corpus.digest for corpus in corpora), sequence, top)
    directory = recipe.output / TEACHER
    if not (directory / TEACHER_INDEX).exists():
        note(f"asking the teacher about {len(places):,} rows, once")
        make_cache(open_teacher(source, tokenizer), directory, key, rows, len(places), top)
    return CachedTeacher(directory, key, rows, len(places), top)


def probes_of(corpora: Sequence[Corpus], recipe: Recipe) -> list[Probe]:
    """Rows that an exported model is compared on."""
    probes: list[Probe] = []
    text = next((corpus for corpus in corpora if len(corpus.tokens)), None)
    if text is not None:
        probes.append(Probe([int(token) for token in text.tokens[: recipe.export.tokens]]))
    wanted = {"pictures", "sounds"}
    for corpus in corpora:
        packed = corpus.num_packed(recipe.data.sequence)
        for number in range(packed, corpus.num_rows(recipe.data.sequence)):
            sample = corpus.row(number, recipe.data.sequence)
            new = {kind for kind in wanted if getattr(sample, kind)}
            if corpus.media is None or not (new or not probes):
                continue
            wanted -= new
            sounds = [corpus.media.mel(index) for index in sample.sounds]
            probes.append(
                Probe(
                    [int(token) for token in sample.ids],
                    [corpus.media.pixels(index) for index in sample.pictures],
                    [(mel, np.arange(len(mel)) < valid) for mel, valid in sounds],
                )
            )
            if not wanted:
                return probes
    return probes


def _end_ids(start: Start, config: TextConfig) -> list[int]:
    """What ends an answer: where the model will stop, and what ends a text."""
    settings = read_json_object(start.directory / "generation_config.json")
    return sorted({*config.eos_ids, *end_ids(settings, config)})


def _media(start: Start, pictures: float = 0.0, sounds: float = 0.0) -> MediaShape:
    vision, audio = start.towers.vision, start.towers.audio
    return MediaShape(
        image_size=0 if vision is None else image_size(start.directory),
        num_mels=0 if audio is None else audio.num_mels,
        clip_samples=0 if audio is None else clip_samples(audio),
        picture_changes=0.0 if vision is None else pictures,
        sound_changes=0.0 if audio is None else sounds,
    )


def _encoding(directory: Path, start: Start, recipe: Recipe, config: TextConfig) -> str:
    """What the ids of a conversation depend on beside the tokenizer."""
    digest = hashlib.sha256()
    for name in ("chat_template.jinja", "tokenizer_config.json", "tokenizer.json"):
        path = directory / name
        digest.update(path.read_bytes() if path.is_file() else b"")
    parts = [repr(start.towers), _end_ids(start, config), recipe.data.learn, config.hidden_size]
    return digest.hexdigest() + repr(parts)
