"""A MobileNet-V5 encoder in torch, written from the names and arithmetic of timm, and random
weights for it: the oracle of the picture encoder where timm is not installed.

An architecture is a list of stages of block strings as timm spells them, `uir_r1_a3_k5_s2_e6_c24`.
tests/parity/test_vision.py holds this oracle against timm itself where that is installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from matryo.tower_config import MediaIds, VisionConfig

F32 = npt.NDArray[np.float32]
Arch = Sequence[Sequence[str]]
State = dict[str, F32]

HIDDEN = 2048  # the one width that timm's encoder fixes
STEM = 16
# Every kind of block: both, one or neither of the depthwise convolutions, both kinds of attention.
TINY: Arch = (
    ("er_r1_k3_s2_e4_c16", "er_r1_k3_s1_e4_c16"),
    ("uir_r1_a3_k5_s2_e6_c24", "uir_r1_a5_k0_s1_e4_c24"),
    (
        "uir_r1_a5_k5_s2_e6_c32", "uir_r1_a0_k0_s1_e1_c32", "mqa_r1_k3_h3_v2_s1_d16_c32",
        "uir_r1_a0_k0_s1_e2_c32",
    ),
    (
        "uir_r1_a5_k0_s2_e4_c48", "uir_r1_a0_k3_s1_e2_c48", "mqa_r1_k3_h4_s1_d24_c48",
        "uir_r1_a0_k0_s1_e2_c48",
    ),
)  # fmt: skip
FULL: Arch = (
    ("er_r1_k3_s2_e4_c128", "er_r1_k3_s1_e4_c128", "er_r1_k3_s1_e4_c128"),
    (
        "uir_r1_a3_k5_s2_e6_c256",
        *("uir_r1_a5_k0_s1_e4_c256", "uir_r1_a3_k0_s1_e4_c256") * 2,
    ),
    (
        "uir_r1_a5_k5_s2_e6_c640",
        *("uir_r1_a5_k0_s1_e4_c640",) * 7,
        "uir_r1_a0_k0_s1_e1_c640",
        *("mqa_r1_k3_h12_v2_s1_d64_c640", "uir_r1_a0_k0_s1_e2_c640") * 14,
    ),
    (
        "uir_r1_a5_k5_s2_e6_c1280",
        *("mqa_r1_k3_h16_s1_d96_c1280", "uir_r1_a0_k0_s1_e2_c1280") * 19,
    ),
)
FULL_STEM = 64


def vision_config(side: int = 4) -> VisionConfig:
    """The config of an encoder whose features form a grid of side x side."""
    ids = MediaIds(begin=1, soft=11, end=10, count=side**2, first=10, size=4)
    return VisionConfig(
        ids=ids, hidden_size=HIDDEN, eps=1e-6, output_side=side, stage_strides=(2, 2, 2, 2)
    )


def parsed(block: str) -> tuple[str, dict[str, int]]:
    """`uir_r1_a3_k5_s2_e6_c24` -> ("uir", {"r": 1, "a": 3, "k": 5, "s": 2, "e": 6, "c": 24})."""
    kind, *options = block.split("_")
    pairs = [re.fullmatch(r"([a-z])(\d+)", option) for option in options]
    return kind, {pair[1]: int(pair[2]) for pair in pairs if pair is not None}


def shapes(arch: Arch, stem: int = STEM) -> dict[str, tuple[int, ...]]:
    """Every tensor under timm's names."""
    found: dict[str, tuple[int, ...]] = {
        "conv_stem.conv.weight": (stem, 3, 3, 3),
        "conv_stem.conv.bias": (stem,),
        "conv_stem.bn.weight": (stem,),
    }
    width, ends = stem, []
    for number, stage in enumerate(arch):
        for index, block in enumerate(stage):
            kind, options = parsed(block)
            tensors = _SHAPES[kind](width, options)
            found |= {f"blocks.{number}.{index}.{name}": size for name, size in tensors.items()}
            width = options["c"]
        ends.append(width)
    fused = sum(ends[-2:])
    found |= {
        "msfa.ffn.pw_exp.conv.weight": (2 * fused, fused, 1, 1),
        "msfa.ffn.pw_exp.bn.weight": (2 * fused,),
        "msfa.ffn.pw_proj.conv.weight": (HIDDEN, 2 * fused, 1, 1),
        "msfa.ffn.pw_proj.bn.weight": (HIDDEN,),
        "msfa.norm.weight": (HIDDEN,),
    }
    return found


