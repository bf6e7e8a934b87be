"""Writes one nested size as a GGUF file for llama.cpp (architecture gemma3n), quantised to Q4_0.

In: the chunks of the widest model in the order of `shapes.tensors`. Out: what `llama-quantize
--pure ... Q4_0` would make of the same checkpoint: attention, FFN, PLE gates, the tied head and the
PLE table in Q4_0; AltUp, LAuReL and the per-layer model projection in F16 (llama-quantize leaves
them alone); norms and 4-wide coefficients in F32. Without `--pure` ("mix") the tied head and the
PLE table are Q6_K. Names and metadata follow llama.cpp's converter.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from .shapes import Dimensions, Size, TensorSpec, tensors
from .values import Q4_0_BYTES, Q4_0_GROUP, Q6_K_BYTES, Q6_K_GROUP, Chunk
from .vocabulary import Vocabulary

Q4_0 = gguf.GGMLQuantizationType.Q4_0
Q6_K = gguf.GGMLQuantizationType.Q6_K
F16 = gguf.GGMLQuantizationType.F16
F32 = gguf.GGMLQuantizationType.F32
BLOCKS = {Q4_0: (Q4_0_GROUP, Q4_0_BYTES), Q6_K: (Q6_K_GROUP, Q6_K_BYTES)}
"""Values and bytes of a block of each quantised type."""
TABLES = ("model.embed_tokens.weight", "model.embed_tokens_per_layer.weight")
MOSTLY_Q4_0 = 2
SPARSITY_CUTOFF = 1.6448533535003662
"""The 95 % quantile of the normal distribution as llama.cpp has it."""

SHARED_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
    "model.per_layer_model_projection.weight": "per_layer_model_proj.weight",
    "model.per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
    "model.norm.weight": "output_norm.weight",
}
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "altup.correct_output_scale": "altup_correct_scale",
    "altup.correction_coefs": "altup_correct_coef",
    "altup.prediction_coefs": "altup_predict_coef",
    "altup.modality_router": "altup_router",
    "altup.router_norm": "altup_router_norm",
    "laurel.linear_left": "laurel_l",
    "laurel.linear_right": "laurel_r",
    "laurel.post_laurel_norm": "laurel_post_norm",
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face tensor; the stacked AltUp matrices share one name."""
    if name in SHARED_NAMES:
        return SHARED_NAMES[name]
    if name.startswith("model.altup_projections."):
        return "altup_proj.weight"
    if name.startswith("model.altup_unembed_projections."):
        return "altup_unembd_proj.weight"
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+?)(\.weight)?", name)
    if found is None:
        raise ValueError(f"no GGUF name for tensor {name!r}")
    return f"blk.{found[1]}.{LAYER_NAMES[found[2]]}.weight"


def format_of(spec: TensorSpec, pure: bool) -> gguf.GGMLQuantizationType:
    """The type llama.cpp's converter and quantiser give to the tensor."""
    if spec.name in TABLES:
        return Q4_0 if pure else Q6_K
    if len(spec.shape) == 1 or "_coefs." in spec.name:
        return F32
    if "altup" in spec.name or "laurel" in spec.name or "per_layer_model_projection" in spec.name:
        return F16
    return Q4_0


