"""A dense decoder of transformers, whose gated FFNs can run at the first units alone.

In: a Hugging Face directory or a GGUF file of a Gemma 3, Llama, Qwen or any decoder with
`gate_proj`, `up_proj` and `down_proj` in every layer. Out: the model, each FFN of which takes a
`width` and shows its units to whoever asks. Weights, names and the result at full width stay as
they were.

d model · F units of an FFN
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModelForCausalLM

from matryo.config import GROUP
from matryo.errors import CheckpointError, ConfigError, InputError
from matryo.train.head import Head, softcap_of
from matryo.train.pretrained import read_model, read_tokenizer

FAMILIES = "Gemma 3, Llama, Qwen 2 or 3, Mistral or another with gate_proj, up_proj and down_proj"
_MATRICES = ("gate_proj", "up_proj", "down_proj")
_AGREE = 1e-5  # of the largest output: two orders of the same sums


class NarrowFfn:
    """Mixed into the class of an FFN: its first `width` units, which `watch` sees as they pass.

    watch: gets the activations (..., width) that the down matrix reads, and returns what it reads
    """

    width: int
    watch: Callable[[torch.Tensor], torch.Tensor] | None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., d) to the same shape."""
        ffn: Any = self
        down = ffn.down_proj
        units = ffn.act_fn(_rows(ffn.gate_proj, hidden, self.width)) * _rows(
            ffn.up_proj, hidden, self.width
        )
        if self.watch is not None:
            units = self.watch(units)
        return functional.linear(units, down.weight[:, : self.width], down.bias)


def _rows(linear: nn.Linear, hidden: torch.Tensor, width: int) -> torch.Tensor:
    bias = None if linear.bias is None else linear.bias[:width]
    return functional.linear(hidden, linear.weight[:width], bias)


def open_dense(source: Path) -> tuple[Any, Any]:
    """The model in float32, narrowable, and its tokenizer.

    Raises CheckpointError if the files cannot be read or lack a tensor, ConfigError if the
    architecture is none that can be narrowed.
    """
    is_gguf = source.suffix == ".gguf"
    if not (source.is_file() if is_gguf else (source / "config.json").is_file()):
        raise CheckpointError(
            "expected a Hugging Face directory with config.json, or a .gguf file", file=str(source)
        )
    model, tokenizer = read_model(AutoModelForCausalLM, source), read_tokenizer(source)
    # What was quantised is float32 now; without this transformers refuses to save it.
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
        model.hf_quantizer = None
    make_narrowable(model)
    model.train(False)
    return model, tokenizer


def make_narrowable(model: Any) -> list[Any]:
    """Lets the FFNs of a model follow a width; returns them, first layer first.

    Raises ConfigError if a layer has no gated FFN, or one that computes something else.
    """
    kind = str(getattr(model.config, "model_type", type(model).__name__))
    if kind.startswith("gemma3n"):
        raise ConfigError(f"{kind} is elastic already: train it with `matryo train`")
    found = []
    for number, layer in enumerate(model.get_decoder().layers):
        ffn: Any = getattr(layer, "mlp", None)
        matrices = [getattr(ffn, name, None) for name in _MATRICES]
        if not all(isinstance(matrix, nn.Linear) for matrix in matrices) or ffn.act_fn is None:
            raise ConfigError(
                f"layer {number} of {kind} has no gated FFN of three plain matrices (it has "
                f"{_described(ffn)}); expected {FAMILIES}"
            )
        if not isinstance(ffn, NarrowFfn):
            _narrow(ffn, number, kind)
        found.append(ffn)
    sizes = {ffn.gate_proj.out_features for ffn in found}
    if len(sizes) != 1:
        raise ConfigError(
            f"the FFNs of {kind} have {len(sizes)} different widths: config.json of transformers "
            "says one for all, so that a narrower model could not be written"
        )
    return found


def _described(ffn: Any) -> str:
    if ffn is None:
        return "no mlp"
    return f"{type(ffn).__name__}: {', '.join(name for name, _ in ffn.named_children()) or '-'}"


def _narrow(ffn: Any, number: int, kind: str) -> None:
    """Changes the class of `ffn` in place, if it then computes the same at full width."""
    probe = torch.linspace(-1.0, 1.0, 3 * ffn.gate_proj.in_features).reshape(3, -1)
    probe = probe.to(ffn.gate_proj.weight)
    plain = type(ffn)
    with torch.no_grad():
        wanted = ffn(probe)
        ffn.__class__ = type(f"Narrow{plain.__name__}", (NarrowFfn, plain), {})
        ffn.width, ffn.watch = ffn.gate_proj.out_features, None
        got = ffn(probe)
    if not bool(torch.isfinite(wanted).all()):
        ffn.__class__ = plain
        raise CheckpointError("holds weights that are no numbers", tensor=f"FFN of layer {number}")
    scale = float(wanted.abs().max())
    if wanted.shape != got.shape or not float((wanted - got).abs().max()) <= _AGREE * scale:
        ffn.__class__ = plain
        raise ConfigError(
            f"the FFN of layer {number} of {kind} computes more than "
            "down(act(gate(x)) * up(x)); it cannot be narrowed"
        )


def ffns(model: Any) -> list[Any]:
    """The narrowable FFNs of a model, first layer first."""
    return [layer.mlp for layer in model.get_decoder().layers]


def full_width(model: Any) -> int:
    """Units of each FFN."""
    width: int = ffns(model)[0].gate_proj.out_features
    return width


@contextmanager
def at_width(model: Any, width: int) -> Iterator[None]:
    """Inside the block every FFN uses its first `width` units."""
    every = ffns(model)
    before = [ffn.width for ffn in every]
    for ffn in every:
        ffn.width = width
    try:
        yield
    finally:
        for ffn, old in zip(every, before, strict=True):
            ffn.width = old


def widths_of(model: Any, shares: tuple[int, ...]) -> dict[str, int]:
    """`w25` and so on to units: percentages of the full width, rounded up to a multiple of 32.

    Raises InputError for shares that are none, or give one width twice.
    """
    full = full_width(model)
    found: dict[str, int] = {}
    for share in sorted({*shares, 100}):
        if not 1 <= share <= 100:
            raise InputError(f"a width of {share} %: expected percentages from 1 to 100")
        width = full if share == 100 else min(full, -(-full * share // (100 * GROUP)) * GROUP)
        if width in found.values():
            raise InputError(f"{share} % of {full} FFN units is {width}, as another width is")
        found[f"w{share}"] = width
    return found


def hidden_states(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Final hidden states (B, T, d), after the last norm."""
    hidden: torch.Tensor = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


def head_of(model: Any, ids: torch.Tensor) -> Head:
    """Final states for ids (B, T), and what makes logits of them."""
    weight = model.get_output_embeddings().weight
    return Head(hidden_states(model, ids), weight, softcap_of(model))


@torch.no_grad()
def is_plain_head(model: Any) -> bool:
    """Whether the logits are a product and a cap, and nothing more (a bias, a scale)."""
    ids = torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size
    wanted = model(input_ids=ids, use_cache=False).logits
    got = head_of(model, ids).logits()
    return torch.allclose(wanted, got, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def check_head(model: Any) -> None:
    """Raises ConfigError if the logits are more than a product and a cap (a bias, a scale)."""
    if not is_plain_head(model):
        raise ConfigError(
            f"{model.config.model_type} computes its logits from more than the last hidden states "
            "and one matrix; it can be ordered but not recovered: give --steps 0"
        )
