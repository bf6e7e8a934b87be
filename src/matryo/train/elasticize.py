"""`matryo elasticize`: a dense decoder into one whose FFNs can be cut at several widths.

In: `Options`. Out: a Hugging Face directory of the full model with plans.json and elastic.json, and
a `Report` with what each width is worth before anything was done, after its units were ordered, and
after the distillation. One line from top to bottom: model, texts, order, fit, distillation, files.
Every stage is kept in `work/` until the model is written: the same call continues a stopped one,
with the same numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from matryo.checkpoint.atomic import UNFINISHED, copy_file, replace_text, replacing
from matryo.checkpoint.beside import CONFIG
from matryo.checkpoint.writing import own_directory, room
from matryo.errors import CheckpointError, ConfigError, InputError
from matryo.evaluate.intervals import Interval
from matryo.evaluate.rows import digest_of
from matryo.train.data import Corpus, Shuffled, open_corpus
from matryo.train.dense import at_width, check_head, ffns, full_width, open_dense, widths_of
from matryo.train.elastic_files import (
    AGAIN,
    BEFORE,
    FITTED,
    ORDERED,
    PERPLEXITY,
    RECOVERED,
    Report,
    write_elastic,
)
from matryo.train.importance import Measure, order_of, reorder, unit_scores
from matryo.train.journal import LOG
from matryo.train.measure import (
    answers,
    interval,
    perplexity,
    read_questions,
    row_losses,
)
from matryo.train.recover import Recovery, ffn_weights, packed_rows, recover
from matryo.train.refit import refit

WORK = "work"
LOSSES = "losses"  # of held-out rows, beside the answers to questions
_STATE = "state.json"
_MARK = "elasticize"  # in the marker of a directory that this program has not finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to make elastic, and how.

    texts: for the order and the distillation · held_out: texts that are only measured; absent: the
    last rows of `texts`, which are then not learned from · shares: widths in percent · calibration:
    rows that the order is measured on · measured: rows for the perplexity · sequence: tokens of a
    row · questions: multiple choice by name · fit: refit the down matrices · measure_all: also
    after ordering alone, and after the fit
    """

    source: Path
    target: Path
    texts: tuple[Path, ...]
    held_out: tuple[Path, ...] = ()
    shares: tuple[int, ...] = (25, 50, 75)
    measure: Measure = "activation"
    calibration: int = 64
    measured: int = 32
    sequence: int = 128
    fit: bool = True
    recovery: Recovery = field(default_factory=Recovery)
    questions: Mapping[str, Path] = field(default_factory=dict)
    dtype: str = "bf16"
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.texts:
            raise ConfigError("no calibration text is given: name at least one .jsonl or .txt file")
        if not {*self.shares} - {100}:
            raise ConfigError("no width besides the full one: name percentages such as 25,50,75")
        for name, least in (("calibration", 1), ("measured", 1), ("sequence", 2), ("seed", 0),
                            ("threads", 1)):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; expected at least {least}")

    def to_json(self) -> dict[str, Any]:
        """What the numbers of a run depend on."""
        fixed = dataclasses.asdict(self)
        for key in ("source", "target", "texts", "held_out", "questions", "threads", "dtype"):
            del fixed[key]
        del fixed["recovery"]["save_every"]
        return {**fixed, "source": self.source.name, "shares": list(self.shares)}