def taken(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The kept rows and columns; a view where everything is kept."""
    part = values if rows.all() else values[rows]
    return part if columns.all() else part[:, columns]


class GgufSink:
    """Receives the widest model's chunks and writes the part that belongs to `size`."""

    def __init__(
        self, path: Path, size: Size, dims: Dimensions, vocabulary: Vocabulary, pure: bool = True
    ) -> None:
        self.pure = pure
        self.size = size
        self.dims = dims
        self.current = ""
        self.written = 0
        self.writer = gguf.GGUFWriter(path, "gemma3n")
        self._metadata(vocabulary)
        for spec in filter(self._holds, tensors(dims)):
            self._declare(spec)
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_ti_data_to_file()
        assert self.writer.fout is not None
        self.file = self.writer.fout[0]
        self.writer.write_padding(self.file, self.file.tell())

    def _holds(self, spec: TensorSpec) -> bool:
        return spec.layer is None or spec.layer in self.size.layers

    def _metadata(self, vocabulary: Vocabulary) -> None:
        dims, layers, w = self.dims, len(self.size.layers), self.writer
        w.add_name(f"random gemma3n {self.size.name}")
        w.add_context_length(dims.context)
        w.add_embedding_length(dims.hidden)
        w.add_block_count(layers)
        w.add_feed_forward_length(self.size.ffn)
        w.add_head_count(dims.heads)
        w.add_head_count_kv(dims.kv_heads)
        w.add_key_length(dims.head_dim)
        w.add_value_length(dims.head_dim)
        w.add_layer_norm_rms_eps(1e-6)
        w.add_rope_freq_base(1e6)
        w.add_sliding_window(dims.sliding_window)
        w.add_sliding_window_pattern([(i + 1) % 5 != 0 for i in range(layers)])
        w.add_final_logit_softcapping(30.0)
        w.add_altup_active_idx(0)
        w.add_altup_num_inputs(dims.streams)
        w.add_embedding_length_per_layer_input(dims.per_layer)
        w.add_shared_kv_layers(layers - dims.owners)
        sparse = sum(layer < dims.sparse_layers for layer in self.size.layers)
        w.add_activation_sparsity_scale([SPARSITY_CUTOFF] * sparse + [0.0] * (layers - sparse))
        w.add_file_type(MOSTLY_Q4_0)
        w.add_quantization_version(gguf.GGML_QUANT_VERSION)
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_list(vocabulary.tokens)
        w.add_token_scores(vocabulary.scores)
        w.add_token_types(vocabulary.types)
        w.add_bos_token_id(2)
        w.add_eos_token_id(1)
        w.add_unk_token_id(3)
        w.add_pad_token_id(0)
        w.add_add_bos_token(True)
        w.add_add_eos_token(False)
        w.add_add_space_prefix(False)

    def _declare(self, spec: TensorSpec) -> None:
        name = gguf_name(spec.name_in(self.size))
        shape: tuple[int, ...] = spec.shape_in(self.size, self.dims)
        if name.startswith("altup_"):
            if ".0." not in spec.name:
                return
            shape = (self.dims.streams - 1, *shape)
        if name == "per_layer_token_embd.weight":
            shape = (self.dims.vocabulary, shape[1])
        kind = format_of(spec, self.pure)
        if kind in BLOCKS:
            values, size = BLOCKS[kind]
            shape = (*shape[:-1], shape[-1] // values * size)
            dtype: np.dtype[Any] = np.dtype(np.uint8)
        else:
            dtype = np.dtype(np.float16 if kind == F16 else np.float32)
        nbytes = int(np.prod(shape)) * dtype.itemsize
        self.writer.add_tensor_info(name, shape, dtype, nbytes, kind)

    def write(self, spec: TensorSpec, chunk: Chunk) -> None:
        """Append the kept rows and columns of the chunk. Chunks must come in file order."""
        if not self._holds(spec):
            return
        name = gguf_name(spec.name_in(self.size))
        if name != self.current:
            self._end_tensor()
            self.current = name
        rows = spec.selection(self.size, 0, self.dims)[chunk.start : chunk.start + len(chunk.bf16)]
        columns = spec.selection(self.size, 1, self.dims)
        kind = format_of(spec, self.pure)
        if kind in BLOCKS:
            blocks = chunk.q4_0 if kind == Q4_0 else chunk.q6_k
            part = taken(blocks, rows, columns[:: BLOCKS[kind][0]])
        else:
            values = taken(chunk.f32, rows, columns)
            part = values.astype(np.float16 if kind == F16 else np.float32)
        self._append(part.tobytes())

    def _append(self, data: bytes) -> None:
        self.file.write(data)
        self.written += len(data)

    def _end_tensor(self) -> None:
        if self.current == "per_layer_token_embd.weight":
            # llama.cpp wants a row for every id; multimodal ids never read theirs.
            missing = self.dims.vocabulary - self.dims.per_layer_vocabulary
            slots = len(self.size.layers) * self.dims.per_layer
            values, size = BLOCKS[Q4_0 if self.pure else Q6_K]
            self._append(bytes(missing * slots // values * size))
        self.writer.write_padding(self.file, self.written)
        self.written = 0

    def close(self) -> None:
        self._end_tensor()
        self.writer.close()
