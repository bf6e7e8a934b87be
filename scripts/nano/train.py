"""Train `matryo-nano`, a small Gemma 3n text model, jointly over its nested plans.

In: `CACHE` as written by `prepare.py`. Out: `OUTPUT/hf` (a Hugging Face directory with
`plans.json`), `OUTPUT/state.pt` (for resuming) and `OUTPUT/log.jsonl` (one line per report).

Each step samples one plan: the full model half of the time, else a smaller one.
Weights are kept in float32; the forward pass runs on a copy in `--compute`: float32, or bfloat16 on
processors that multiply it (elsewhere it is emulated and tens of times slower). Matrices follow
Muon (orthogonalised momentum), embeddings and vectors AdamW. The learning rate warms up, stays
constant and falls to zero over the last part (`--decay`), so `--steps` may be changed on resuming.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Gemma3nForCausalLM, Gemma3nTextConfig, GenerationConfig

from nested import Plan, nest, set_plan

RUNGS = (128, 256, 384)
LAYERS = tuple(range(8))
WITHOUT_PAIR = (0, 1, 2, 3, 6, 7)  # layers 4 and 5 share other layers' keys and values
PLANS = {
    "small": Plan(WITHOUT_PAIR, (128,) * 6),
    "medium": Plan(LAYERS, (256,) * 8),
    "large": Plan(LAYERS, (384,) * 8),
}
MIXTURE = {"prose": 0.36, "core": 0.38, "common": 0.14, "chat": 0.12}


def configuration() -> Gemma3nTextConfig:
    """Return the shape of matryo-nano."""
    return Gemma3nTextConfig(
        vocab_size=4096,
        vocab_size_per_layer_input=4096,
        hidden_size=128,
        hidden_size_per_layer_input=32,
        intermediate_size=[RUNGS[-1]] * len(LAYERS),
        num_hidden_layers=len(LAYERS),
        layer_types=["sliding_attention", "full_attention"] * 4,
        num_kv_shared_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        sliding_window=128,
        max_position_embeddings=1024,
        activation_sparsity_pattern=[0.95, 0.95] + [0.0] * 6,
        altup_num_inputs=4,
        laurel_rank=16,
        final_logit_softcapping=30.0,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )


def new_model(seed: int) -> Gemma3nForCausalLM:
    """Return the model with random weights, its AltUp parts as in the JAX release."""
    torch.manual_seed(seed)
    model = Gemma3nForCausalLM(configuration())
    for layer in model.model.layers:
        torch.nn.init.ones_(layer.altup.correct_output_scale)
        torch.nn.init.normal_(layer.altup.correction_coefs.weight, std=1e-2)
        torch.nn.init.normal_(layer.altup.prediction_coefs.weight, std=1e-4)
    return model


def sample_plan(rng: np.random.Generator) -> Plan:
    """Return large, small, medium or a random mix of widths with or without layers 4 and 5."""
    kind = str(rng.choice(["large", "small", "medium", "mix"], p=[0.5, 0.22, 0.16, 0.12]))
    if kind in PLANS:
        return PLANS[kind]
    layers = WITHOUT_PAIR if rng.random() < 0.5 else LAYERS
    return Plan(layers, tuple(int(w) for w in rng.choice(RUNGS, len(layers))))


class Windows:
    """Endless shuffled windows of every pool, mixed by MIXTURE; its position can be saved."""

    def __init__(self, path: Path, seed: int) -> None:
        arrays = np.load(path)
        self.train = {pool: arrays[f"train_{pool}"] for pool in MIXTURE}
        self.test = {pool: arrays[f"test_{pool}"] for pool in ("prose", "common")}
        self.seed, self.used = seed, dict.fromkeys(MIXTURE, 0)

    def batch(self, size: int, rng: np.random.Generator) -> torch.Tensor:
        """Return [size, WINDOW + 1] token ids."""
        rows = []
        for pool in rng.choice(list(MIXTURE), size, p=list(MIXTURE.values())):
            count = len(self.train[pool])
            epoch, index = divmod(self.used[pool], count)
            order = np.random.default_rng([self.seed, epoch, len(pool)]).permutation(count)
            rows.append(self.train[pool][order[index]])
            self.used[pool] += 1
        return torch.from_numpy(np.stack(rows).astype(np.int64))


def loss_of(model: Gemma3nForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy in nats; padding is not counted."""
    labels = rows.masked_fill(rows == 0, -100)
    loss: torch.Tensor = model(input_ids=rows, labels=labels, use_cache=False).loss
    return loss


