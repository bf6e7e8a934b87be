"""Conversations: `Session`, the `Event`s of its generations, and session files."""

from matryo.session.events import Event, FinishReason, Stats
from matryo.session.prompt import Prompt
from matryo.session.session import Session

__all__ = ["Event", "FinishReason", "Prompt", "Session", "Stats"]
