"""Change the size between two tokens: one cache, no reload, no second copy of the weights."""

import matryo

model = matryo.load()
session = model.session(plan="large")
for number, event in enumerate(session.generate("It was a dark night and", max_tokens=48)):
    print(event.text, end="", flush=True)
    if number == 16:
        print(" [small] ", end="")
        session.plan = "small"
print()
