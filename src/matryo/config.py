"""The shape of a Gemma 3n text decoder, resolved once from a Hugging Face `config.json`.

In: the parsed JSON of a text-only (`gemma3n_text`) or multimodal (`gemma3n`) checkpoint, untrusted.
Out: a frozen `TextConfig` whose per-layer values are tuples, so that nothing further down asks what
type a layer has.
Source: transformers `configuration_gemma3n.py` (field names, defaults, both RoPE spellings). This
module holds the only translation from Hugging Face names to ours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from matryo.config_section import Section, real, shown
from matryo.errors import ConfigError

GROUP = 32  # columns that share one quantisation scale; every FFN width is a multiple of it
NUM_STREAMS = 4  # AltUp streams; the native blocks are written for this number
SLIDING, FULL = "sliding_attention", "full_attention"

IGNORED_KEYS: dict[str, str] = {
    "altup_coef_clip": "acts in training only",
    "altup_lr_multiplier": "acts in training only",
    "attention_dropout": "acts in training only",
    "initializer_range": "acts in training only",
    "query_pre_attn_scalar": "Gemma 3n scales q·k by 1 whatever this says",
    "cache_implementation": "our cache follows the layer types",
    "use_cache": "whether K/V is shared or kept never depends on a flag here",
    "model_type": "checked by from_json",
    "architectures": "names a class of another package",
    "auto_map": "names code of the checkpoint; a checkpoint never runs code here",
    "_name_or_path": "metadata",
    "transformers_version": "metadata",
    "is_encoder_decoder": "metadata",
    "id2label": "metadata",
    "label2id": "metadata",
    "problem_type": "metadata",
    "return_dict": "concerns another program's outputs",
    "output_attentions": "concerns another program's outputs",
    "output_hidden_states": "concerns another program's outputs",
    "chunk_size_feed_forward": "concerns another program's memory",
    "_attn_implementation_autoset": "concerns another program's kernels",
    "_attn_implementation": "concerns another program's kernels",
}
_ROPE_IGNORED = frozenset({"rope_type", "type"})
_MODEL_TYPES = ("gemma3n", "gemma3n_text")
_DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

# Limits that no real checkpoint approaches; they keep products of sizes inside 63 bits and buffers
# inside reason.
_MAX_FILE_BYTES = 16 << 20
_MAX_LAYERS, _MAX_SIZE, _MAX_VOCAB, _MAX_CONTEXT = 4096, 1 << 20, 1 << 24, 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """A text decoder's shape; tuples have one entry a layer. See docs/architecture.md for the
    letters.

    kv_source: the owner layer whose K/V a layer reads (itself for owners); `num_owners` layers own
    K/V, in front.
    window: visible tokens including self, 0 = all. sparsity_z: standard deviations above the mean
    where the gate is cut, 0 = dense. embedding_scale: sqrt(d) rounded to the checkpoint's dtype, as
    the reference does.
    """

    vocab_size: int
    ple_vocab_size: int
    hidden_size: int
    num_layers: int
    num_owners: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    ple_dim: int
    laurel_rank: int
    eps: float
    softcap: float
    context_length: int
    embedding_scale: float
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None
    ffn_width: tuple[int, ...]
    sparsity: tuple[float, ...]
    sparsity_z: tuple[float, ...]
    window: tuple[int, ...]
    rope_theta: tuple[float, ...]
    kv_source: tuple[int, ...]

    @property
    def last_owner(self) -> int:
        """The highest layer that writes K/V; above it a position is only needed where its logits
        are wanted.
        """
        return self.num_owners - 1

    @property
    def producers(self) -> frozenset[int]:
        """Owner layers whose K/V other layers read, and the last owner."""
        read = {source for layer, source in enumerate(self.kv_source) if source != layer}
        return frozenset(read | {self.last_owner})

    @property
    def ple_scale(self) -> float:
        """Factor of the rows of the PLE table: sqrt(P)."""
        return math.sqrt(self.ple_dim)

    @classmethod
    def from_json(cls, document: object) -> TextConfig:
        """Reads a parsed config.json. Raises ConfigError naming the key, the value and what is
        allowed.
        """
        return _translate(_text_section(document), _checkpoint_dtype(document))

    @classmethod
    def from_file(cls, path: Path) -> TextConfig:
        """Reads config.json at `path`. Raises ConfigError if it is missing, not JSON, or not a
        Gemma 3n text model.
        """
        return cls.from_json(read_document(path))


def read_document(path: Path) -> object:
    """The parsed config.json at `path`. Raises ConfigError if it is missing, not JSON or too
    large.
    """
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_FILE_BYTES} bytes; no config.json is")
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not a JSON document: {error}") from error
    return document


def _text_section(document: object) -> Mapping[str, object]:
    """The text part of a text-only or multimodal config."""
    if not isinstance(document, dict):
        raise ConfigError(f"config.json must hold an object, got {type(document).__name__}")
    model_type = document.get("model_type")
    if model_type not in _MODEL_TYPES:
        allowed = " or ".join(_MODEL_TYPES)
        raise ConfigError(
            f"model_type is {shown(model_type)}; this program runs {allowed} checkpoints"
        )
    if model_type == "gemma3n_text":
        return document
    section = document.get("text_config")
    if not isinstance(section, dict):
        raise ConfigError(
            f"text_config must be an object in a gemma3n config, got {shown(section)}"
        )
    return section


def _checkpoint_dtype(document: object) -> str:
    """`f32`, `bf16` or `f16`: the dtype the checkpoint says it is stored in; f32 if it says
    nothing.
    """
    places = [document, document.get("text_config")] if isinstance(document, dict) else []
    for place in places:
        for key in ("dtype", "torch_dtype"):
            value = place.get(key) if isinstance(place, dict) else None
            if value is None:
                continue
            if not isinstance(value, str) or value.removeprefix("torch.") not in _DTYPES:
                raise ConfigError(f"{key} is {shown(value)}; allowed: {', '.join(_DTYPES)}")
            return _DTYPES[value.removeprefix("torch.")]
    return "f32"


def _translate(values: Mapping[str, object], dtype: str) -> TextConfig:
    section = Section(values, "the text config", IGNORED_KEYS)
    hidden_size = section.integer("hidden_size", 2048, GROUP, _MAX_SIZE)
    num_layers = section.integer("num_hidden_layers", 35, 1, _MAX_LAYERS)
    num_shared = section.integer("num_kv_shared_layers", 15, 0, num_layers - 1)
    num_heads = section.integer("num_attention_heads", 8, 1, _MAX_SIZE)
    num_kv_heads = section.integer("num_key_value_heads", 2, 1, num_heads)
    head_dim = section.integer("head_dim", 256, 2, _MAX_SIZE)
    vocab_size = section.integer("vocab_size", 262_400, 1, _MAX_VOCAB)
    if num_heads % num_kv_heads or head_dim % 2 or num_heads * head_dim > _MAX_SIZE:
        raise ConfigError(
            f"{num_heads} heads, {num_kv_heads} key/value heads and head_dim {head_dim} do not "
            "fit: heads must be a "
            "multiple of key/value heads, head_dim even, and heads times head_dim at most "
            f"{_MAX_SIZE}"
        )
    _refuse_variants(section)
    num_owners = num_layers - num_shared
    layer_types = _layer_types(section.value("layer_types"), num_layers)
    sliding_window = section.integer("sliding_window", 512, 1, _MAX_CONTEXT)
    theta = _rope_thetas(section)
    sparsity = _sparsity(section.value("activation_sparsity_pattern"), num_layers)
    config = TextConfig(
        vocab_size=vocab_size,
        ple_vocab_size=section.integer("vocab_size_per_layer_input", 262_144, 1, _MAX_VOCAB),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_owners=num_owners,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        ple_dim=section.integer("hidden_size_per_layer_input", 256, 1, _MAX_SIZE),
        laurel_rank=section.integer("laurel_rank", 64, 1, _MAX_SIZE),
        eps=section.real("rms_norm_eps", 1e-6, 1e-12, 1.0),
        softcap=section.real("final_logit_softcapping", 30.0, 0.0, 1e6),
        context_length=section.integer("max_position_embeddings", 32_768, 1, _MAX_CONTEXT),
        embedding_scale=_rounded(math.sqrt(hidden_size), dtype),
        bos_id=section.optional_id("bos_token_id", vocab_size),
        eos_ids=_eos_ids(section.value("eos_token_id"), vocab_size),
        pad_id=section.optional_id("pad_token_id", vocab_size),
        ffn_width=_ffn_widths(section.value("intermediate_size"), num_layers),
        sparsity=sparsity,
        sparsity_z=tuple(map(normal_quantile, sparsity)),
        window=tuple(sliding_window if kind == SLIDING else 0 for kind in layer_types),
        rope_theta=tuple(theta[kind] for kind in layer_types),
        kv_source=_kv_sources(layer_types, num_owners),
    )
    section.refuse_unknown()
    return config


def _refuse_variants(section: Section) -> None:
    """Fields with one supported value; every published checkpoint has it."""
    section.must_be("hidden_activation", "gelu_pytorch_tanh")
    section.must_be("attention_bias", False)
    section.must_be("tie_word_embeddings", True)
    section.must_be("altup_num_inputs", NUM_STREAMS)
    section.must_be("altup_active_idx", 0)
    section.must_be("altup_correct_scale", True)


def _per_layer(
    key: str, value: object, num_layers: int, check: Callable[[str, object], object]
) -> tuple[object, ...]:
    """A list with one entry a layer, or one value for all of them."""
    if isinstance(value, list):
        if len(value) != num_layers:
            raise ConfigError(f"{key} has {len(value)} entries; expected {num_layers}, one a layer")
        return tuple(check(f"{key}[{layer}]", entry) for layer, entry in enumerate(value))
    return (check(key, value),) * num_layers


def _ffn_widths(value: object, num_layers: int) -> tuple[int, ...]:
    def check(key: str, entry: object) -> int:
        whole = isinstance(entry, int) and not isinstance(entry, bool)
        if not whole or not GROUP <= entry <= _MAX_SIZE or entry % GROUP:  # type: ignore[operator]
            raise ConfigError(
                f"{key} is {shown(entry)}; allowed: a multiple of {GROUP} from {GROUP} to "
                f"{_MAX_SIZE}"
            )
        return entry  # type: ignore[return-value]

    widths = _per_layer("intermediate_size", 16_384 if value is None else value, num_layers, check)
    return tuple(int(width) for width in widths)  # type: ignore[call-overload]


def _sparsity(value: object, num_layers: int) -> tuple[float, ...]:
    """The share of gates cut in each layer. The default is Gemma 3n's: ten sparse layers in
    front.
    """
    if value is None:
        num_sparse = 10 if num_layers > 10 else 0
        return (0.95,) * num_sparse + (0.0,) * (num_layers - num_sparse)

    def check(key: str, entry: object) -> float:
        share = real(key, 0.0 if entry is None else entry, 0.0, 0.999_999)
        if 0.0 < share < 0.5:
            raise ConfigError(
                f"{key} is {share}; allowed: 0 (dense) or from 0.5: fewer cut gates save nothing"
            )
        return share

    shares = _per_layer("activation_sparsity_pattern", value, num_layers, check)
    return tuple(float(share) for share in shares)  # type: ignore[arg-type]


def _layer_types(value: object, num_layers: int) -> tuple[str, ...]:
    if value is None:
        return tuple(FULL if layer % 5 == 4 else SLIDING for layer in range(num_layers))
    if not isinstance(value, list) or len(value) != num_layers:
        raise ConfigError(f"layer_types is {shown(value)}; expected a list of {num_layers} names")
    for layer, kind in enumerate(value):
        if kind not in (SLIDING, FULL):
            raise ConfigError(
                f"layer_types[{layer}] is {shown(kind)}; allowed: {SLIDING} or {FULL}"
            )
    return tuple(value)


def _kv_sources(layer_types: Sequence[str], num_owners: int) -> tuple[int, ...]:
    """Owners read themselves; readers the last owner of their own type, so that the RoPE base
    agrees.
    """
    last = {kind: layer for layer, kind in enumerate(layer_types[:num_owners])}
    for layer, kind in enumerate(layer_types[num_owners:], num_owners):
        if kind not in last:
            raise ConfigError(
                f"layer {layer} reads shared keys and values of type {kind}, but none of the "
                f"{num_owners} layers that "
                "own some is of that type; check layer_types and num_kv_shared_layers"
            )
    return tuple(
        layer if layer < num_owners else last[kind] for layer, kind in enumerate(layer_types)
    )


def _rope_thetas(section: Section) -> dict[str, float]:
    """RoPE base by layer type, from `rope_parameters` or the three older fields."""
    scaling = section.value("rope_scaling")
    if isinstance(scaling, dict):
        _rope_theta("rope_scaling", scaling, 0.0)
    elif scaling is not None:
        raise ConfigError(f"rope_scaling is {shown(scaling)}; allowed: null")
    thetas = {
        FULL: section.real("rope_theta", 1_000_000.0, 1.0, 1e12),
        SLIDING: section.real("rope_local_base_freq", 10_000.0, 1.0, 1e12),
    }
    parameters = section.value("rope_parameters")
    if parameters is None:
        return thetas
    if not isinstance(parameters, dict) or not set(parameters) <= set(thetas):
        raise ConfigError(f"rope_parameters is {shown(parameters)}; expected {FULL} and {SLIDING}")
    for kind, entry in parameters.items():
        if entry is not None:
            thetas[kind] = _rope_theta(f"rope_parameters.{kind}", entry, thetas[kind])
    return thetas


def _rope_theta(name: str, entry: object, default: float) -> float:
    if not isinstance(entry, dict):
        raise ConfigError(f"{name} is {shown(entry)}; expected an object")
    for key in ("rope_type", "type"):
        if entry.get(key, "default") != "default":
            raise ConfigError(f"{name}.{key} is {shown(entry[key])}; only 'default' is supported")
    unknown = sorted(set(entry) - _ROPE_IGNORED - {"rope_theta"})
    if unknown:
        raise ConfigError(
            f"unknown key {shown(unknown[0])} in {name}; scaled RoPE is not supported"
        )
    return (
        real(f"{name}.rope_theta", entry["rope_theta"], 1.0, 1e12)
        if "rope_theta" in entry
        else default
    )


def _eos_ids(value: object, vocab_size: int) -> tuple[int, ...]:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocab_size:
            raise ConfigError(f"eos_token_id is {shown(value)}; allowed: ids below {vocab_size}")
    return tuple(ids)


def normal_quantile(share: float) -> float:
    """Standard deviations above the mean that cut `share` of a normal distribution; 0.0 for a dense
    layer.

    Never exactly 0.0 for a sparse one, since 0.0 means dense to the kernels. Rounded the way the
    reference rounds: sqrt(2)·erfinv(2p - 1) with p, the argument and the result in float32.
    """
    if share <= 0.0:
        return 0.0
    argument = np.float32(2.0) * np.float32(share) - np.float32(1.0)
    quantile = np.float32(NormalDist().inv_cdf((float(argument) + 1.0) / 2.0))
    return float(quantile or np.finfo(np.float32).tiny)


def _rounded(value: float, dtype: str) -> float:
    if dtype == "f16":
        return float(np.float16(value))
    if dtype == "bf16":
        bits = int(np.float32(value).view(np.uint32))
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000  # nearest, ties to even
        return float(np.uint32(bits).view(np.float32))
    return float(np.float32(value))
