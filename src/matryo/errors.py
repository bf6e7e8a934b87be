"""The errors of matryo. Every message says what, where, expected, got, and what to do.

MatryoError
├── CheckpointError   a checkpoint, tokenizer or session file that is broken or does not fit
├── ConfigError       a setting or config field is missing, unknown or out of range
├── PlanError         a plan that this checkpoint or this architecture does not allow
├── ShapeError        an array of the wrong shape, dtype or layout
├── InputError        a prompt, id, message or media file that cannot be used
├── CapacityError     context, memory or disk is too small for what was asked
├── CancelledError    the caller cancelled the work
├── TrainingError     training cannot go on, or what came out of it is not what went in
└── KernelError       the native module is missing, misconfigured, or computed no numbers
"""

from __future__ import annotations


class MatryoError(Exception):
    """Base of every error that matryo raises on purpose; `str(error)` is one readable sentence."""


class CheckpointError(MatryoError):
    """A file that does not hold what it should; `file` and `tensor` name the place if known."""

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        tensor: str | None = None,
        expected: str | None = None,
        got: str | None = None,
    ) -> None:
        place = ": ".join(part for part in (file, tensor) if part)
        detail = ", ".join(
            f"{label} {value}" for label, value in (("expected", expected), ("got", got)) if value
        )
        text = f"{place}: {message}" if place else message
        super().__init__(f"{text} ({detail})" if detail else text)
        self.file, self.tensor, self.expected, self.got = file, tensor, expected, got


class ConfigError(MatryoError):
    """A configuration value outside what is allowed."""


class PlanError(MatryoError):
    """An illegal plan; the message gives the reason."""


class ShapeError(MatryoError):
    """An array whose shape, dtype or memory layout does not fit."""


class InputError(MatryoError):
    """User input that cannot be processed."""


class CapacityError(MatryoError):
    """Something is too small: `needed` and `available` are counts in the unit the message names."""

    def __init__(
        self, message: str, *, needed: int | None = None, available: int | None = None
    ) -> None:
        super().__init__(message)
        self.needed, self.available = needed, available


class CancelledError(MatryoError):
    """Work stopped because the caller asked for it."""


class TrainingError(MatryoError):
    """A loss that is no number, or an exported model that computes something else."""


class KernelError(MatryoError):
    """The native kernels cannot run, or a forward pass gave non-finite numbers."""
