"""The five languages of `matryo-nano`, and how a row names them."""

from __future__ import annotations

LANGUAGES = ("en", "es", "fr", "it", "pt")
NAMES = {"en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "pt": "Portuguese"}
