"""The arithmetic of the towers, as functions over (config, weights, state)."""

from matryo.model.batch import Batch
from matryo.model.cache import KVCache
from matryo.model.state import State
from matryo.model.text import TextModel

__all__ = ["Batch", "KVCache", "State", "TextModel"]
