"""A trained model as files, written only if our engine computes from them what torch does.

In: a nested model, its plans, a tokenizer, some rows, with a picture and a sound if it takes them.
Out: a Hugging Face directory with plans.json, and packed ones. Each is written beside its place,
opened and compared at every plan, and renamed into place; one that differs is removed, those
before it stay. In float32 the logits must agree; in 8 and 4 bits, where weights were rounded, the
distributions.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from transformers.utils import logging

from matryo.checkpoint.atomic import TEMPORARY, replace_text
from matryo.checkpoint.beside import CONFIG, PLANS, copy_beside
from matryo.checkpoint.convert import convert
from matryo.errors import TrainingError
from matryo.loading.load import load
from matryo.plan import Plan
from matryo.train.head import capped, softcap_of
from matryo.train.nested import LanguageModel, hidden_states, nest, text_part

F32 = npt.NDArray[np.float32]

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
# Two correct float32 implementations differ by 1e-4 at logits of 27; a wrong one by far more.
LOGIT_TOLERANCE = 1e-3
# Mean KL in nats. Trained models measure 0.0002 and 0.02 (docs/quantisation.md), small random ones
# about 0.01 and 0.4: a gate against mistakes, not a statement about quality.
KL_LIMIT = {"f32": 1e-4, "bf16": 5e-3, "q8": 0.05, "q4": 1.5}
_NAMES = {"f32": "float32", "bf16": "bfloat16"}


@dataclass(frozen=True, slots=True)
class Probe:
    """A row that both sides compute: ids, pixels (3, S, S) and (log-mel (T, bins), mask (T,)) in
    the order of their soft ids.
    """

    ids: Sequence[int]
    pixels: Sequence[F32] = ()
    sounds: Sequence[tuple[F32, npt.NDArray[np.bool_]]] = ()

    def media(self, device: torch.device) -> dict[str, torch.Tensor]:
        """What the model's forward takes beside the ids."""
        found: dict[str, torch.Tensor] = {}
        if self.pixels:
            found["pixel_values"] = torch.from_numpy(np.stack(self.pixels))
        if self.sounds:
            longest = max(len(mel) for mel, _ in self.sounds)
            ends = [longest - len(mel) for mel, _ in self.sounds]
            found["input_features"] = torch.stack(
                [torch.nn.functional.pad(torch.from_numpy(mel), (0, 0, 0, end))
                 for (mel, _), end in zip(self.sounds, ends, strict=True)]
            )  # fmt: skip
            found["input_features_mask"] = torch.stack(
                [torch.nn.functional.pad(torch.from_numpy(mask), (0, end))
                 for (_, mask), end in zip(self.sounds, ends, strict=True)]
            )  # fmt: skip
        return {name: value.to(device) for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class Exported:
    """One directory that passed: the largest difference of logits and mean KL of all plans."""

    path: Path
    logits: float
    divergence: float


def export(
    model: LanguageModel,
    plans: Mapping[str, Plan],
    output: Path,
    probes: Sequence[Probe],
    *,
    start: Path | None,
    tokenizer: Path,
    document: Mapping[str, Any] | None = None,
    dtype: str = "bf16",
    packed: Sequence[str] = (),
) -> list[Exported]:
    """Writes `output/hf`, and `output/KIND` for each kind of `packed`.

    probes: rows that are compared · start: where the model came from, whose config.json is kept
    unless there is a document; None = the model's own · tokenizer: directory whose text files are
    copied
    Raises TrainingError if a plan's logits differ; what passed before is in place then.
    """
    output.mkdir(parents=True, exist_ok=True)
    whole = output / "hf"
    with _placed(whole) as fresh:
        _write(model, plans, fresh, start, tokenizer, dtype, document)
        trained = {name: torch_logits(model, plan, probes) for name, plan in plans.items()}
        ours = engine_logits(fresh, plans, probes, "f32")
        theirs = _reread(model, fresh, plans, probes)
        difference = max(float(np.abs(ours[n] - theirs[n]).max()) for n in plans)
        if not difference <= LOGIT_TOLERANCE:
            raise _refused(whole, f"logits differ by {difference:.3g}", LOGIT_TOLERANCE, dtype)
        made = [_gate(whole, trained, ours, dtype, difference)]
    for kind in packed:
        with _placed(output / kind) as fresh:
            convert(whole, fresh, kind)
            found = engine_logits(fresh, plans, probes, None)
            made.append(_gate(output / kind, ours, found, kind, None))
    return made


@torch.no_grad()
def torch_logits(model: LanguageModel, plan: Plan, probes: Sequence[Probe]) -> F32:
    """Logits (T, V) of torch, as evaluated; T counts the ids of all rows."""
    training = model.training
    model.train(False)
    found = []
    for probe in probes:
        rows = torch.tensor([list(probe.ids)], device=model.device)
        media = probe.media(model.device)
        logits = model.lm_head(hidden_states(model, plan, input_ids=rows, **media))[0].float()
        found.append(capped(logits, softcap_of(model)))
    model.train(training)
    values: F32 = torch.cat(found).cpu().numpy()
    return values


def engine_logits(
    directory: Path, plans: Mapping[str, Plan], probes: Sequence[Probe], weights: str | None
) -> dict[str, F32]:
    """Logits (T, V) of our engine at each plan, with an exact K/V cache."""
    with load(directory, weights=weights, kv="f32") as opened:
        return {
            name: np.concatenate(
                [
                    opened.logits(
                        list(probe.ids),
                        plan,
                        images=list(probe.pixels) or None,
                        audio=list(probe.sounds) or None,
                    )
                    for probe in probes
                ]
            )
            for name, plan in plans.items()
        }


def mean_divergence(wanted: F32, got: F32) -> float:
    """KL(wanted || got) in nats, mean over positions."""
    first = torch.log_softmax(torch.from_numpy(wanted).double(), -1)
    second = torch.log_softmax(torch.from_numpy(got).double(), -1)
    return float((first.exp() * (first - second)).sum(-1).mean())


def _gate(
    path: Path,
    wanted: Mapping[str, F32],
    got: Mapping[str, F32],
    kind: str,
    difference: float | None,
) -> Exported:
    """Raises TrainingError if a plan's distributions differ more than rounding explains."""
    divergences = {name: mean_divergence(wanted[name], got[name]) for name in wanted}
    for name, divergence in divergences.items():
        if not divergence <= KL_LIMIT[kind]:
            what = f"plan {name} diverges by {divergence:.3g} nats"
            raise _refused(path, what, KL_LIMIT[kind], kind)
    if difference is None:
        difference = max(float(np.abs(wanted[name] - got[name]).max()) for name in wanted)
    return Exported(path, difference, max(divergences.values()))


def _refused(path: Path, what: str, limit: float, kind: str) -> TrainingError:
    found = f"{path} was not written: its {what} from the trained model's (allowed {limit:g}); "
    if kind not in ("q8", "q4"):
        return TrainingError(f"{found}the last training checkpoint is intact; please report this")
    return TrainingError(
        f"{found}{path.with_name('hf')} is written. Rounding to {kind} takes that much away. If "
        f"the model was unpacked, training moved its weights by less than a step of {kind}: raise "
        "the rate or the steps, or pack bf16"
    )


def _write(
    model: LanguageModel,
    plans: Mapping[str, Plan],
    directory: Path,
    start: Path | None,
    tokenizer: Path,
    dtype: str,
    given: Mapping[str, Any] | None,
) -> None:
    """The Hugging Face directory. Weights only: buffers are rebuilt from the config."""
    tensors = {
        name: value.detach().to("cpu", DTYPES[dtype]).contiguous()
        for name, value in model.named_parameters()
        if name != "lm_head.weight"
    }
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)  # safetensors makes it for its owner alone
    document: dict[str, Any]
    if given is not None:
        document = dict(given)
    elif start is not None:
        document = json.loads((start / CONFIG).read_text(encoding="utf-8"))
    else:
        document = json.loads(model.config.to_json_string(use_diff=True))
    document.pop("torch_dtype", None)
    document |= {"dtype": _NAMES[dtype], "architectures": [type(model).__name__]}
    replace_text(directory / CONFIG, json.dumps(document, indent=2) + "\n")
    named = {name: plan.to_json() for name, plan in plans.items()}
    replace_text(directory / PLANS, json.dumps(named, indent=1) + "\n")
    if start is not None:
        copy_beside(start, directory)
    copy_beside(tokenizer, directory)


