"""What a run writes down: a line of JSON a step, TensorBoard's files, lines for people, a plot.

In: records, one a step. Out: `log.jsonl`, `tensorboard/`, text, `loss.svg`. A resumed run cuts the
steps after its checkpoint: they will be written again, with the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matryo.checkpoint.atomic import replace_text, replacing
from matryo.checkpoint.writing import room

LOG, PLOT = "log.jsonl", "loss.svg"
CONTINUE = "run the same command to continue from the last checkpoint"


class Journal:
    """Writes records, inside a with block. Raises CapacityError if the disk is full."""

    def __init__(self, output: Path, step: int, say: Callable[[str], None]) -> None:
        """step: how many are done; later lines of the log are cut. -1 = a new run: all are."""
        from torch.utils.tensorboard import SummaryWriter

        self.output, self._say = output, say
        kept = [record for record in read(output) if record["step"] <= step]
        with room(output, CONTINUE):
            replace_text(output / LOG, "".join(json.dumps(record) + "\n" for record in kept))
            self._log = (output / LOG).open("a", encoding="utf-8")
            # Of steps that were cut, TensorBoard's reader keeps what is written last.
            self._board = SummaryWriter(str(output / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        with room(self.output, CONTINUE):
            try:
                self._log.close()
            finally:
                self._board.close()

    def write(self, record: Mapping[str, Any]) -> None:
        """One step, or one evaluation; every number also goes to TensorBoard."""
        with room(self.output, CONTINUE):
            self._log.write(json.dumps(record, allow_nan=False) + "\n")
            self._log.flush()
            for name, value in _flat(record):
                self._board.add_scalar(name, value, record["step"])
        self._say(line(record))


def read(output: Path) -> list[dict[str, Any]]:
    """The records of a run; a last line that was cut short is left out."""
    try:
        lines = (output / LOG).read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(text) for text in lines if text.endswith("\n")]


def line(record: Mapping[str, Any]) -> str:
    """`step 12/100  large 4.23  small 4.50  rate 0.001  3,204 tokens/s  41 % of peak  2:05 left`

    or, of an evaluation, the held-out losses.
    """
    if "held_out" in record:
        found = "  ".join(_measured(*entry) for entry in record["held_out"].items())
        return f"step {record['step']}  held out: {found}"
    losses = "  ".join(f"{name} {value:.4f}" for name, value in record["losses"].items())
    minutes, seconds = divmod(round(record["seconds_left"]), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    return (
        f"step {record['step']}/{record['steps']}  {losses}  rate {record['rate']:.3g}  "
        f"{record['tokens_per_second']:,.0f} tokens/s  "
        f"{100 * record['peak_share']:.0f} % of peak  {left} left"
    )


def _measured(name: str, values: Mapping[str, float]) -> str:
    if "right" in values:
        return f"{name} {100 * values['right']:.1f} % right of {values['pictures']:.0f}"
    bits = values.get("bits_per_byte")
    return f"{name} {values['loss']:.4f}" + ("" if bits is None else f" ({bits:.4f} bits/byte)")


def plot(output: Path) -> Path:
    """Draws the losses of every rung over the steps, from the log."""
    from matplotlib.figure import Figure

    curves: dict[str, list[tuple[int, float]]] = {}
    held_out: dict[str, list[tuple[int, float]]] = {}
    for record in read(output):
        for name, value in record.get("losses", {}).items():
            curves.setdefault(name, []).append((record["step"], value))
        for name, values in record.get("held_out", {}).items():
            if "loss" in values:
                held_out.setdefault(name, []).append((record["step"], values["loss"]))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="nats a token")
    for number, (name, points) in enumerate(curves.items()):
        colour = f"C{number}"
        axes.plot(*zip(*smoothed(points), strict=True), color=colour, label=name)
        if name in held_out:
            axes.plot(
                *zip(*held_out[name], strict=True),
                color=colour, linestyle="", marker="o", label=f"{name}, held out",
            )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(output / PLOT) as file:
        figure.savefig(file, format="svg")
    return output / PLOT


def smoothed(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """A running mean over a fiftieth of the points."""
    share, mean, found = 1 / max(1.0, len(points) / 50), points[0][1], []
    for step, value in points:
        mean += share * (value - mean)
        found.append((step, mean))
    return found


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and name not in ("step", "steps"):
            found.append((prefix + name, float(value)))
    return found
