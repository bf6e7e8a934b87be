"""`matryo demo`: the embedded model at its smallest and its largest size, with speed and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from matryo.cli.options import GenerationOptions, JsonOption, LoadOptions

if TYPE_CHECKING:
    from rich.console import Console

    from matryo.cli.showcase import Question
    from matryo.loading import Model
    from matryo.sampling import Sampling
    from matryo.session import Event, Stats

LONGEST = 64  # tokens; what is asked has short answers


@dataclass(frozen=True, slots=True)
class Answer:
    """What one size said. text: what counts of it."""

    question: Question
    size: str
    text: str
    stats: Stats

    def to_json(self) -> dict[str, Any]:
        """Plain values; times in seconds."""
        return {
            "event": "answer",
            "section": self.question.section,
            "asks": [item.get("text", item["type"]) for item in self.question.content],
            "size": self.size,
            "text": self.text,
            "right": self.question.right,
            "tokens": self.stats.generated_tokens,
            "tokens_per_s": self.stats.tps,
            "seconds_to_first_token": self.stats.seconds_to_first_token,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One size. shape: layers times FFN units · first: section -> seconds until the first token,
    the middle of its answers.
    """

    size: str
    plan: str
    shape: str
    parameters: int
    tokens_per_s: float
    first: dict[str, float]
    weight_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain values; weight_bytes are those resident after this size alone has run."""
        return {
            "size": self.size,
            "plan": self.plan,
            "parameters": self.parameters,
            "tokens_per_s": self.tokens_per_s,
            "seconds_to_first_token": self.first,
            "weight_bytes": self.weight_bytes,
        }


def demo(
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="What to ask both sizes instead of the picture, the voice and the phrase.",
            show_default=False,
        ),
    ] = None,
    *,
    generation: GenerationOptions,
    json: JsonOption = False,
) -> None:
    """Let the embedded model caption a picture, write down and translate a voice, and translate a
    phrase, at its smallest and its largest size, from one copy of the weights.

    The picture and the voice were held out from its training. Answers alone go to stdout.
    """
    from matryo.cli.answer import interruptible, resident_bytes
    from matryo.cli.models import open_model, sampling_of
    from matryo.cli.output import console, write_json
    from matryo.cli.showcase import prompted, questions
    from matryo.evaluate.run import plans_at_hand

    asked = questions() if prompt is None else [prompted(prompt)]
    sampling = sampling_of(generation)
    if prompt is None:
        sampling = replace(sampling, temperature=generation.temperature or 0.0)
        generation = replace(generation, max_tokens=min(generation.max_tokens, LONGEST))
    model = open_model(LoadOptions())
    smallest, *_, largest = plans_at_hand(model)
    screen = console(stderr=True)
    answers: list[Answer] = []
    with interruptible() as cancel:
        for question in {one.section: one for one in asked}.values():  # the first time costs more
            _answer(model, question, largest, generation, sampling, cancel)
        for question in asked:
            beside = [
                _answer(model, question, size, generation, sampling, cancel)
                for size in (smallest, largest)
            ]
            for answer in beside:
                if json:
                    write_json(answer.to_json())
            if not json:
                is_first = not answers or answers[-1].question.about != question.about
                _show(screen, beside, heading=is_first)
            answers += beside
    figures = [
        _figures(model, [answer for answer in answers if answer.size == size])
        for size in (smallest, largest)
    ]
    if json:
        sizes = [one.to_json() for one in figures]
        write_json({"event": "end", "sizes": sizes, "resident_bytes": resident_bytes()})
    else:
        _show_figures(screen, model, figures, built_in=prompt is None)


def _answer(
    model: Model,
    question: Question,
    size: str,
    options: GenerationOptions,
    sampling: Sampling,
    cancel: Any,
) -> Answer:
    """One answer; pictures and sound are encoded anew, so that each size is timed alike.

    Raises KeyboardInterrupt if it is cancelled.
    """
    model.library.clear()
    event: Event | None = None
    text = ""
    for event in model.session(plan=size).generate(
        [{"role": "user", "content": question.content}],
        max_tokens=options.max_tokens,
        sampling=sampling,
        stop=tuple(options.stop or ()),
        draft=options.draft,
        cancel=cancel,
    ):
        text += event.text
    if event is None or event.finish_reason == "cancelled":
        raise KeyboardInterrupt
    return Answer(question, size, question.answer(text), event.stats)


def _figures(model: Model, answers: Sequence[Answer]) -> Figures:
    """Of the answers of one size."""
    from matryo.search.measure import Meter

    size = answers[0].size
    plan = model.plan(size)
    first: dict[str, list[float]] = {}
    for answer in answers:
        first.setdefault(answer.question.section, []).append(answer.stats.seconds_to_first_token)
    later = [(one.stats.generated_tokens - 1, one.stats.tps) for one in answers if one.stats.tps]
    seconds = sum(tokens / speed for tokens, speed in later)
    return Figures(
        size=size,
        plan=plan.describe(),
        shape=f"{len(plan.layers)} × {max(plan.ffn_width)}",
        parameters=model.cost(plan).parameters,
        tokens_per_s=sum(tokens for tokens, _ in later) / seconds if seconds else 0.0,
        first={section: median(times) for section, times in first.items()},
        weight_bytes=Meter(model, plan, model.kv_kind).resident_bytes(plan),
    )


def _show(screen: Console, beside: Sequence[Answer], *, heading: bool) -> None:
    """The answers on stdout, all else on stderr, beside them if that is one terminal."""
    import sys

    from matryo.cli.escape import escape_answer, escape_name

    question = beside[0].question
    if heading:
        screen.print(f"\n{escape_name(question.about)}", style="bold")
        _sketch(screen, question)
    shared = screen.is_terminal and sys.stdout.isatty()
    width = max(len(answer.size) for answer in beside)
    known = question.right is not None
    for number, answer in enumerate(beside):
        label = f"  {question.label if number == 0 else '':<12}" if question.label else "  "
        screen.print(f"{label}{answer.size:<{width}} ", style="cyan", end="")
        right = question.is_right(answer.text)
        screen.print("✓ " if right else "  ", style="green", end="" if shared else "\n")
        sys.stdout.write(escape_answer(answer.text) + "\n")
        sys.stdout.flush()
    if known and not all(question.is_right(answer.text) for answer in beside):
        screen.print(f"  {'':<12}{'right':<{width}}   {question.right}", style="dim")


def _sketch(screen: Console, question: Question) -> None:
    """The picture or the sound, where it can be drawn."""
    if question.file is None or not screen.is_terminal:
        return
    from rich.padding import Padding

    from matryo.cli.sketch import picture, wave

    if question.section == "speech":
        screen.print(Padding(wave(question.file), (0, 2)), style="magenta")
    elif screen.color_system in ("truecolor", "256"):
        screen.print(Padding(picture(question.file), (0, 2)))


def _show_figures(
    screen: Console, model: Model, figures: Sequence[Figures], *, built_in: bool
) -> None:
    from matryo.cli.answer import resident_bytes
    from matryo.cli.output import format_bytes, format_count, new_table

    table = new_table("One file of weights, two models")
    table.add_column("size", no_wrap=True)
    sections = list(figures[0].first)
    for heading in ("layers", "parameters", "memory", "tokens/s", *sections):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in figures:
        table.add_row(
            one.size,
            one.shape,
            format_count(one.parameters),
            format_bytes(one.weight_bytes),
            f"{one.tokens_per_s:.0f}",
            *(f"{1e3 * one.first[section]:.1f}" for section in sections),
        )
    screen.print(table)
    screen.print(
        f"Memory of the weights; the whole process has {format_bytes(resident_bytes())}. "
        f"Under {', '.join(sections)}: milliseconds to the first token, encoders included.",
        style="dim",
    )
    if built_in:
        screen.print(
            "What is asked was held out from training and chosen because the model does better on "
            "it than usual: docs/nano.md.",
            style="dim",
        )
    screen.print(
        "Now yours: matryo demo PROMPT, matryo run PROMPT -a FILE, matryo transcribe FILE --to es",
        style="dim",
    )
