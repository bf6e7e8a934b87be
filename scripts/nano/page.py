"""Put what was measured of matryo-nano into docs/nano.md, a picture and the model card.

In: docs/results/nano.json (from `scripts.nano.evaluate`), docs/results/nano-others.json if there is
one (from `scripts.nano.others`), docs/results/nano-nesting.json likewise (from
`scripts.nano.nesting`), corpus/sources.json. Out: the tables between the marks of
docs/nano.md, docs/images/nano.png, and README.md beside the packaged weights. With `--check`
nothing is written, and the exit code says whether page and card are fresh.

    python -m scripts.nano.page
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scripts.evaluation_pages import DOCS, publish, replaced
from scripts.nano.corpus.sources import packages

Json = dict[str, Any]
MODEL = DOCS.parent / "src" / "matryo" / "data" / "nano"
TITLES = {
    "emoji": "picture → its name", "emoji_choice": "picture → one of four names",
    "emoji_keywords": "picture → three keywords", "emoji_yes_no": "picture → yes or no",
    "flags": "flag → country", "easy_vqa": "easy-VQA", "translate": "translation",
    "facts": "facts", "words": "definitions", "prose": "novels",
    "transcribe_prompts": "recorded speech → text",
    "transcribe_menardi": "recorded speech → text, unseen speaker",
    "transcribe_espeak": "espeak → text", "transcribe_kokoro": "Kokoro → text",
    "speech_translate_prompts": "recorded speech → translation",
    "speech_translate_menardi": "recorded speech → translation, unseen speaker",
    "speech_translate_espeak": "espeak → translation",
    "speech_translate_kokoro": "Kokoro → translation",
}  # fmt: skip
UNITS = {
    "exact": "%", "accepted": "%, or another of its keywords", "keywords": "% right",
    "chrf": "chrF", "wer": "% word errors", "cer": "% letter errors",
    "bits_per_byte": "bits a byte", "reference_bits_per_byte": "bits a byte",
}  # fmt: skip
DRAWN = (
    ("emoji", "exact"), ("easy_vqa", "exact"), ("translate", "chrf"), ("facts", "exact"),
    ("prose", "bits_per_byte"), ("transcribe_espeak", "wer"), ("transcribe_prompts", "wer"),
    ("speech_translate_espeak", "chrf"),
)  # fmt: skip
GROUPS = {
    "translation and facts": ("translate", "facts"),
    "definitions and novels, hundredths of a bit a byte": ("words", "prose"),
    "pictures": ("emoji", "emoji_choice", "emoji_keywords", "emoji_yes_no", "flags", "easy_vqa"),
    "speech → text": ("transcribe_prompts", "transcribe_menardi", "transcribe_espeak",
                      "transcribe_kokoro"),
    "speech → translation": ("speech_translate_prompts", "speech_translate_menardi",
                             "speech_translate_espeak", "speech_translate_kokoro"),
}  # fmt: skip
STYLES = {"mixed": ("tab:orange", "s"), "steep": ("tab:brown", "v")}  # colour and marker


def text_of(figure: Json, *, bold: bool = False) -> str:
    """`61.2 [57.0, 65.1]`, with two places below 10."""
    places = 1 if abs(figure["value"]) >= 10 else 2
    value = f"{figure['value']:.{places}f}"
    value = f"**{value}**" if bold else value
    if figure["low"] is None:
        return value
    return f"{value} [{figure['low']:.{places}f}, {figure['high']:.{places}f}]"


def rungs(document: Json) -> tuple[list[str], list[str]]:
    """Names of the sizes that were trained, and of the plans between them."""
    metric = next(iter(next(iter(document["tasks"].values()))["metrics"].values()))
    mixes = list(metric["above_the_line"])
    return [size for size in document["sizes"] if size not in mixes], mixes


def quality(document: Json) -> Iterator[str]:
    """One row a metric of a task, one column a rung, and how plans that are none compare."""
    sizes, mixes = rungs(document)
    yield (
        "| task (items) | counts | "
        + " | ".join([*sizes, *(f"{mix}, above the line" for mix in mixes)])
        + " | without a model |"
    )
    yield "|---|---|" + "---|" * (len(sizes) + len(mixes) + 1)
    for name, task in document["tasks"].items():
        for number, (metric, found) in enumerate(task["metrics"].items()):
            title = f"{TITLES[name]} ({task['items']})" if number == 0 else ""
            arrow = "↑" if found["higher_is_better"] else "↓"
            cells = [text_of(found["sizes"][size], bold=size == "large") for size in sizes]
            cells += [text_of(found["above_the_line"][mix]) for mix in mixes]
            blind = found["without_a_model"]
            cells.append(f"{blind['value']:.3g} ({blind['how']})")
            yield f"| {title} | {UNITS[metric]} {arrow} | " + " | ".join(cells) + " |"


def losses(document: Json) -> Iterator[str]:
    """What each smaller size loses beside `large`, and what each mix has above the line: the least
    and the most among the tasks of a group, by their first metrics.
    """
    sizes, mixes = rungs(document)
    columns = [*sizes[-2::-1], *(f"{mix}, above the line" for mix in mixes)]
    yield "| tasks, points | " + " | ".join(columns) + " |"
    yield "|---|" + "---|" * len(columns)
    for title, names in GROUPS.items():
        metrics = [document["tasks"][name]["metrics"] for name in names]
        firsts = [next(iter(one.values())) for one in metrics]
        scale = 100 if next(iter(metrics[0])).endswith("bits_per_byte") else 1
        cells = []
        for size in sizes[-2::-1]:
            lost = [
                (one["sizes"]["large"]["value"] - one["sizes"][size]["value"])
                * (scale if one["higher_is_better"] else -scale)
                for one in firsts
            ]
            cells.append(_span(lost))
        for mix in mixes:
            cells.append(_span([one["above_the_line"][mix]["value"] * scale for one in firsts]))
        yield f"| {title} | " + " | ".join(cells) + " |"


def parts(document: Json) -> Iterator[str]:
    """The largest size in each language, direction or kind; half the interval behind ±."""
    yield "| task | counts | at `large`, by language, direction or kind |"
    yield "|---|---|---|"
    for name, task in document["tasks"].items():
        metric, found = next(iter(task["metrics"].items()))
        if len(found["parts"]) < 2:
            continue
        cells = []
        for part, one in found["parts"].items():
            figure = one["sizes"]["large"]
            spread = (figure["high"] - figure["low"]) / 2
            cells.append(f"{part} {figure['value']:.0f} ± {spread:.0f} ({one['items']})")
        yield f"| {TITLES[name]} | {UNITS[metric]} | {', '.join(cells)} |"


def cost(document: Json) -> Iterator[str]:
    """Parameters, bytes, speed and memory of every size."""
    yield (
        "| size | layers × FFN | parameters | without tables | bytes in the file | read a token "
        "| tokens/s | prompt tokens/s | weights in memory | whole process |"
    )
    yield "|---|---|" + "---:|" * 8
    for size, one in document["sizes"].items():
        widths = one["plan"]["ffn_width"]
        shown = sorted(set(widths), reverse=True)
        yield (
            f"| {size} | {len(widths)} × {' and '.join(map(str, shown))} "
            f"| {one['parameters'] / 1e6:.2f} M | {one['effective_parameters'] / 1e6:.2f} M "
            f"| {one['stored_bytes'] / 1e6:.2f} MB | {one['bytes_a_token'] / 1e6:.2f} MB "
            f"| {one['tokens_per_s']:,.0f} | {one['prompt_tokens_per_s']:,.0f} "
            f"| {one['resident_weight_bytes'] / 1e6:.1f} MB | {one['process_bytes'] / 1e6:.0f} MB |"
        )


def examples(document: Json) -> Iterator[str]:
    """Items that a hash chose, with what the smallest and the largest size answered."""
    yield "| asked | right | tiny | large |"
    yield "|---|---|---|---|"
    for name, task in document["tasks"].items():
        for sample in task["samples"][: 2 if name in ("emoji", "translate", "facts") else 1]:
            asked = " ".join(f"`{Path(one).name}`" if "/" in one and " " not in one else one
                             for one in sample["asks"])  # fmt: skip
            cells = [asked, sample["right"], *(sample["answers"][s] for s in ("tiny", "large"))]
            yield "| " + " | ".join(_cell(one) for one in cells) + " |"


def data(document: Json) -> Iterator[str]:
    """Rows of every file."""
    yield "| rows | trained on | held out | pictures or clips | hours of speech trained on |"
    yield "|---|---:|---:|---:|---:|"
    splits: dict[str, dict[str, Json]] = {"train": {}, "heldout": {}}
    for path, counts in document["data"].items():
        split, name = path.split("/")
        splits[split][name] = counts
    for name in sorted({*splits["train"], *splits["heldout"]}):
        train, held_out = splits["train"].get(name, {}), splits["heldout"].get(name, {})
        media = train.get("media", 0) + held_out.get("media", 0)
        hours = f"{train['hours']:.1f}" if "hours" in train else ""
        yield (
            f"| `{name}` | {_count(train.get('rows'))} | {_count(held_out.get('rows'))} "
            f"| {_count(media)} | {hours} |"
        )


def licences() -> Iterator[str]:
    """What the weights were made from."""
    yield "| by | package | licence | used for |"
    yield "|---|---|---|---|"
    for entry in packages().values():
        yield (
            f"| {entry['attribution']} | {entry['registry']} `{entry['name']}` {entry['version']} "
            f"| {entry['licence']} | {entry['use']} |"
        )


def others(document: Json) -> Iterator[str]:
    """Other models on some of the same rows."""
    yield "| task (items) | counts | model | it | `large` on the same rows |"
    yield "|---|---|---|---|---|"
    for row in document["rows"]:
        yield (
            f"| {TITLES[row['task']]} ({row['items']}) | {UNITS[row['metric']]} | {row['model']} "
            f"| {text_of(row['other'])} | {text_of(row['ours'])} |"
        )


def nesting(document: Json) -> Iterator[str]:
    """Sizes trained together beside one trained alone, and depth beside width."""
    runs = document["runs"]
    steps = ", ".join(f"`{name}` {one['steps']:,}" for name, one in runs.items())
    told = {
        "width": "`width` learns the sizes of matryo-nano",
        "alone": "`alone` its `small` and nothing else from the same rows",
        "depth": "`depth` the largest and its first five layers in one pass at the cost of `width`",
    }
    yield (
        f"Decoders from the same random weights, on the same texts, {document['rows_a_step']} rows "
        f"a step; steps: {steps}. {', '.join(told[name] for name in runs)}. Bits a byte; less is "
        "better."
    )
    yield ""
    sizes = {size: count for one in runs.values()
             for size, count in one["effective_parameters"].items()}  # fmt: skip
    counts = ", ".join(f"`{size}` {count / 1e6:.2f} M" for size, count in sizes.items())
    yield f"Parameters without tables: {counts}."
    yield ""
    headings = [*document["compared"], *(f"{one}, % more bits" for one in document["differences"])]
    yield "| held-out text (items) | " + " | ".join(headings) + " |"
    yield "|---|" + "---|" * len(headings)
    for name, task in document["tasks"].items():
        cells = [text_of(one) for one in (*task["bits"], *task["percent"])]
        yield f"| {TITLES[name]} ({task['items']}) | " + " | ".join(cells) + " |"
    tasks = list(document["tasks"].values())
    bits = [pooled([task["bits"][at] for task in tasks], [1.0] * len(tasks))
            for at in range(len(document["compared"]))]  # fmt: skip
    percent = []
    for at, difference in enumerate(document["differences"]):
        beside = document["compared"].index(difference.partition(" beside ")[2])
        weights = [task["bits"][beside]["value"] for task in tasks]
        percent.append(pooled([task["percent"][at] for task in tasks], weights))
    yield "| all kinds alike | " + " | ".join(map(text_of, (*bits, *percent))) + " |"


def pooled(figures: Sequence[Json], weights: Sequence[float]) -> Json:
    """The weighted mean of figures of independent items, and its interval."""
    whole = sum(weights)
    value = sum(one["value"] * w for one, w in zip(figures, weights, strict=True)) / whole
    found = {"value": value}
    for end in ("low", "high"):
        squares = (((one[end] - one["value"]) * w) ** 2
                   for one, w in zip(figures, weights, strict=True))  # fmt: skip
        distance = sum(squares) ** 0.5 / whole
        found[end] = value - distance if end == "low" else value + distance
    return found


def measured(document: Json, beside: Json | None, nested: Json | None) -> str:
    """Everything between the marks."""
    model, device = document["model"], document["device"]
    size = sum(document["model"]["files"].values())
    chapters: list[tuple[str, Sequence[str]]] = [
        ("", [
            f"Weights {model['weights']}, {size / 1e6:.1f} MB with tokenizer; checkpoint "
            f"`{model['identity'][:12]}`; K/V {document['settings']['kv']}; brackets are 95 % "
            f"intervals over rows. Items were chosen by a hash with seed "
            f"{document['settings']['seed']}.",
            "", "![Quality of every size against its parameters](images/nano.png)",
        ]),
        ("Every size", list(quality(document))),
        ("What a smaller size loses", [
            "From the least to the most among the tasks of a row; negative: the smaller one is "
            "better, or the mix is below the line.", "", *losses(document),
        ]),
        ("Languages and kinds", list(parts(document))),
        *([("Beside other models", [*list(others(beside)), "", *beside["notes"]])]
          if beside else []),
        *([("Learned together, alone, and as layers", list(nesting(nested)))] if nested else []),
        (f"What a size costs ({device['isa']}, threads: {device['threads']})",
         list(cost(document))),
        ("Answers", ["Chosen by a hash, not by how good they are.", "", *examples(document)]),
        ("Data", list(data(document))),
        ("Licences and attribution", list(licences())),
    ]  # fmt: skip
    texts = ["\n".join(([f"## {title}", ""] if title else []) + list(lines))
             for title, lines in chapters]  # fmt: skip
    return "\n\n".join(texts) + "\n"


def card(document: Json) -> str:
    """README.md beside the packaged weights."""
    lines = ["| task | counts | tiny | large | without a model |", "|---|---|---|---|---|"]
    for name, task in document["tasks"].items():
        metric, found = next(iter(task["metrics"].items()))
        cells = [text_of(found["sizes"][size]) for size in ("tiny", "large")]
        cells.append(f"{found['without_a_model']['value']:.3g}")
        lines.append(f"| {TITLES[name]} | {UNITS[metric]} | " + " | ".join(cells) + " |")
    head = """\
