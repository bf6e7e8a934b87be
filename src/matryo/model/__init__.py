"""The arithmetic of the towers, as functions over (config, weights, state)."""
