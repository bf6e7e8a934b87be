"""Files of weights: bytes in, arrays out. Nothing here knows how a model computes."""
