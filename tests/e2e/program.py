"""Run `matryo`: in its own process with pipes, on a terminal to type into, or inside this one."""

from __future__ import annotations

import codecs
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

COMMAND = [sys.executable, "-m", "matryo"]
# The pseudo-terminal becomes the controlling one, so that ^C reaches the program as a signal, and
# the signal is one that stops: tests in the background of a shell inherit an ignored one.
TAKE_TERMINAL = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)
AGAIN_S = 5.0  # until a key is pressed again
PATIENCE_S = 180.0  # a limit for a hanging program, not an expectation


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a program under test: its own home, one thread, no network."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MATRYO_")}
    return {
        **kept,
        "MATRYO_HOME": str(home),
        "MATRYO_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "error",
        **extra,
    }


def matryo(
    *arguments: str | Path, home: Path, stdin: str | bytes = b"", **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end with pipes."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        env=environment(home, **extra),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def invoke(
    *arguments: str | Path, home: Path, stdin: str | bytes = b"", **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run the program to its end inside this process: the same, without the time to start."""
    from typer.testing import CliRunner

    from matryo import kernels
    from matryo.cli.app import app

    words = list(map(str, arguments))
    threads = kernels.threads()
    kernels.set_threads(1)
    try:
        done = CliRunner().invoke(
            app,
            words,
            input=stdin,
            env={"MATRYO_HOME": str(home), "HF_HUB_OFFLINE": "1", **extra},
            prog_name="matryo",
            catch_exceptions=False,
        )
    finally:
        kernels.set_threads(threads)
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)


class Terminal:
    """The program on a pseudo-terminal; `screen` is all it wrote, stdout and stderr together."""

    def __init__(self, *arguments: str | Path, home: Path, **extra: str) -> None:
        self.screen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *COMMAND, *map(str, arguments)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(home, **{"TERM": "xterm", **extra}),
            start_new_session=True,
        )
        os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._master)

    def type(self, text: str) -> None:
        """Send keys; `\\x03` is Ctrl-C, `\\x04` Ctrl-D."""
        os.write(self._master, text.encode())

    def expect(self, text: str, *, after: int = 0) -> int:
        """Read until `text` is on the screen after a position; returns the position behind it."""
        deadline = time.monotonic() + PATIENCE_S
        while (at := self.screen.find(text, after)) < 0:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} never appeared after {self.screen[after:]!r}")
        return at + len(text)

    def interrupt(self, text: str, *, after: int = 0) -> int:
        """Press Ctrl-C until `text` is on the screen after a position; returns as `expect`.

        Python looks for signals before it waits for a key: one that comes in between is seen with
        the next key only.
        """
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self.type("\x03")
            again = time.monotonic() + AGAIN_S
            while time.monotonic() < again:
                if (at := self.screen.find(text, after)) >= 0:
                    return at + len(text)
                if select.select([self._master], [], [], 0.1)[0] and not self._read(again):
                    break
        raise AssertionError(f"{text!r} never appeared after {self.screen[after:]!r}")

    def wait(self) -> int:
        """Read until the program ends; returns its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            pass
        return self._process.wait(timeout=PATIENCE_S)

    def _read(self, deadline: float) -> bool:
        """Read what is there; False when the program is gone; AssertionError when it is late."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise AssertionError(f"the program hangs; the screen shows {self.screen!r}")
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux reports the end of a pseudo-terminal as an error
            return False
        self.screen += self._decoder.decode(data)  # a read may end inside a character
        return bool(data)
