"""One chat: its messages, its session, and the commands that begin with a slash.

In: lines that a person types. Out: for a command a reply as text; for anything else an answer that
is shown as it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matryo.cli.answer import Result, resident_bytes
from matryo.cli.attachments import read_attachments
from matryo.cli.elastic import open_controller, open_escalation
from matryo.cli.generate import generate
from matryo.cli.models import open_session
from matryo.cli.options import ElasticOptions, GenerationOptions, LoadOptions
from matryo.cli.outcome import CommandError
from matryo.cli.output import format_bytes
from matryo.cli.transcript import read_transcript, transcript_path, write_transcript

if TYPE_CHECKING:
    from matryo.inputs.chat import Message
    from matryo.loading import Model

HELP = """\
/attach FILE a picture, sound or video for the next message; may be repeated
/size NAME   go on with another of the nested models, here and now
/stats       messages, tokens, speed, memory
/undo        take back the last exchange
/reset       start again
/save PATH   write the conversation to a file
/load PATH   go on with a saved one
/help        this list
/exit        leave; Ctrl-D does the same, Ctrl-C stops an answer
A line that ends with \\ goes on in the next one."""


class Conversation:
    """Messages and a session that belong together."""

    def __init__(
        self,
        model: Model,
        load: LoadOptions,
        options: GenerationOptions,
        elastic: ElasticOptions,
        system: str | None,
    ) -> None:
        self._model = model
        self._load = load
        self._options = options
        self._controller = open_controller(model, load, elastic)
        self._escalation = open_escalation(model, load, elastic)
        self._system = system
        self._commands: dict[str, Callable[[str], str]] = {
            "/attach": self._attach,
            "/size": self._size,
            "/stats": self._stats,
            "/undo": self._undo,
            "/reset": self._reset,
            "/save": self._save,
            "/load": self._restore,
            "/help": lambda _: HELP,
        }
        self._last: Result | None = None
        self._begin()

    @property
    def commands(self) -> list[str]:
        """The names of the commands."""
        return [*self._commands, "/exit"]

    def _begin(self) -> None:
        self._session = open_session(self._model, self._load)
        self._attached: list[dict[str, Any]] = []
        self._messages: list[Message] = []
        if self._system is not None:
            self._messages.append({"role": "system", "content": self._system})

    def ask(self, text: str, *, json: bool) -> Result:
        """Show and return the answer to a message; what was said before an interruption stays."""
        content: Any = text
        if self._attached:
            content = [*self._attached, {"type": "text", "text": text}]
        question: Message = {"role": "user", "content": content}
        messages = [*self._messages, question]
        self._last = generate(
            self._session,
            messages,
            self._options,
            controller=self._controller,
            escalation=self._escalation,
            json=json,
        )
        if self._last.text:
            self._messages = [*messages, {"role": "assistant", "content": self._last.text}]
            self._attached = []
        return self._last

    def command(self, line: str) -> str:
        """Obey a line that begins with a slash; returns the reply.

        Raises CommandError or MatryoError.
        """
        name, _, argument = line.partition(" ")
        if name not in self._commands:
            raise CommandError(f"unknown command {name}; /help lists them")
        return self._commands[name](argument.strip())

    def _attach(self, argument: str) -> str:
        if not argument:
            raise CommandError("name a file")
        file = argument if "://" in argument else str(Path(argument).expanduser())
        (item,) = read_attachments(self._model, [file])
        self._attached.append(item)
        kinds = ", ".join(str(one["type"]) for one in self._attached)
        return f"the next message comes with: {kinds}"

    def _size(self, argument: str) -> str:
        if argument and self._controller is not None:
            raise CommandError("the policy chooses the size; leave --policy out to choose it here")
        if argument and self._escalation is not None:
            raise CommandError("--escalate chooses the size; leave it out to choose it here")
        if argument:
            self._session.plan = argument
        names = ", ".join(self._model.plans)
        return f"size {self._session.plan_name}; there are {names}"

    def _stats(self, _: str) -> str:
        said = sum(message["role"] != "system" for message in self._messages)
        parts = [
            f"{said} messages",
            f"{len(self._session)} of {self._model.config.context_length} tokens",
            f"size {self._session.plan_name}",
            f"{format_bytes(resident_bytes())} resident",
        ]
        if self._last is not None:
            parts.insert(2, f"{self._last.end.stats.tps:.1f} tokens/s")
        return " · ".join(parts)

    def _undo(self, _: str) -> str:
        if len(self._messages) < 2:
            raise CommandError("there is nothing to take back")
        self._messages = self._messages[:-2]
        return "took back the last exchange"

    def _reset(self, _: str) -> str:
        self._begin()
        return "a new conversation"

    def _save(self, argument: str) -> str:
        path = _path(argument)
        self._session.save(path)
        write_transcript(transcript_path(path), self._messages)
        return f"saved to {path}, and what was said to {transcript_path(path)}"

    def _restore(self, argument: str) -> str:
        path = _path(argument)
        messages = read_transcript(transcript_path(path))
        self._session = self._model.restore(path)
        self._messages, self._attached = messages, []
        return f"loaded {path}: {len(self._messages)} messages"


def _path(argument: str) -> Path:
    if not argument:
        raise CommandError("name a file")
    return Path(argument).expanduser()
