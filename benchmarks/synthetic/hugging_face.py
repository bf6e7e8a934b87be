"""Writes one nested size as a Hugging Face directory: sharded safetensors, index, config.json.

In: the chunks of the widest model in the order of `shapes.tensors`. Out:
`model-0000i-of-0000n.safetensors` with bf16 tensors of the smaller model,
`model.safetensors.index.json`, `config.json`, `generation_config.json`. The safetensors format: 8
bytes little-endian header length, JSON header, data without gaps.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

from .shapes import Dimensions, Size, TensorSpec, tensors
from .values import Chunk

SHARD_BYTES = 4 << 30


def config(size: Size, dims: Dimensions) -> dict[str, object]:
    """config.json of a text-only `Gemma3nForCausalLM`."""
    layers = len(size.layers)
    sparse = sum(layer < dims.sparse_layers for layer in size.layers)
    return {
        "architectures": ["Gemma3nForCausalLM"],
        "model_type": "gemma3n_text",
        "dtype": "bfloat16",
        "vocab_size": dims.vocabulary,
        "vocab_size_per_layer_input": dims.per_layer_vocabulary,
        "hidden_size": dims.hidden,
        "hidden_size_per_layer_input": dims.per_layer,
        "intermediate_size": [size.ffn] * layers,
        "num_hidden_layers": layers,
        "num_attention_heads": dims.heads,
        "num_key_value_heads": dims.kv_heads,
        "head_dim": dims.head_dim,
        "num_kv_shared_layers": layers - dims.owners,
        "layer_types": [
            "full_attention" if (i + 1) % 5 == 0 else "sliding_attention" for i in range(layers)
        ],
        "sliding_window": dims.sliding_window,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "max_position_embeddings": dims.context,
        "hidden_activation": "gelu_pytorch_tanh",
        "activation_sparsity_pattern": [0.95] * sparse + [0.0] * (layers - sparse),
        "altup_active_idx": 0,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "altup_num_inputs": dims.streams,
        "laurel_rank": dims.laurel_rank,
        "final_logit_softcapping": 30.0,
        "rms_norm_eps": 1e-06,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }


class HuggingFaceSink:
    """Receives the widest model's chunks and writes the part that belongs to `size`."""

    def __init__(self, directory: Path, size: Size, dims: Dimensions) -> None:
        self.directory = directory
        self.size = size
        self.dims = dims
        directory.mkdir(parents=True, exist_ok=True)
        self.shards = self._plan_shards()
        self.shard_of = {spec.name: i for i, shard in enumerate(self.shards) for spec in shard}
        self.open_shard = -1
        self.file: BinaryIO | None = None

    def _holds(self, spec: TensorSpec) -> bool:
        return spec.layer is None or spec.layer in self.size.layers

    def _bytes(self, spec: TensorSpec) -> int:
        total = 2
        for extent in spec.shape_in(self.size, self.dims):
            total *= extent
        return total

    def _plan_shards(self) -> list[list[TensorSpec]]:
        shards: list[list[TensorSpec]] = [[]]
        used = 0
        for spec in filter(self._holds, tensors(self.dims)):
            if shards[-1] and used + self._bytes(spec) > SHARD_BYTES:
                shards.append([])
                used = 0
            shards[-1].append(spec)
            used += self._bytes(spec)
        return shards

    def _shard_name(self, index: int) -> str:
        return f"model-{index + 1:05d}-of-{len(self.shards):05d}.safetensors"

    def _header(self, index: int) -> bytes:
        entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for spec in self.shards[index]:
            start, end = end, end + self._bytes(spec)
            entries[spec.name_in(self.size)] = {
                "dtype": "BF16",
                "shape": list(spec.shape_in(self.size, self.dims)),
                "data_offsets": [start, end],
            }
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    def write(self, spec: TensorSpec, chunk: Chunk) -> None:
        """Append the kept rows and columns of the chunk. Chunks must come in file order."""
        if not self._holds(spec):
            return
        index = self.shard_of[spec.name]
        if index != self.open_shard:
            self.finish()
            self.file = (self.directory / self._shard_name(index)).open("wb")
            self.file.write(self._header(index))
            self.open_shard = index
        assert self.file is not None
        rows = spec.selection(self.size, 0, self.dims)[chunk.start : chunk.start + len(chunk.bf16)]
        columns = spec.selection(self.size, 1, self.dims)
        part = chunk.bf16 if rows.all() else chunk.bf16[rows]
        part = part if columns.all() else part[:, columns]
        self.file.write(part.tobytes())

    def finish(self) -> None:
        """Close the shard being written."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def close(self) -> None:
        """Close the last shard and write the index and the configuration."""
        self.finish()
        weight_map = {
            spec.name_in(self.size): self._shard_name(i)
            for i, shard in enumerate(self.shards)
            for spec in shard
        }
        total = sum(self._bytes(spec) for shard in self.shards for spec in shard)
        self._json(
            "model.safetensors.index.json",
            {"metadata": {"total_size": total}, "weight_map": weight_map},
        )
        self._json("config.json", config(self.size, self.dims))
        generation = {"bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0}
        self._json(
            "generation_config.json",
            generation | {"do_sample": True, "temperature": 1.0, "top_k": 64, "top_p": 0.95},
        )

    def _json(self, name: str, value: dict[str, object]) -> None:
        (self.directory / name).write_text(json.dumps(value, indent=1) + "\n")
