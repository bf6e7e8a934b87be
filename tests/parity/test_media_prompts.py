"""What a session makes of pictures and sound is what Gemma3nProcessor makes of them: the same ids,
pixels and frames, and then the same answer.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    Gemma3nAudioFeatureExtractor,
    Gemma3nProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
)

import matryo
from helpers.media_text import IMAGE_SIDE, NAMES, TEMPLATE
from helpers.towers import IDS

Content = list[Any]


@pytest.fixture(scope="module")
def processor(multimodal_checkpoint: Path) -> Gemma3nProcessor:
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_file=str(multimodal_checkpoint / "tokenizer.json"),
        bos_token="<bos>", pad_token="<pad>", eos_token="<eos>", extra_special_tokens=NAMES,
    )  # fmt: skip
    return Gemma3nProcessor(
        feature_extractor=Gemma3nAudioFeatureExtractor(),
        image_processor=SiglipImageProcessor(
            size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}, do_normalize=False, resample=2
        ),
        tokenizer=tokenizer,
        chat_template=TEMPLATE,
        audio_seq_length=IDS["audio_soft_tokens_per_image"],
        image_seq_length=IDS["vision_soft_tokens_per_image"],
    )


@pytest.fixture(scope="module")
def model(multimodal_checkpoint: Path) -> Iterator[matryo.Model]:
    with matryo.load(multimodal_checkpoint, weights="f32") as model:
        yield model


def picture(rng: np.random.Generator) -> Any:
    return rng.integers(0, 256, (40, 90, 3)).astype(np.uint8)


def sound(rng: np.random.Generator, samples: int = 20_000) -> Any:
    return (0.1 * rng.standard_normal(samples)).astype(np.float32)


def conversations(rng: np.random.Generator) -> list[list[dict[str, Any]]]:
    """Media first, last, next to each other and to line breaks, in several turns."""
    image, clip = {"type": "image", "image": picture(rng)}, {"type": "audio", "audio": sound(rng)}
    other = {"type": "image", "image": picture(rng)}
    words = [{"type": "text", "text": text} for text in ("the a", "\n\nb\n", "é")]
    user = [
        [image, words[0]],
        [words[0], image, words[1], other],
        [clip],
        [words[1], clip, image, words[2], clip],
    ]
    single = [[{"role": "user", "content": content}] for content in user]
    answer = {"role": "assistant", "content": "a b"}
    return [*single, [*single[1], answer, *single[3]]]


@pytest.mark.parametrize("number", range(5))
def test_messages_give_the_ids_of_the_processor(
    model: matryo.Model, processor: Gemma3nProcessor, rng: np.random.Generator, number: int
) -> None:
    messages = conversations(rng)[number]
    session = model.session()
    session.prefill(messages)
    assert session.ids == expected_inputs(processor, messages)["input_ids"][0].tolist()


def expected_inputs(processor: Gemma3nProcessor, messages: list[dict[str, Any]]) -> Any:
    """What the reference makes of a conversation."""
    items = [
        item for turn in messages if isinstance(turn["content"], list) for item in turn["content"]
    ]
    plain = [
        {
            **turn,
            "content": turn["content"]
            if isinstance(turn["content"], str)
            else [
                {k: v for k, v in item.items() if k in ("type", "text")} for item in turn["content"]
            ],
        }
        for turn in messages
    ]
    text = processor.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    images = [Image.fromarray(item["image"]) for item in items if item["type"] == "image"]
    clips = [item["audio"] for item in items if item["type"] == "audio"]
    return processor(
        text=text, images=images or None, audio=clips or None, return_tensors="pt",
        text_kwargs={"add_special_tokens": False},
    )  # fmt: skip


@pytest.mark.parametrize("number", [1, 3, 4])
def test_the_answer_is_that_of_transformers(
    model: matryo.Model,
    processor: Gemma3nProcessor,
    tiny_multimodal_model: Any,
    rng: np.random.Generator,
    number: int,
) -> None:
    messages = conversations(rng)[number]
    inputs = expected_inputs(processor, messages)
    inputs.pop("token_type_ids", None)
    with torch.no_grad():
        want = tiny_multimodal_model(**inputs, use_cache=False).logits[0, -1].numpy()
    session = model.session(kv="f32")
    events = list(session.generate(messages, max_tokens=1, sampling=matryo.GREEDY))
    order = np.argsort(-want)
    text = order[order < 512]
    assert events[0].token == int(text[text != 0][0])


def test_a_list_continues_a_text_like_the_string_with_placeholders(
    model: matryo.Model, processor: Gemma3nProcessor, rng: np.random.Generator
) -> None:
    image, clip = picture(rng), sound(rng)
    session = model.session()
    session.prefill(["the\n", image, "a", clip])
    text = "<bos>the\n<image_soft_token>a<audio_soft_token>"
    want = processor(
        text=text, images=[Image.fromarray(image)], audio=[clip], return_tensors="pt",
        text_kwargs={"add_special_tokens": False},
    )  # fmt: skip
    assert session.ids == want["input_ids"][0].tolist()


def test_every_way_to_give_a_picture_is_one(
    model: matryo.Model, rng: np.random.Generator, tmp_path: Path
) -> None:
    array = picture(rng)
    image, file = Image.fromarray(array), io.BytesIO()
    image.save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    path = tmp_path / "a.png"
    tokens = set()
    for source in (array, image, file.getvalue(), path):
        session = model.session()
        events = list(session.generate(["a", source], max_tokens=3, sampling=matryo.GREEDY))
        tokens.add(tuple(event.token for event in events[:-1]))
    for key, source in (("path", str(path)), ("image", str(path)), ("image", image)):
        session = model.session()
        item = {"type": "image", key: source}
        events = list(session.generate(["a", item], max_tokens=3, sampling=matryo.GREEDY))
        tokens.add(tuple(event.token for event in events[:-1]))
    assert len(tokens) == 1
