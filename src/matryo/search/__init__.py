"""The best sub-models of a checkpoint for a task on this device, measured.

In: an open model and a task. Out: `search` gives `Found`: plans with their measured quality, speed
and memory, on rows that the search did not see.
"""

from matryo.search.found import Found
from matryo.search.run import search
from matryo.search.settings import SearchSettings

__all__ = ["Found", "SearchSettings", "search"]
