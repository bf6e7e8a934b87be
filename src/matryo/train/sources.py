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
from matryo.train.media_store import MediaShape
from matryo.train.recipe import Recipe
from matryo.train.start import Start
from matryo.train.step import Encoders

TOKENS, HELD_OUT = "tokens", "held-out"


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
    o = recipe.objective
    if not (o.classes or o.ctc):
        return None
    labels = {label for corpus in corpora for label in corpus.labels}
    transcripts = {text for corpus in corpora for text in corpus.transcripts}
    for weight, found, name in ((o.classes, labels, "label"), (o.ctc, transcripts, "transcript")):
        if weight and not found:
            raise ConfigError(f"no row has a {name}, which objective.classes or .ctc learns from")
    audio = start.towers.audio
    return Encoders(
        Auxiliary(config.hidden_size, labels, transcripts, classes=o.classes, ctc=o.ctc),
        SoftEmbeddings(start.model),
        1 if audio is None else audio.frames_per_token,
    )


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
