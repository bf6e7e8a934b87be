"""The same prompt through two of the models inside one set of weights."""

import matryo

model = matryo.load()  # the embedded model; give a path for another
for name in ("small", "large"):
    session = model.session(plan=name)
    sampling = matryo.Sampling(temperature=0.7, seed=7)
    pieces = session.generate("The old house was", max_tokens=40, sampling=sampling)
    print(f"{name}: {''.join(event.text for event in pieces)}\n")
