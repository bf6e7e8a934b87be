"""Size as something that changes while the model runs: where the bytes are, what to do about it."""
