"""Opening a model: from a path, or nothing, to a `Model`."""

from matryo.loading.home import home_directory
from matryo.loading.load import load
from matryo.loading.model import Model

__all__ = ["Model", "home_directory", "load"]