@torch.no_grad()
def held_out_losses(model: Gemma3nForCausalLM, windows: Windows) -> dict[str, float]:
    """Return the loss of each plan on a fixed sample of held-out prose and definitions."""
    losses = {}
    for name, plan in PLANS.items():
        set_plan(model, plan)
        for pool, array in windows.test.items():
            rows = torch.from_numpy(array[:12].astype(np.int64))
            losses[f"{name}/{pool}"] = round(loss_of(model, rows).item(), 4)
    return losses


def orthogonalised(flat: torch.Tensor) -> torch.Tensor:
    """Return a matrix with about the same singular vectors and singular values near one.

    Five steps of the quintic Newton-Schulz iteration of Muon (Keller Jordan, 2024).
    """
    tall = flat.shape[0] > flat.shape[1]
    x = flat.T if tall else flat
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x


class Optimizer:
    """Muon for the layers' matrices, AdamW for the rest, on float32 copies of the weights."""

    def __init__(self, model: Gemma3nForCausalLM, rates: argparse.Namespace) -> None:
        self.rates, self.weights, self.live = rates, {}, dict(model.named_parameters())
        self.muon: dict[str, torch.Tensor] = {}
        groups: dict[float, list[torch.Tensor]] = {rates.embedding_rate: [], rates.vector_rate: []}
        for name, parameter in self.live.items():
            master = parameter.detach().float().clone()
            self.weights[name] = master
            if "embed_tokens" in name:
                groups[rates.embedding_rate].append(master)
            elif parameter.ndim == 2 and "altup." not in name:
                self.muon[name] = torch.zeros_like(master)
            else:
                groups[rates.vector_rate].append(master)
            parameter.data = parameter.data.to(getattr(torch, rates.compute))
        self.adam = torch.optim.AdamW(
            [{"params": p, "lr": r, "peak": r} for r, p in groups.items()],
            betas=(0.9, 0.95), weight_decay=0.0, fused=True,
        )  # fmt: skip

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Apply the gradients with all learning rates multiplied by `scale`."""
        for name, parameter in self.live.items():
            self.weights[name].grad = None
            if parameter.grad is None:  # a skipped layer
                continue
            gradient = parameter.grad.float()
            parameter.grad = None
            if name in self.muon:
                momentum, master = self.muon[name], self.weights[name]
                momentum.mul_(0.95).add_(gradient)
                update = orthogonalised(gradient.add_(momentum, alpha=0.95))
                rate = self.rates.matrix_rate * scale
                master.mul_(1 - rate * self.rates.weight_decay)
                master.add_(update, alpha=-rate * max(1, update.shape[0] / update.shape[1]) ** 0.5)
            else:
                self.weights[name].grad = gradient
        for group in self.adam.param_groups:
            group["lr"] = group["peak"] * scale
        self.adam.step()
        for name, parameter in self.live.items():
            parameter.data.copy_(self.weights[name])

    def state(self) -> dict[str, object]:
        """Return everything needed to continue."""
        return {"weights": self.weights, "muon": self.muon, "adam": self.adam.state_dict()}

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Continue from `state`; also fills the model's own weights."""
        for target, source in ((self.weights, state["weights"]), (self.muon, state["muon"])):
            for name, tensor in target.items():
                tensor.copy_(source[name])
        self.adam.load_state_dict(state["adam"])
        for name, parameter in self.live.items():
            parameter.data.copy_(self.weights[name])


def rate_scale(step: int, arguments: argparse.Namespace) -> float:
    """Return the learning rate as a share of its peak: warm-up, plateau, linear decay."""
    start = arguments.steps * (1 - arguments.decay)
    falling = (arguments.steps - step) / max(1.0, arguments.steps - start)
    return max(0.0, min(1.0, (step + 1) / float(arguments.warmup), float(falling)))


