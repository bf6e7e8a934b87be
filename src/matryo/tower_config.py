"""The shapes of the encoders for pictures and sound, and the ids that stand for what they see and
hear.

In: the parsed JSON of a multimodal (`gemma3n`) config.json, untrusted. Out: a frozen `TowerConfig`
with a `VisionConfig` and an `AudioConfig`, None for a tower that the config does not have. What the
shapes of tensors say (channels, heads, kernels of the picture encoder) is not repeated here.
Source: transformers `configuration_gemma3n.py`, timm `mobilenetv5.py` (names, defaults).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matryo.config import IGNORED_KEYS, TextConfig, read_document
from matryo.config_section import Section, shown
from matryo.errors import ConfigError

_MAX_SIZE, _MAX_IDS, _MAX_TOKENS, _MAX_LAYERS = 1 << 20, 1 << 24, 1 << 16, 4096

_CLASSIFIER_KEYS = dict.fromkeys(
    ("num_classes", "label_names", "id2label", "label2id"), "an encoder has no classes"
)
_VISION_IGNORED = {
    **IGNORED_KEYS,
    **_CLASSIFIER_KEYS,
    "do_pooling": "the language model always reads the whole grid",
    "num_channels": "the stem's shape says it",
    "pretrained_cfg": "describes the training of another checkpoint",
}
_AUDIO_IGNORED = {**IGNORED_KEYS, **_CLASSIFIER_KEYS}
_TOP_IGNORED = {
    **IGNORED_KEYS,
    "text_config": "read by config.py",
    "eos_token_id": "read by config.py and generation_config.json",
    "bos_token_id": "read by config.py",
    "pad_token_id": "read by config.py",
    "vocab_size": "read by config.py",
    "hidden_size": "read by config.py",
}
_MODEL_ARGS_IGNORED = {
    "stem_size": "the stem's shape says it",
    "fix_stem": "the stem's shape says it",
    "stem_bias": "the stem's tensors say it",
    "layer_scale_init_value": "acts before training only",
    "drop_rate": "acts in training only",
    "drop_path_rate": "acts in training only",
}
_BLOCK_IGNORED = dict.fromkeys(
    """out_chs exp_kernel_size pw_kernel_size exp_ratio force_in_chs dw_kernel_size_start
    dw_kernel_size_mid dw_kernel_size_end dw_kernel_size num_heads key_dim value_dim""".split(),
    "tensor shapes say it",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaIds:
    """The ids of one kind of media.

    begin, end: around one picture or clip · soft: each stands for one feature of the encoder
    count: soft ids of one picture or clip · first, size: ids with a row of their own in the table
    of hard embeddings: [first, first + size)
    """

    begin: int
    soft: int
    end: int
    count: int
    first: int
    size: int

    @property
    def padding(self) -> int:
        """The last id of the table, which stands where there is no sound."""
        return self.first + self.size - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionConfig:
    """A MobileNet-V5 encoder: what its tensors' shapes do not say.

    hidden_size: of a feature · eps: of the embedder's norms · output_side: of the grid of features
    stage_strides: of the first block of each stage, None = 2 everywhere
    """

    ids: MediaIds
    hidden_size: int
    eps: float
    output_side: int
    stage_strides: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioConfig:
    """A USM conformer encoder.

    num_mels: bins of a frame · past_frames: frames before its own that a frame attends to
    conv_kernel: taps of the light convolution · reduction: encoder frames of one token
    stem_channels, group_norm_eps: of the two convolutions that shorten time by four
    residual_weight: of the half-step feed-forwards · clip: bound of activations
    """

    ids: MediaIds
    hidden_size: int
    eps: float
    num_mels: int
    num_layers: int
    num_heads: int
    head_dim: int
    past_frames: int
    logit_cap: float
    conv_kernel: int
    reduction: int
    residual_weight: float
    stem_channels: tuple[int, int]
    group_norm_eps: float
    clip: float

    @property
    def frames_per_token(self) -> int:
        """Mel frames of one token."""
        return 4 * self.reduction


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerConfig:
    """The encoders of a checkpoint; None for one it does not have."""

    vision: VisionConfig | None
    audio: AudioConfig | None

    @classmethod
    def from_json(cls, document: object) -> TowerConfig:
        """Reads a parsed config.json; of a text-only one there are no towers.

        Raises ConfigError naming the key, the value and what is allowed.
        """
        text = TextConfig.from_json(document)
        if not isinstance(document, dict) or document["model_type"] == "gemma3n_text":
            return NO_TOWERS
        top = Section(document, "config.json", _TOP_IGNORED)
        top.must_be("quantization_config", None)
        top.must_be("tie_word_embeddings", True)
        vision = _vision(top, _section(top, "vision_config"), text)
        audio = _audio(top, _section(top, "audio_config"), text)
        top.refuse_unknown()
        if vision is not None and audio is not None:
            _check_ranges(vision.ids, audio.ids, text)
        return cls(vision=vision, audio=audio)

    @classmethod
    def from_file(cls, path: Path) -> TowerConfig:
        """Reads config.json at `path`. Raises ConfigError if it cannot be used."""
        return cls.from_json(read_document(path))


NO_TOWERS = TowerConfig(vision=None, audio=None)


def _section(top: Section, key: str) -> Mapping[str, object] | None:
    value = top.value(key)
    if value is None or isinstance(value, dict):
        return value
    raise ConfigError(f"{key} is {shown(value)}; expected an object")


def _vision(
    top: Section, values: Mapping[str, object] | None, text: TextConfig
) -> VisionConfig | None:
    ids = ("boi_token_id", "image_token_id", "eoi_token_id", "vision_soft_tokens_per_image")
    if values is None:
        _skip(top, ids)
        return None
    section = Section(values, "vision_config", _VISION_IGNORED)
    section.must_be("model_type", "gemma3n_vision")
    section.must_be("architecture", "mobilenetv5_300m_enc")
    stage_strides, output_side = _model_args(section.value("model_args"))
    config = VisionConfig(
        ids=_media_ids(top, section, text, ids, (255_999, 262_145, 262_144, 256), 262_144),
        hidden_size=section.integer("hidden_size", 2048, 1, _MAX_SIZE),
        eps=section.real("rms_norm_eps", 1e-6, 1e-12, 1.0),
        output_side=output_side,
        stage_strides=stage_strides,
    )
    section.refuse_unknown()
    if config.ids.count != output_side**2:
        raise ConfigError(
            f"vision_soft_tokens_per_image is {config.ids.count}; the encoder gives a grid of "
            f"{output_side} x {output_side}"
        )
    return config


def _model_args(value: object) -> tuple[tuple[int, ...] | None, int]:
    """Strides of the stages and the side of the grid, from timm's arguments."""
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"model_args is {shown(value)}; expected an object or null")
    section = Section(value or {}, "model_args", _MODEL_ARGS_IGNORED)
    section.must_be("pad_type", "same")
    section.must_be("in_chans", 3)
    section.must_be("msfa_indices", [-2, -1])
    side = section.integer("msfa_output_resolution", 16, 1, 256)
    stages = section.value("block_args")
    section.refuse_unknown()
    if stages is None:
        return None, side
    if not isinstance(stages, list) or not 2 <= len(stages) <= 16:
        raise ConfigError(f"block_args is {shown(stages)}; expected a list of 2 to 16 stages")
    strides = tuple(_stage_stride(f"block_args[{n}]", stage) for n, stage in enumerate(stages))
    total = 2
    for stride in strides:
        total *= stride
    if total > 32:  # beyond 32 timm dilates instead
        raise ConfigError(f"block_args divide the picture by {total}; allowed: at most 32")
    return strides, side


