"""Write full-size random Gemma 3n text checkpoints: `python -m benchmarks.checkpoints DIRECTORY`.

In: sizes, layouts, a seed. Out: `{size}-hf/` (safetensors bf16), `{size}-q4_0.gguf` (pure Q4_0) and
`{size}-q4_0-mix.gguf` (head and PLE table in Q6_K, llama-quantize's default), all of the same
values, E2B being the slice of E4B that skips layers 20..24 and halves every FFN. E4B is drawn once,
a few million values at a time, and every output takes its part of each chunk: resident memory stays
below 1 GB whatever is written.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .synthetic import vocabulary
from .synthetic.gguf_file import GgufSink
from .synthetic.hugging_face import HuggingFaceSink
from .synthetic.shapes import Dimensions, TensorSpec, nested_sizes, tensors
from .synthetic.values import Chunk, chunks

LAYOUTS = ("hf", "gguf", "gguf-mix")


class Sink(Protocol):
    def write(self, spec: TensorSpec, chunk: Chunk) -> None: ...
    def close(self) -> None: ...


def write_checkpoints(
    directory: Path,
    sizes: Sequence[str],
    layouts: Sequence[str],
    dims: Dimensions,
    pieces: vocabulary.Vocabulary,
    seed: int,
) -> None:
    """Draw the widest model once and write every asked-for size and layout of it."""
    directory.mkdir(parents=True, exist_ok=True)
    sinks: list[Sink] = []
    for size in (nested_sizes(dims)[name] for name in sizes):
        if "hf" in layouts:
            sinks.append(HuggingFaceSink(directory / f"{size.name}-hf", size, dims))
        if "gguf" in layouts:
            sinks.append(GgufSink(directory / f"{size.name}-q4_0.gguf", size, dims, pieces))
        if "gguf-mix" in layouts:
            path = directory / f"{size.name}-q4_0-mix.gguf"
            sinks.append(GgufSink(path, size, dims, pieces, pure=False))
    specs = tensors(dims)
    started = time.monotonic()
    for index, spec in enumerate(specs):
        for chunk in chunks(spec, seed):
            for sink in sinks:
                sink.write(spec, chunk)
        if index % 50 == 0:
            print(
                f"{index + 1}/{len(specs)} {time.monotonic() - started:.0f} s {spec.name}",
                file=sys.stderr,
            )
    for sink in sinks:
        sink.close()
    write_tokenizers(directory, sizes, layouts, pieces)


def write_tokenizers(
    directory: Path, sizes: Sequence[str], layouts: Sequence[str], pieces: vocabulary.Vocabulary
) -> None:
    """Put the same tokenizer files into every Hugging Face directory."""
    if "hf" not in layouts:
        return
    first, *others = (directory / f"{name}-hf" for name in sizes)
    vocabulary.write_tokenizer(first, pieces)
    for other in others:
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(first / name, other / name)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--sizes", nargs="+", choices=("e4b", "e2b"), default=["e4b", "e2b"])
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument(
        "--vocabulary", type=Path, help="GGUF file whose SentencePiece vocabulary is used"
    )
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    dims = Dimensions()
    if chosen.vocabulary is None:
        pieces = vocabulary.made_up(dims.vocabulary)
    else:
        pieces = vocabulary.from_gguf(chosen.vocabulary, dims.vocabulary)
    write_checkpoints(chosen.directory, chosen.sizes, chosen.layouts, dims, pieces, chosen.seed)


if __name__ == "__main__":
    main()
