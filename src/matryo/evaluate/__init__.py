"""How good a model is, at every size: perplexity, multiple choice and generated answers, with
confidence intervals.

In: an open model and a task (`read_task`). Out: `evaluate` gives a `Report`.
"""

from matryo.evaluate.report import Report
from matryo.evaluate.run import Settings, evaluate
from matryo.evaluate.task import Task, read_task

__all__ = ["Report", "Settings", "Task", "evaluate", "read_task"]