def _reread(
    model: LanguageModel, directory: Path, plans: Mapping[str, Plan], probes: Sequence[Probe]
) -> dict[str, F32]:
    """Logits of transformers, in float32, from the files that were written."""
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    again = type(model).from_pretrained(
        directory, dtype=torch.float32, attn_implementation=model.config._attn_implementation
    )
    config = nest(again)
    # A checkpoint in bf16 has this factor rounded to bf16, in transformers as in our engine.
    text_part(again).embed_tokens.embed_scale.fill_(embedding_scale(config.hidden_size, directory))
    return {name: torch_logits(again, plan, probes) for name, plan in plans.items()}


def embedding_scale(hidden_size: int, directory: Path) -> float:
    """sqrt(d) as the checkpoint's dtype has it."""
    document = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    kind = torch.bfloat16 if document["dtype"] == "bfloat16" else torch.float32
    return torch.tensor(hidden_size**0.5, dtype=kind).item()


@contextmanager
def _placed(place: Path) -> Iterator[Path]:
    """An empty directory, which takes the place of `place` unless the block raises."""
    directory = place.with_name(f".{place.name}{TEMPORARY}")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    try:
        yield directory
        _replace(directory, place)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _replace(directory: Path, place: Path) -> None:
    """Puts a finished directory in its place. A process that is killed between the two renames
    leaves neither there: the old one is then beside it, hidden, until the next export.
    """
    old = place.with_name(f".{place.name}.old{TEMPORARY}")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    directory.rename(place)
    shutil.rmtree(old, ignore_errors=True)
