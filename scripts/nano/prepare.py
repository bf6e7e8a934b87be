"""Turn the fetched texts into a tokenizer and into windows of token ids.

In: `CACHE/raw`. Out: `CACHE/tokenizer` (Hugging Face files, 4,096 byte-level BPE ids),
`CACHE/windows.npz` (one uint16 array [windows, WINDOW + 1] per pool and split, named
`train_<pool>` / `test_<pool>`) and `CACHE/heldout.jsonl` (held-out texts, never trained on).
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from texts import Document, all_documents

VOCABULARY = 4096
WINDOW = 256  # positions the model is trained on at once
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
GEMMA_IDS = {5: 105, 6: 106}  # turn markers go where every Gemma has them
PAD, EOS = 0, 1


def train_tokenizer(texts: list[str]) -> Tokenizer:
    """Return a byte-level BPE tokenizer that splits numbers into digits and prepends <bos>."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(texts, trainer)
    return Tokenizer.from_str(json.dumps(move_turn_markers(json.loads(bpe.to_str()))))


def move_turn_markers(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Swap ids so that the turn markers are 105 and 106, and add decoder and <bos> template."""
    swap = {**GEMMA_IDS, **{new: old for old, new in GEMMA_IDS.items()}}
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {t: swap.get(i, i) for t, i in vocabulary.items()}
    for token in tokenizer["added_tokens"]:
        token["id"] = swap.get(token["id"], token["id"])
    tokenizer["added_tokens"].sort(key=lambda token: token["id"])
    template = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    probe = Tokenizer(models.BPE())
    probe.decoder, probe.post_processor = decoders.ByteLevel(), template
    parts = json.loads(probe.to_str())
    return {**tokenizer, "decoder": parts["decoder"], "post_processor": parts["post_processor"]}


def windows(documents: list[Document], tokenizer: Tokenizer, rng: random.Random) -> np.ndarray:
    """Pack documents into rows of WINDOW + 1 ids, each starting with <bos>.

    A long document is cut into rows of its own. Short ones fill a row one after the other; what
    does not fit is dropped at the row's end and the next row starts with a new document.
    """
    rng.shuffle(documents)
    size, rows, row = WINDOW + 1, [], []
    for encoding in tokenizer.encode_batch([d.text for d in documents]):
        ids = [*encoding.ids, EOS]
        if len(ids) > 2 * size:
            body = ids[1:]
            rows += [[2, *body[i : i + WINDOW]] for i in range(0, len(body) - WINDOW, WINDOW)]
            continue
        row += ids
        if len(row) >= size:
            rows.append(row[:size])
            row = []
    if row:
        rows.append(row + [PAD] * (size - len(row)))
    return np.array(rows, dtype=np.uint16)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the tokenizer with its special tokens and the Gemma chat template."""
    names = ("pad_token", "eos_token", "bos_token", "unk_token", "mask_token")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **dict(zip(names, SPECIAL, strict=False)),
        additional_special_tokens=SPECIAL[5:],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = Path(__file__).with_name("chat_template.jinja").read_text()
    fast.save_pretrained(folder)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")), separators=(",", ":")), "utf-8")


def main() -> None:
    """Write tokenizer, windows and held-out texts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path, help="directory that holds raw/")
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    cache: Path = arguments.cache
    documents = all_documents(cache / "raw", arguments.seed)
    texts = [d.text for d in documents if not d.held_out and d.pool != "rare"]
    tokenizer = train_tokenizer([re.sub(r"<(start|end)_of_turn>", "", text) for text in texts])
    save_tokenizer(tokenizer, cache / "tokenizer")
    rng, arrays = random.Random(arguments.seed), {}
    for split, held_out in (("train", False), ("test", True)):
        for pool in sorted({d.pool for d in documents}):
            chosen = [d for d in documents if d.pool == pool and d.held_out == held_out]
            size = sum(len(d.text) for d in chosen)
            name = f"{split}_{pool}"
            arrays[name] = windows(chosen, tokenizer, rng)
            print(f"{name}: {len(chosen)} documents, {size} bytes, {arrays[name].size} ids")
    np.savez(cache / "windows.npz", **arrays)
    with (cache / "heldout.jsonl").open("w") as file:
        for d in documents:
            if d.held_out:
                file.write(json.dumps({"pool": d.pool, "text": d.text}) + "\n")


if __name__ == "__main__":
    main()
