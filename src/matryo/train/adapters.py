"""LoRA on a nested model: small factors beside frozen matrices, at every width.

In: a nested model, rank and targets. Out: the same model with peft's layers in it; a pass at a plan
cuts the factors of FFN matrices as it cuts the matrices: the first rows of B for gate and up, the
first columns of A for down. So every size shares one adapter, and merging it and cutting a size out
commute. On disk it is peft's layout: `PeftModel.from_pretrained` opens it.
Source: arXiv 2106.09685.

d model · F units of an FFN · r rank
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional

from matryo.checkpoint.atomic import replace_text, replacing
from matryo.errors import CheckpointError, ConfigError
from matryo.plan import Plan
from matryo.train.decoder import NestedMLP
from matryo.train.nested import LanguageModel, text_part
from matryo.train.recipe import AdapterRecipe

FFN = ("gate_proj", "up_proj", "down_proj")
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_NAME = "default"  # peft's own for the only adapter of a model
_PREFIX = "base_model.model."  # peft's own for what it wraps


class AdaptedMLP(NestedMLP):
    """The FFN restricted to its first `width` units, with the factors of them."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, T, d) to the same shape."""
        width = self.width
        gate = _rows(self.gate_proj, hidden_states, width)
        if self.activation_sparsity > 0.0:
            gate = self._gaussian_topk(gate)
        units = self.act_fn(gate) * _rows(self.up_proj, hidden_states, width)
        return _columns(self.down_proj, units, width)


def _rows(linear: Any, x: torch.Tensor, width: int) -> torch.Tensor:
    """The first `width` outputs."""
    out = functional.linear(x, linear.weight[:width])
    for first, second, dropout, scale in _factors(linear):
        out = out + functional.linear(functional.linear(dropout(x), first), second[:width]) * scale
    return out


def _columns(linear: Any, x: torch.Tensor, width: int) -> torch.Tensor:
    """All outputs from the first `width` inputs."""
    out = functional.linear(x, linear.weight[:, :width])
    for first, second, dropout, scale in _factors(linear):
        inner = functional.linear(dropout(x), first[:, :width])
        out = out + functional.linear(inner, second) * scale
    return out


def _factors(linear: Any) -> Sequence[tuple[torch.Tensor, torch.Tensor, Any, float]]:
    """A (r, in), B (out, r), dropout and scale of a matrix that has them."""
    if not hasattr(linear, "lora_A"):
        return ()
    return [
        (linear.lora_A[name].weight, linear.lora_B[name].weight,
         linear.lora_dropout[name], linear.scaling[name])
        for name in linear.active_adapters
    ]  # fmt: skip


def attach(model: LanguageModel, recipe: AdapterRecipe) -> list[str]:
    """Freezes a nested model and puts factors into it; returns the names of what has them.

    Draws from torch's generator: seed it. Raises ConfigError without peft.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ConfigError("adapters need peft; pip install 'matryo[train]'") from error
    names = target_names(model, recipe.targets)
    model.requires_grad_(False)
    model.add_adapter(
        LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,  # type: ignore[arg-type]
            lora_dropout=recipe.dropout,
            target_modules=names,
        )
    )
    for layer in text_part(model).layers:
        layer.mlp.__class__ = AdaptedMLP
    model.train(model.training)  # new modules begin in training mode
    return names


def target_names(model: LanguageModel, targets: Sequence[str]) -> list[str]:
    """Full names of the decoder's matrices; keys and values that no layer computes are left out."""
    known = {id(module): name for name, module in model.named_modules()}
    found = []
    for layer in text_part(model).layers:
        for target in targets:
            part = layer.mlp if target in FFN else layer.self_attn
            reads = target in ("k_proj", "v_proj") and part.is_kv_shared_layer
            if not reads and (matrix := getattr(part, target, None)) is not None:
                found.append(known[id(matrix)])
    return found


def save(model: LanguageModel, directory: Path, base: str) -> None:
    """Writes the adapter in peft's layout; base: what it belongs to, a path or a name."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {
        f"{_PREFIX}{name.replace(f'.{_NAME}.', '.')}": value.detach().contiguous().cpu()
        for name, value in model.named_parameters()
        if ".lora_" in name
    }
    _write(state, directory / WEIGHTS)
    adapted: Any = model
    config = adapted.peft_config[_NAME].to_dict()
    config |= {"base_model_name_or_path": base, "task_type": "CAUSAL_LM", "inference_mode": True}
    config["target_modules"] = sorted(config["target_modules"])
    replace_text(directory / CONFIG, json.dumps(config, indent=1, default=str) + "\n")


def _write(state: Mapping[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save as to_bytes

    with replacing(path) as file:
        file.write(to_bytes(dict(state), {"format": "pt"}))


def merge(model: LanguageModel) -> None:
    """Adds every product of factors to its matrix; the model is then as it was before `attach`."""
    for name, module in list(model.named_modules()):
        if hasattr(module, "lora_A"):
            adapted: Any = module
            adapted.merge()
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, adapted.get_base_layer())
    for layer in text_part(model).layers:
        layer.mlp.__class__ = NestedMLP
    del model.peft_config
    model._hf_peft_config_loaded = False
    model.requires_grad_(True)


def cut(source: Path, plan: Plan, target: Path) -> None:
    """The adapter of the checkpoint that `plan` cuts out, in a directory of its own.

    Raises CheckpointError if `source` holds no adapter in peft's layout.
    """
    try:
        state = load_file(source / WEIGHTS)
        config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
    except Exception as error:  # whatever a broken file makes its readers raise
        raise CheckpointError("holds no adapter in peft's layout", file=str(source)) from error
    place = {layer: number for number, layer in enumerate(plan.layers)}
    widths = dict(zip(plan.layers, plan.ffn_width, strict=True))
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        moved = _moved(name, place)
        if moved is None:
            continue
        width = widths[_layer(name)]
        if ".down_proj.lora_A" in name:
            value = value[:, :width]
        elif ".gate_proj.lora_B" in name or ".up_proj.lora_B" in name:
            value = value[:width]
        found[moved] = value.contiguous()
    targets = [_moved(name, place) for name in config["target_modules"]]
    config["target_modules"] = sorted(name for name in targets if name is not None)
    config["base_model_name_or_path"] = None
    target.mkdir(parents=True, exist_ok=True)
    _write(found, target / WEIGHTS)
    replace_text(target / CONFIG, json.dumps(config, indent=1) + "\n")


def _layer(name: str) -> int:
    parts = name.split(".")
    return int(parts[parts.index("layers") + 1])


def _moved(name: str, place: Mapping[int, int]) -> str | None:
    """The name with its layer's new number; None if the layer is left out."""
    parts = name.split(".")
    if "layers" not in parts:
        return name
    number = parts.index("layers") + 1
    if int(parts[number]) not in place:
        return None
    return ".".join([*parts[:number], str(place[int(parts[number])]), *parts[number + 1 :]])