def random_state(arch: Arch, stem: int = STEM, seed: int = 0) -> State:
    """Weights of a size that makes every norm, GELU and softmax matter."""
    rng = np.random.default_rng(seed)
    return {name: _random(name, shape, rng) for name, shape in shapes(arch, stem).items()}


def picture(height: int, width: int, seed: int = 0) -> F32:
    """Smooth colours with noise, (3, H, W) in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(x * rng.uniform(0.01, 0.3) + y * rng.uniform(0.01, 0.3) + n) for n in range(3)]
    noise = rng.uniform(-0.3, 0.3, (3, height, width))
    return np.clip(0.5 + 0.35 * np.stack(waves) + noise, 0, 1).astype(np.float32)


def features(state: Mapping[str, F32], arch: Arch, pixels: F32, side: int = 4) -> F32:
    """Features (side², HIDDEN) of one picture (3, H, W)."""
    weights = {name: torch.from_numpy(value) for name, value in state.items()}
    with torch.no_grad():
        x = torch.from_numpy(pixels)[None]
        x = _conv(x, weights["conv_stem.conv.weight"], 2, weights["conv_stem.conv.bias"])
        x = F.gelu(_norm(x, weights["conv_stem.bn.weight"]), approximate="tanh")
        ends = []
        for number, stage in enumerate(arch):
            for index, block in enumerate(stage):
                kind, options = parsed(block)
                here = f"blocks.{number}.{index}."
                own = {
                    name.removeprefix(here): value
                    for name, value in weights.items()
                    if name.startswith(here)
                }
                x = _FORWARD[kind](own, options, x)
            ends.append(x)
        fine, coarse = ends[-2:]
        size = fine.shape[-2:]
        x = torch.cat([fine, F.interpolate(coarse, size=size, mode="nearest")], 1)
        x = _pointwise(weights, "msfa.ffn.pw_exp", x, act=True)
        x = _pointwise(weights, "msfa.ffn.pw_proj", x)
        if size[0] % side or size[1] % side:
            x = F.interpolate(x, size=(side, side), mode="bilinear")
        else:
            x = F.avg_pool2d(x, (size[0] // side, size[1] // side))
        x = _norm(x, weights["msfa.norm.weight"])
        result: F32 = x[0].flatten(1).T.contiguous().numpy()
    return result


def _edge_shapes(width: int, o: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    wide = width * o["e"]
    return {
        "conv_exp.weight": (wide, width, o["k"], o["k"]),
        "bn1.weight": (wide,),
        "conv_pwl.weight": (o["c"], wide, 1, 1),
        "bn2.weight": (o["c"],),
    }


def _inverted_shapes(width: int, o: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    wide = width * o["e"]
    found: dict[str, tuple[int, ...]] = {}
    for name, channels, kernel in (("dw_start", width, o["a"]), ("dw_mid", wide, o["k"])):
        if kernel:
            found[f"{name}.conv.weight"] = (channels, 1, kernel, kernel)
            found[f"{name}.bn.weight"] = (channels,)
    return found | {
        "pw_exp.conv.weight": (wide, width, 1, 1),
        "pw_exp.bn.weight": (wide,),
        "pw_proj.conv.weight": (o["c"], wide, 1, 1),
        "pw_proj.bn.weight": (o["c"],),
        "layer_scale.gamma": (o["c"],),
    }


def _attention_shapes(width: int, o: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"norm.weight": (width,)}
    for name in ("key", "value"):
        if o.get("v", 1) > 1:
            found[f"attn.{name}.down_conv.weight"] = (width, 1, o["k"], o["k"])
            found[f"attn.{name}.norm.weight"] = (width,)
        found[f"attn.{name}.proj.weight"] = (o["d"], width, 1, 1)
    return found | {
        "attn.query.proj.weight": (o["h"] * o["d"], width, 1, 1),
        "attn.output.proj.weight": (width, o["h"] * o["d"], 1, 1),
        "layer_scale.gamma": (width,),
    }


def _edge(w: Mapping[str, torch.Tensor], o: Mapping[str, int], x: torch.Tensor) -> torch.Tensor:
    y = _norm(_conv(x, w["conv_exp.weight"], o["s"]), w["bn1.weight"])
    y = _conv(F.gelu(y, approximate="tanh"), w["conv_pwl.weight"], 1)
    y = _norm(y, w["bn2.weight"])
    return y + x if o["s"] == 1 and x.shape == y.shape else y


def _inverted(w: Mapping[str, torch.Tensor], o: Mapping[str, int], x: torch.Tensor) -> torch.Tensor:
    y = x
    if o["a"]:
        stride = 1 if o["k"] else o["s"]
        y = _norm(_conv(y, w["dw_start.conv.weight"], stride), w["dw_start.bn.weight"])
    y = _pointwise(w, "pw_exp", y, act=True)
    if o["k"]:
        y = _norm(_conv(y, w["dw_mid.conv.weight"], o["s"]), w["dw_mid.bn.weight"])
        y = F.gelu(y, approximate="tanh")
    y = _pointwise(w, "pw_proj", y) * w["layer_scale.gamma"][:, None, None]
    return y + x if o["s"] == 1 and x.shape == y.shape else y


def _attention(
    w: Mapping[str, torch.Tensor], o: Mapping[str, int], x: torch.Tensor
) -> torch.Tensor:
    y = _norm(x, w["norm.weight"])
    sides = []
    for name in ("key", "value"):
        z = y
        if o.get("v", 1) > 1:
            z = _conv(z, w[f"attn.{name}.down_conv.weight"], o["v"])
            z = _norm(z, w[f"attn.{name}.norm.weight"])
        sides.append(_conv(z, w[f"attn.{name}.proj.weight"], 1)[0].flatten(1).T)  # (M, kd)
    keys, values = sides
    queries = _conv(y, w["attn.query.proj.weight"], 1)[0].reshape(o["h"], o["d"], -1)
    scores = torch.einsum("hdn,md->hnm", queries, keys) / o["d"] ** 0.5
    attended = torch.einsum("hnm,md->hdn", scores.softmax(-1), values).flatten(0, 1)
    attended = attended.reshape(1, -1, *x.shape[-2:])
    out = _conv(attended, w["attn.output.proj.weight"], 1)
    return x + out * w["layer_scale.gamma"][:, None, None]


_SHAPES = {"er": _edge_shapes, "uir": _inverted_shapes, "mqa": _attention_shapes}
_FORWARD = {"er": _edge, "uir": _inverted, "mqa": _attention}


def _pointwise(
    w: Mapping[str, torch.Tensor], name: str, x: torch.Tensor, act: bool = False
) -> torch.Tensor:
    y = _norm(_conv(x, w[f"{name}.conv.weight"], 1), w[f"{name}.bn.weight"])
    return F.gelu(y, approximate="tanh") if act else y


def _conv(
    x: torch.Tensor, weight: torch.Tensor, stride: int, bias: torch.Tensor | None = None
) -> torch.Tensor:
    pads: list[int] = []
    for axis in (-1, -2):
        size, kernel = x.shape[axis], weight.shape[axis]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(F.pad(x, pads), weight, bias, stride, groups=groups)


def _norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6) * weight[:, None, None]


def _random(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> F32:
    if name.endswith("gamma"):
        mean, deviation = 0.5, 0.15
    elif name.endswith("bias"):
        mean, deviation = 0.0, 0.3
    elif len(shape) == 1:
        mean, deviation = 1.0, 0.2
    else:
        mean, deviation = 0.0, float(np.prod(shape[1:])) ** -0.5
        if name.endswith("query.proj.weight"):
            deviation *= 2.0  # softmax weights far from equal
    return (mean + deviation * rng.standard_normal(shape)).astype(np.float32)