def replace_folder(fresh: Path, target: Path) -> None:
    """Put `fresh` in the place of `target`, which readers see either old or new."""
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def export(optimizer: Optimizer, cache: Path, output: Path) -> None:
    """Write OUTPUT/hf: weights in bfloat16, configuration, tokenizer, plans."""
    fresh = output / "hf.new"
    shutil.rmtree(fresh, ignore_errors=True)
    model = Gemma3nForCausalLM(configuration())
    model.load_state_dict({n: w.bfloat16() for n, w in optimizer.weights.items()}, strict=False)
    model.to(torch.bfloat16)  # buffers are rounded too, but only parameters are saved
    model.generation_config = GenerationConfig(
        bos_token_id=2, eos_token_id=[1, 106], pad_token_id=0,
        do_sample=True, temperature=0.7, top_k=64, top_p=0.95,
    )  # fmt: skip
    model.save_pretrained(fresh)
    shutil.copytree(cache / "tokenizer", fresh, dirs_exist_ok=True)
    plans = {n: {"layers": p.layers, "ffn_width": p.ffn_width} for n, p in PLANS.items()}
    plans |= {"e2b": plans["small"], "e4b": plans["large"]}
    (fresh / "plans.json").write_text(json.dumps(plans, indent=1) + "\n")
    replace_folder(fresh, output / "hf")


def save(output: Path, optimizer: Optimizer, progress: dict[str, object]) -> None:
    """Write the resumable state atomically."""
    temporary = output / "state.tmp"
    torch.save({"optimizer": optimizer.state(), **progress}, temporary)
    os.replace(temporary, output / "state.pt")


def train(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Train to `arguments.steps`; yield one report every `arguments.every` steps."""
    torch.set_num_threads(arguments.threads)
    cache, output = arguments.cache, arguments.output
    windows = Windows(cache / "windows.npz", arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    model = new_model(arguments.seed)
    model.set_attn_implementation("eager")
    nest(model)
    optimizer, step, seconds = Optimizer(model, arguments), 0, 0.0
    if (output / "state.pt").exists():
        state = torch.load(output / "state.pt", weights_only=False)
        optimizer.load(state["optimizer"])
        step, seconds, windows.used = state["step"], state["seconds"], state["used"]
        rng.bit_generator.state = state["rng"]
    else:
        export(optimizer, cache, output)
    saved, recent = time.monotonic(), []
    while step < arguments.steps:
        start, plan = time.monotonic(), sample_plan(rng)
        set_plan(model, plan)
        loss = loss_of(model, windows.batch(arguments.batch, rng))
        loss.backward()
        optimizer.step(rate_scale(step, arguments))
        step, elapsed = step + 1, time.monotonic() - start
        seconds += elapsed
        recent.append((plan == PLANS["large"], loss.item(), elapsed))
        last = step == arguments.steps
        if step % arguments.every == 0 or last:
            pace = sum(r[2] for r in recent) / len(recent)
            large = [r[1] for r in recent if r[0]] or [math.nan]
            other = [r[1] for r in recent if not r[0]] or [math.nan]
            report: dict[str, object] = {
                "step": step,
                "loss_large": round(sum(large) / len(large), 4),
                "loss_smaller": round(sum(other) / len(other), 4),
                "tokens": step * arguments.batch * 256,
                "tokens_per_second": round(arguments.batch * 256 / pace),
                "rate": round(rate_scale(step, arguments), 4),
                "seconds": round(seconds),
                "eta_minutes": round((arguments.steps - step) * pace / 60, 1),
            }
            if not all(math.isfinite(r[1]) for r in recent):
                raise ArithmeticError(f"a loss before step {step} is not finite; lower the rates")
            recent = []
            if step % (arguments.every * 10) == 0 or last:
                report |= held_out_losses(model, windows)
            yield report
        if time.monotonic() - saved > arguments.save_seconds or last:
            progress = {"step": step, "seconds": seconds, "used": windows.used}
            save(output, optimizer, {**progress, "rng": rng.bit_generator.state})
            export(optimizer, cache, output)
            saved = time.monotonic()


def main() -> None:
    """Train and write the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("output", type=Path)
    for name, default in (
        ("steps", 3200), ("batch", 4), ("warmup", 60), ("every", 25), ("seed", 7), ("threads", 1),
        ("save-seconds", 180), ("decay", 0.45), ("matrix-rate", 0.03), ("embedding-rate", 4e-3),
        ("vector-rate", 2e-3), ("weight-decay", 0.05),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--compute", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with (arguments.output / "log.jsonl").open("a") as log:
        for report in train(arguments):
            log.write(json.dumps(report) + "\n")
            log.flush()
            print(" ".join(f"{k}={v}" for k, v in report.items()), flush=True)


if __name__ == "__main__":
    main()