def _stage_stride(name: str, stage: object) -> int:
    """The stride of a stage's first block; the others have none."""
    if not isinstance(stage, list) or not stage or len(stage) > _MAX_LAYERS:
        raise ConfigError(f"{name} is {shown(stage)}; expected a list of blocks")
    strides = []
    for number, block in enumerate(stage):
        where = f"{name}[{number}]"
        if not isinstance(block, dict):
            raise ConfigError(f"{where} is {shown(block)}; expected an object")
        section = Section(block, where, _BLOCK_IGNORED)
        if section.value("block_type") not in ("er", "uir", "mqa"):
            raise ConfigError(
                f"{where}.block_type is {shown(block.get('block_type'))}; allowed: er, uir or mqa"
            )
        section.must_be("act_layer", None)
        section.must_be("noskip", False)
        section.must_be("group_size", None)
        section.real("se_ratio", 0.0, 0.0, 0.0)
        section.integer("kv_stride", 1, 1, 2)
        strides.append(section.integer("stride", 1, 1, 2))
        section.refuse_unknown()
    return strides[0]


def _audio(
    top: Section, values: Mapping[str, object] | None, text: TextConfig
) -> AudioConfig | None:
    ids = ("boa_token_id", "audio_token_id", "eoa_token_id", "audio_soft_tokens_per_image")
    if values is None:
        _skip(top, ids)
        return None
    section = Section(values, "audio_config", _AUDIO_IGNORED)
    section.must_be("model_type", "gemma3n_audio")
    section.must_be("conf_attention_context_right", 0)
    section.must_be("sscp_conv_kernel_size", [[3, 3], [3, 3]])
    section.must_be("sscp_conv_stride_size", [[2, 2], [2, 2]])
    # The reference attends in chunks; the band of past frames is the same for every chunk size.
    section.integer("conf_attention_chunk_size", 12, 1, _MAX_TOKENS)
    hidden_size = section.integer("hidden_size", 1536, 2, _MAX_SIZE)
    num_heads = section.integer("conf_num_attention_heads", 8, 1, _MAX_SIZE)
    if hidden_size % (2 * num_heads):
        raise ConfigError(
            f"hidden_size {hidden_size} of audio_config; expected an even multiple of the "
            f"{num_heads} heads"
        )
    config = AudioConfig(
        ids=_media_ids(top, section, text, ids, (256_000, 262_273, 262_272, 188), 262_272),
        hidden_size=hidden_size,
        eps=section.real("rms_norm_eps", 1e-6, 1e-12, 1.0),
        num_mels=section.integer("input_feat_size", 128, 1, 4096),
        num_layers=section.integer("conf_num_hidden_layers", 12, 1, _MAX_LAYERS),
        num_heads=num_heads,
        head_dim=hidden_size // num_heads,
        past_frames=section.integer("conf_attention_context_left", 13, 1, 4096) - 1,
        logit_cap=section.real("conf_attention_logit_cap", 50.0, 1e-3, 1e6),
        conv_kernel=section.integer("conf_conv_kernel_size", 5, 1, 256),
        reduction=section.integer("conf_reduction_factor", 4, 1, 256),
        residual_weight=section.real("conf_residual_weight", 0.5, -1e3, 1e3),
        stem_channels=_channels(section.value("sscp_conv_channel_size")),
        group_norm_eps=section.real("sscp_conv_group_norm_eps", 1e-3, 1e-12, 1.0),
        clip=section.real("gradient_clipping", 1e10, 1e-3, 1e38),
    )
    section.refuse_unknown()
    return config