def elasticize(
    options: Options,
    *,
    say: Callable[[str], None] = print,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> Report:
    """Makes the model, or continues where an earlier call stopped.

    Raises CheckpointError, ConfigError and InputError for what cannot be used, TrainingError if a
    loss or a weight is no number, CapacityError if the disk is full.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    _check_target(options.target)
    run = _Run(options, say, progress)  # a source that cannot be used leaves no directory
    with own_directory(options.target, wait=False), room(options.target, AGAIN):
        _check_target(options.target)  # another process may have been faster
        return run.run()


def _check_target(target: Path) -> None:
    """Raises ConfigError for a finished model, CheckpointError for files of something else."""
    if (target / CONFIG).exists():
        raise ConfigError(f"{target} holds a finished model: choose another directory")
    if not target.is_dir() or not any(target.iterdir()):
        return
    marker = target / UNFINISHED
    if not marker.is_file() or marker.read_text(encoding="utf-8", errors="replace") != _MARK:
        raise CheckpointError("the directory is not empty: choose another one", file=str(target))


class _Run:
    """One run: its files, and what it says."""

    def __init__(
        self,
        options: Options,
        say: Callable[[str], None],
        progress: Callable[[int, int, str], None],
    ) -> None:
        self.options, self.say, self.progress = options, say, progress
        self.work = options.target / WORK
        self.questions = {name: read_questions(path) for name, path in options.questions.items()}
        self.model, self.tokenizer = open_dense(options.source)
        if options.recovery.steps:
            check_head(self.model)
        self.widths = widths_of(self.model, options.shares)

    def run(self) -> Report:
        o, model, tokenizer, widths = self.options, self.model, self.tokenizer, self.widths
        narrow = {name: width for name, width in widths.items() if width < full_width(model)}

        # Texts.
        replace_text(o.target / UNFINISHED, _MARK)
        texts, held_out = self._texts(model, tokenizer)
        key = {**o.to_json(), "texts": texts.corpus.digest, "held_out": _digest(held_out)}
        state = self._state(key)

        # Before.
        self._measure(state, BEFORE, model, tokenizer, widths, held_out)

        # Order.
        begin = tokenizer.bos_token_id
        rows = _rows(texts, o.calibration, begin)
        reorder(model, self._order(model, rows))
        original = ffn_weights(model) if o.recovery.steps else []
        self._measure(state, ORDERED, model, tokenizer, narrow, held_out)
        whole = next(name for name in widths if name not in narrow)
        state["stages"][ORDERED][whole] = state["stages"][BEFORE][whole]  # the same sums

        # Fit.
        if o.fit:
            self._fit(model, rows, list(widths.values()))
            tasks = () if o.recovery.steps else tuple(self.questions)
            self._measure(state, FITTED, model, tokenizer, widths, held_out, tasks)

        # Distillation.
        if o.recovery.steps:
            recover(
                model, original, texts, widths, o.recovery, self.work,
                begin=begin, key=key, say=self.say,
            )  # fmt: skip
            self._measure(state, RECOVERED, model, tokenizer, widths, held_out)
        del original

        # Files.
        stages = state["stages"].items()
        report = Report(
            widths, {name: _intervals(found, widths, self.questions) for name, found in stages}
        )
        if o.recovery.steps:
            copy_file(self.work / LOG, o.target / LOG)
        write_elastic(model, tokenizer, report, o.target, o.dtype)
        shutil.rmtree(self.work)
        return report

    def _texts(self, model: Any, tokenizer: Any) -> tuple[Shuffled, torch.Tensor]:
        """What is learned from, and the rows (R, T + 1) that are measured."""
        o = self.options
        end = tokenizer.eos_token_id
        if end is None:
            raise ConfigError("the tokenizer has no token that ends a text")
        wrapped: Any = _AsOurs(tokenizer)
        if len(wrapped) > model.get_input_embeddings().weight.shape[0]:
            raise ConfigError(
                f"the tokenizer has {len(wrapped)} tokens, the model "
                f"{model.get_input_embeddings().weight.shape[0]}: it is another model's"
            )
        corpus = open_corpus(o.texts, wrapped, self.work / "tokens", end_id=end, note=self.say)
        if o.held_out:
            rest = open_corpus(o.held_out, wrapped, self.work / "held-out", end_id=end)
        else:
            count = min(o.measured, corpus.num_rows(o.sequence) // 4) * o.sequence + 1
            if count < o.sequence:
                raise InputError(
                    f"the texts are {len(corpus.tokens)} tokens; with {o.sequence} a row too few "
                    "to measure on a part of them: add text, or give --held-out"
                )
            corpus, rest = _split(corpus, len(corpus.tokens) - count)
        texts = Shuffled(corpus, o.sequence, o.seed)
        count = min(o.measured, rest.num_rows(o.sequence))
        if not count:
            raise InputError(f"the held-out text does not fill a row of {o.sequence} tokens")
        # Spread over the text, so that a long one is not judged by its beginning.
        chosen = [i * rest.num_rows(o.sequence) // count for i in range(count)]
        return texts, packed_rows(rest.tokens, chosen, o.sequence, tokenizer.bos_token_id)

    def _state(self, key: Mapping[str, Any]) -> dict[str, Any]:
        """What earlier calls measured. Raises ConfigError if they ran something else."""
        self.work.mkdir(exist_ok=True)
        try:
            state: dict[str, Any] = json.loads((self.work / _STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            state = {"key": json.loads(json.dumps(key)), "stages": {}}
        except ValueError as error:
            raise ConfigError(f"{self.work / _STATE} is broken: delete {self.work}") from error
        for name, value in json.loads(json.dumps(key)).items():
            if state["key"].get(name) != value:
                raise ConfigError(
                    f"{self.options.target} holds an unfinished run with other options: {name} was "
                    f"{str(state['key'].get(name))[:100]}, is {str(value)[:100]}; delete it, or "
                    "choose another directory"
                )
        # Questions are no part of the key: those that are new are asked at every stage.
        asked = {
            name: digest_of(*(row.digest for row in rows)) for name, rows in self.questions.items()
        }
        before = state.get("questions", {})
        for values in (one for found in state["stages"].values() for one in found.values()):
            for task in values.keys() - {LOSSES}:
                if task not in asked or before.get(task) != asked[task]:
                    del values[task]
        state["questions"] = asked
        return state

    def _measure(
        self,
        state: dict[str, Any],
        stage: str,
        model: Any,
        tokenizer: Any,
        widths: Mapping[str, int],
        rows: torch.Tensor,
        tasks: Sequence[str] | None = None,
    ) -> None:
        """Values of each width, kept as soon as they are known; tasks: absent = all."""
        tasks = tuple(self.questions) if tasks is None else tasks
        found = state["stages"].setdefault(stage, {})
        for name, width in widths.items():
            values = found.setdefault(name, {})
            missing = [task for task in (LOSSES, *tasks) if task not in values]
            if not missing:
                continue
            with at_width(model, width):
                for task in missing:
                    if task == LOSSES:
                        show = self._shower(f"{stage} {name}", len(rows))
                        values[task] = row_losses(model, rows, show)
                        continue
                    questions = self.questions[task]
                    show = self._shower(f"{stage} {name} {task}", len(questions))
                    values[task] = answers(model, tokenizer, questions, show)
            replace_text(self.work / _STATE, json.dumps(state) + "\n")
            shown = [f"perplexity {perplexity(values[LOSSES]).value:,.2f}"]
            shown += [f"{task} {interval(values[task]).value:.3f}" for task in tasks]
            self.say(f"{stage} {name}: {', '.join(shown)}")

    def _shower(self, what: str, total: int) -> Callable[[int], None]:
        return lambda done: self.progress(done, total, what)

    def _order(self, model: Any, rows: torch.Tensor) -> torch.Tensor:
        path = self.work / "order.safetensors"
        if not path.exists():
            scores = unit_scores(
                model,
                rows,
                self.options.measure,
                seed=self.options.seed,
                progress=lambda done, total: self.progress(done, total, "importance"),
            )
            if not bool(torch.isfinite(scores).all()):
                raise InputError("the activations on the calibration text are no numbers")
            _save({"order": order_of(scores)}, path)
        return load_file(path)["order"]

    def _fit(self, model: Any, rows: torch.Tensor, widths: Sequence[int]) -> None:
        path = self.work / "fitted.safetensors"
        if not path.exists():
            refit(
                model, rows, widths, progress=lambda done, total: self.progress(done, total, "fit")
            )
            _save({str(n): f.down_proj.weight.detach() for n, f in enumerate(ffns(model))}, path)
        with torch.no_grad():
            for number, matrix in load_file(path).items():
                ffns(model)[int(number)].down_proj.weight.copy_(matrix)


class _AsOurs:
    """A tokenizer of transformers as `open_corpus` asks for one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.bos_id = tokenizer, tokenizer.bos_token_id

    def __len__(self) -> int:
        return len(self._tokenizer)

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return [self.bos_id, *ids] if bos and self.bos_id is not None else ids


def _split(corpus: Corpus, place: int) -> tuple[Corpus, Corpus]:
    parts = corpus.tokens[:place], corpus.tokens[place:]
    first, second = (dataclasses.replace(corpus, tokens=part) for part in parts)
    return first, second


def _rows(texts: Shuffled, count: int, begin: int | None) -> torch.Tensor:
    """Rows (R, T) of calibration text."""
    chosen = texts.indices(0, min(count, texts.num_rows))
    return packed_rows(texts.corpus.tokens, chosen, texts.sequence, begin)[:, :-1]


def _digest(rows: torch.Tensor) -> str:
    return hashlib.sha256(rows.numpy().tobytes()).hexdigest()


def _intervals(
    found: Mapping[str, Mapping[str, Sequence[float]]],
    widths: Mapping[str, int],
    tasks: Iterable[str],
) -> dict[str, dict[str, Interval]]:
    return {
        name: {PERPLEXITY: perplexity(found[name][LOSSES])}
        | {task: interval(found[name][task]) for task in tasks if task in found[name]}
        for name in widths
    }


def _save(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    with replacing(path) as file:
        part = path.with_name(f"{path.name}.part")
        save_file({name: value.contiguous() for name, value in tensors.items()}, part)
        file.write(part.read_bytes())
        part.unlink()
