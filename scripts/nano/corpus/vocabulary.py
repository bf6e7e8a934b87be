"""The tokenizer: byte-level BPE of 8,192 ids, with Gemma's special tokens.

In: the texts of the training rows. Out: `CACHE/tokenizer`, Hugging Face files with the chat
template. Text ids are 0..8191, the turn markers 105 and 106 as in every Gemma. The vision range
begins at 8192 and the audio range at 8208, 16 ids each, as config.json of the model must say
(`MEDIA_IDS`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.nano.corpus import rows

TEXT_IDS = 8192
RANGE = 16  # ids of the vision range, and of the audio range
BASIC = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
PLACED = {
    "<start_of_turn>": 105, "<end_of_turn>": 106, "<start_of_image>": 107, "<start_of_audio>": 108,
}  # fmt: skip
ADDED = {
    "<end_of_image>": TEXT_IDS, "<image_soft_token>": TEXT_IDS + 1,
    "<end_of_audio>": TEXT_IDS + RANGE, "<audio_soft_token>": TEXT_IDS + RANGE + 1,
}  # fmt: skip
MEDIA_IDS = {
    "boi_token_id": PLACED["<start_of_image>"], "eoi_token_id": ADDED["<end_of_image>"],
    "image_token_id": ADDED["<image_soft_token>"], "boa_token_id": PLACED["<start_of_audio>"],
    "eoa_token_id": ADDED["<end_of_audio>"], "audio_token_id": ADDED["<audio_soft_token>"],
}  # fmt: skip
NAMED = {
    "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>", "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>", "audio_token": "<audio_soft_token>",
}  # fmt: skip
# What the chat template writes between the special tokens: it has to be single tokens.
FRAMES = ["user\n", "user\n\n\n", "model\n", "\n", "\n\n"]
SYNTHESISED = ("espeak", "kokoro")
PROSE_SHARE = 8  # one row of prose in so many
TEMPLATE = Path(__file__).parent.parent / "chat_template.jinja"


def train(texts: Iterable[str], size: int = TEXT_IDS) -> dict[str, Any]:
    """The parsed tokenizer.json of a tokenizer with `size` text ids, trained on the texts.

    Digits are tokens of their own. A tokenizer of few texts has fewer ids, with a gap below the
    media's.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", BASIC.index("<bos>"))]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*BASIC, *PLACED],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    document: dict[str, Any] = json.loads(bpe.to_str())
    return with_special_tokens(document)


def with_special_tokens(document: dict[str, Any]) -> dict[str, Any]:
    """The tokenizer with the turn and media tokens at their ids."""
    swap = {len(BASIC) + at: place for at, place in enumerate(PLACED.values())}
    swap |= {place: old for old, place in swap.items()}
    vocabulary = {t: swap.get(i, i) for t, i in document["model"]["vocab"].items()}
    document["model"]["vocab"] = dict(sorted({**vocabulary, **ADDED}.items(), key=lambda p: p[1]))
    form = document["added_tokens"][0]
    document["added_tokens"] = [
        {**form, "id": document["model"]["vocab"][spelling], "content": spelling}
        for spelling in (*BASIC, *PLACED, *ADDED)
    ]
    return document


def save(document: dict[str, Any], folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 1024,
        "clean_up_tokenization_spaces": False,
        **{f"{token.strip('<>')}_token": token for token in BASIC},
        **NAMED,
        "extra_special_tokens": {**NAMED},
        "additional_special_tokens": [*PLACED, *ADDED],
    }
    compact = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact, "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE.read_text("utf-8"), "utf-8")


def training_texts(folder: Path) -> Iterable[str]:
    """The texts that the tokenizer is trained on.

    Texts about emoji count as often as they are in the rows, or the many short names would be
    spelled letter by letter; all others count once, and of the prose a part, or the frequent
    prompts and English would fill the vocabulary. The frames of the chat template are there often
    enough to be learned whole. Synthesised speech says sentences of the translations again.
    """
    yield from FRAMES * 10_000
    seen: set[str] = set()
    for path in sorted(p for p in folder.glob("*.jsonl") if p.stem not in SYNTHESISED):
        for number, row in enumerate(rows.read(path)):
            if path.stem.startswith("emoji"):
                yield from rows.texts(row)
            elif "text" not in row or number % PROSE_SHARE == 0:
                seen.update(rows.texts(row))
    yield from sorted(seen)


def build(sources: Path, cache: Path, limit: int) -> None:
    """Train the tokenizer on the rows of the cache, whatever their number."""
    save(train(training_texts(cache / "train")), cache / "tokenizer")
