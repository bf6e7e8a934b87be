"""How well each size predicts a text: logits of every position, one line a plan."""

import numpy as np

import matryo

TEXT = (
    "It was a bright morning, and the two sisters walked down to the village, where they hoped "
    "to hear some news of their brother, who had been at sea for more than a year."
)

model = matryo.load()
ids = model.tokenizer.encode(TEXT, bos=True)
for name in ("small", "medium", "large"):
    logits = model.logits(ids, plan=name, positions="all").astype(np.float64)
    top = logits.max(axis=-1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(axis=-1))
    nats = total[:-1] - logits[np.arange(len(ids) - 1), ids[1:]]
    print(f"{name:8} perplexity {np.exp(nats.mean()):8.1f} over {len(nats)} tokens")
