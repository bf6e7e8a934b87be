"""The training and held-out data of `matryo-nano`, rebuilt from public packages.

In: a cache directory; package registries. Out: rows for training and for measuring, pictures,
speech and a tokenizer, as `scripts/nano/README.md` describes them.
"""