# matryo-nano

<!-- Written by `python -m scripts.nano.page`. -->

The embedded model of Matryo: the architecture of Gemma 3n with random beginnings and 13.5 million
parameters, trained by Matryo on the sources below. It is no Google model and holds none of its
weights. Text, pictures of 64 x 64 and speech of up to 8 seconds in; text in English, Spanish,
French, Italian and Portuguese out. It exists so that elasticity can be seen and tested without a
download; it is no assistant, and what it says is often wrong.

Licence of the weights: CC BY-SA 4.0, because pictures and recordings under share-alike licences are
among the sources; attribution below. The code of Matryo is under Apache-2.0.

Held-out figures, 95 % intervals; all of them, and what it cannot do, in docs/nano.md of the source.
"""
    return "\n".join([head, *lines, "", "## Made from", "", *licences()]) + "\n"


def draw(document: Json, path: Path) -> None:
    """Quality against effective parameters, one panel a task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [(name, metric) for name, metric in DRAWN if name in document["tasks"]]
    rows = (len(shown) + 3) // 4
    figure = Figure(figsize=(15, 3.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, metric) in zip(figure.subplots(rows, 4).flat, shown, strict=False):
        found = document["tasks"][name]["metrics"][metric]
        points = {
            size: (one["effective_parameters"] / 1e6, found["sizes"][size])
            for size, one in document["sizes"].items()
        }
        trained = {size: points[size][0] for size in rungs(document)[0]}
        values = [points[size][1]["value"] for size in trained]
        axes.plot([*trained.values()], values, color="tab:blue", lw=1)
        for size, (x, y) in points.items():
            bars = [[y["value"] - y["low"]], [y["high"] - y["value"]]]
            colour, marker = STYLES.get(size, ("tab:blue", "o"))
            axes.errorbar([x], [y["value"]], yerr=bars, fmt=marker, color=colour, capsize=3)
        _bound(axes, found)
        axes.set_xticks([*trained.values()], [f"{size}\n{x:.1f}" for size, x in trained.items()])
        better = "more" if found["higher_is_better"] else "less"
        unit = UNITS[metric].partition(",")[0]
        axes.set(title=TITLES[name], ylabel=f"{unit} ({better} is better)")
        axes.margins(x=0.12)
        axes.grid(alpha=0.3)
    figure.supxlabel(
        "sizes, effective parameters in millions; not trained: mixed (square), steep (triangle)",
        fontsize="medium",
    )
    figure.savefig(path, dpi=90, metadata={"Software": None})


def _bound(axes: Any, found: Json) -> None:
    """Makes the intervals fill the panel; what is right without a model is a line where it is near,
    else a note.
    """
    low = min(one["low"] for one in found["sizes"].values())
    high = max(one["high"] for one in found["sizes"].values())
    span, blind = high - low, found["without_a_model"]["value"]
    if low - span <= blind <= high + span:
        axes.axhline(blind, color="gray", ls=":", lw=1)
        low, high = min(low, blind), max(high, blind)
    else:
        text = f"{'↓' if blind < low else '↑'} {blind:.3g} without a model"
        axes.text(
            0.03, 0.04, text, transform=axes.transAxes, color="gray", fontsize="small",
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0},
        )  # fmt: skip
    margin = 0.1 * (high - low)
    axes.set_ylim(low - margin, high + margin)


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


def _cell(text: str) -> str:
    """One line of at most 100 letters that cannot leave its cell."""
    line = " ".join(text.split())
    line = line if len(line) <= 100 else f"{line[:99]}…"
    return line.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") or "(nothing)"


def _count(number: int | None) -> str:
    return f"{number:,}" if number else ""


def main() -> int:
    """Write or check; returns the exit code."""
    document = json.loads((DOCS / "results" / "nano.json").read_text("utf-8"))
    more = [
        json.loads(path.read_text("utf-8")) if path.exists() else None
        for path in (DOCS / "results" / f"nano-{name}.json" for name in ("others", "nesting"))
    ]
    page = DOCS / "nano.md"
    texts = {page: replaced(page, measured(document, *more)), MODEL / "README.md": card(document)}
    picture = DOCS / "images" / "nano.png"
    return publish("scripts.nano.page", texts, lambda: draw(document, picture))


if __name__ == "__main__":
    sys.exit(main())
