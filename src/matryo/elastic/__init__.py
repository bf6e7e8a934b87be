"""Size as something that changes while the model runs: where the bytes are, and what to do about it."""
