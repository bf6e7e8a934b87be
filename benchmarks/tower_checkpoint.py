"""Write full-size random encoders: `python -m benchmarks.tower_checkpoint MODELS`.

In: a folder. Out: `MODELS/towers-hf`, a multimodal Gemma 3n checkpoint (safetensors, bf16, names as
published) whose encoders have their true size while the language model is as small as the format
allows: 0.6 GB for pictures, 1.4 GB for sound, 0.1 GB for text. Tensors are drawn one after another,
so memory stays below 100 MB.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from .synthetic import vocabulary
from .synthetic.hugging_face import config
from .synthetic.shapes import Dimensions, nested_sizes, tensors
from .synthetic.towers import (
    AUDIO_WIDTH,
    FUSED,
    MEDIA_IDS,
    TowerTensor,
    audio_tensors,
    embedder_tensors,
    vision_tensors,
)
from .synthetic.values import chunks

TEXT_IDS = 1024
TEXT = Dimensions(
    layers=10, owners=5, sparse_layers=0, hidden=2048, ffn=256, heads=2, kv_heads=1, head_dim=64,
    per_layer=32, laurel_rank=32, vocabulary=TEXT_IDS + 2 * MEDIA_IDS,
    per_layer_vocabulary=TEXT_IDS, sliding_window=64, context=4096,
)  # fmt: skip
"""Only its width is Gemma's: the embedders lead there."""


def text_tensors() -> list[TowerTensor]:
    return [
        TowerTensor(
            spec.name.replace("model.", "model.language_model.", 1), spec.shape, spec.mean,
            spec.spread,
        )
        for spec in tensors(TEXT)
    ]  # fmt: skip


def multimodal_config() -> dict[str, object]:
    """config.json of `Gemma3nForConditionalGeneration` with encoders of their published size."""
    text = config(nested_sizes(TEXT)["e4b"], TEXT)
    first = TEXT_IDS + MEDIA_IDS
    return {
        "architectures": ["Gemma3nForConditionalGeneration"],
        "model_type": "gemma3n",
        "dtype": "bfloat16",
        "text_config": text,
        "vision_config": {
            "model_type": "gemma3n_vision",
            "architecture": "mobilenetv5_300m_enc",
            "hidden_size": FUSED,
            "vocab_size": MEDIA_IDS,
            "vocab_offset": TEXT_IDS,
        },
        "audio_config": {
            "model_type": "gemma3n_audio",
            "hidden_size": AUDIO_WIDTH,
            "vocab_size": MEDIA_IDS,
            "vocab_offset": first,
        },
        "vision_soft_tokens_per_image": 256,
        "audio_soft_tokens_per_image": 188,
        "boi_token_id": TEXT_IDS - 2,
        "image_token_id": TEXT_IDS + 1,
        "eoi_token_id": TEXT_IDS,
        "boa_token_id": TEXT_IDS - 1,
        "audio_token_id": first + 1,
        "eoa_token_id": first,
    }


def write_tensors(path: Path, specs: Sequence[TowerTensor], seed: int) -> None:
    """One safetensors file, written in a single pass."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in specs:
        start, end = end, end + 2 * spec.num_values
        header[spec.name] = {
            "dtype": "BF16", "shape": list(spec.shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for spec in specs:
            for chunk in chunks(spec.spec, seed):
                file.write(chunk.bf16.tobytes())


def write_checkpoint(
    directory: Path,
    vision: Sequence[TowerTensor],
    audio: Sequence[TowerTensor],
    seed: int = 0,
) -> None:
    """A shard for each part, the index, the config and a tokenizer."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = (
        text_tensors(),
        [*vision, *embedder_tensors(TEXT.hidden, "vision", FUSED)],
        [*audio, *embedder_tensors(TEXT.hidden, "audio", AUDIO_WIDTH)],
    )
    weight_map: dict[str, str] = {}
    for number, specs in enumerate(parts, start=1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        write_tensors(directory / name, specs, seed)
        weight_map |= dict.fromkeys((spec.name for spec in specs), name)
    total = 2 * sum(spec.num_values for specs in parts for spec in specs)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(directory / "model.safetensors.index.json", index)
    _write_json(directory / "config.json", multimodal_config())
    vocabulary.write_tokenizer(directory, vocabulary.made_up(TEXT.vocabulary))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tower_checkpoint",
                                     description=__doc__)  # fmt: skip
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    write_checkpoint(chosen.directory / "towers-hf", vision_tensors(), audio_tensors(), chosen.seed)


if __name__ == "__main__":
    main()