def _channels(value: object) -> tuple[int, int]:
    if value is None:
        return 128, 32
    sizes = value if isinstance(value, list) else []
    if len(sizes) != 2 or any(type(n) is not int or not 1 <= n <= 65_536 for n in sizes):
        raise ConfigError(f"sscp_conv_channel_size is {shown(value)}; expected two whole numbers")
    return sizes[0], sizes[1]


def _media_ids(
    top: Section,
    section: Section,
    text: TextConfig,
    keys: tuple[str, str, str, str],
    defaults: tuple[int, int, int, int],
    offset: int,
) -> MediaIds:
    """Ids of one kind. Raises ConfigError for ids that the vocabulary does not have."""
    last = text.vocab_size - 1
    begin, soft, end = (
        top.integer(key, default, 0, last)
        for key, default in zip(keys[:3], defaults[:3], strict=True)
    )
    first = section.integer("vocab_offset", offset, 0, _MAX_IDS)
    size = section.integer("vocab_size", 128, 1, _MAX_IDS)
    if first + size > text.vocab_size or first < text.ple_vocab_size:
        raise ConfigError(
            f"vocab_offset {first} and vocab_size {size} do not fit: the ids of pictures and sound "
            f"are {text.ple_vocab_size} to {last}"
        )
    if not first <= soft < first + size or begin == soft or end == soft:
        raise ConfigError(
            f"{keys[1]} is {soft}; allowed: an id from {first} to {first + size - 1} that neither "
            "begins nor ends"
        )
    count = top.integer(keys[3], defaults[3], 1, _MAX_TOKENS)
    return MediaIds(begin=begin, soft=soft, end=end, count=count, first=first, size=size)


def _skip(top: Section, keys: tuple[str, ...]) -> None:
    """Ids of a tower that is not there are not looked at."""
    for key in keys:
        top.value(key)


def _check_ranges(vision: MediaIds, audio: MediaIds, text: TextConfig) -> None:
    """Hard rows lie in one table: pictures, then sound, above the text ids without a gap."""
    ends = (vision.first, vision.first + vision.size, audio.first + audio.size)
    expected = (text.ple_vocab_size, audio.first, text.vocab_size)
    if ends != expected:
        raise ConfigError(
            f"the ids of pictures {ends[:2]} and of sound {(audio.first, ends[2])} do not fill "
            f"{text.ple_vocab_size} to {text.vocab_size} without a gap"
        )
