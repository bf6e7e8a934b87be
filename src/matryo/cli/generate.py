"""Generate one answer in a session and show it; shared by `run`, `chat` and `demo`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matryo.cli.answer import Result, interruptible, show
from matryo.cli.models import sampling_of
from matryo.cli.options import GenerationOptions
from matryo.cli.progress import Bar

if TYPE_CHECKING:
    from matryo.elastic.complexity import Escalation
    from matryo.elastic.controller import Controller
    from matryo.inputs.chat import Message
    from matryo.session import Session


def generate(
    session: Session,
    prompt: str | Sequence[Message],
    options: GenerationOptions,
    *,
    controller: Controller | None = None,
    escalation: Escalation | None = None,
    json: bool = False,
    remark: bool = True,
) -> Result:
    """Show an answer while it comes; Ctrl-C ends it early and is reported in the result.

    controller, escalation: choose the size while the answer is written
    remark: whether a line of figures follows the answer, if stderr is a terminal
    """
    with interruptible() as cancel, Bar("Reading the prompt", unit="tokens") as bar:

        def progress(done: int, total: int) -> None:
            bar(done, total)
            if done >= total:
                bar.close()

        events = session.generate(
            prompt,
            max_tokens=options.max_tokens,
            sampling=sampling_of(options),
            stop=tuple(options.stop or ()),
            draft=options.draft,
            cancel=cancel,
            on_prefill_progress=progress,
            controller=controller,
            escalation=escalation,
        )
        return show(events, json=json, remark=remark)
