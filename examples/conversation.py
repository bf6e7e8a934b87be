"""A conversation that is saved, restored and continued with its cache."""

import tempfile
from pathlib import Path

import matryo

model = matryo.load()
session = model.session(plan="large")
greedy = matryo.Sampling(temperature=0.0)


def ask(session: matryo.Session, question: str) -> None:
    """Print one exchange."""
    print(f"> {question}")
    messages = [{"role": "user", "content": question}]
    for event in session.generate(messages, max_tokens=32, sampling=greedy):
        print(event.text, end="", flush=True)
    print("\n")


ask(session, "What is a lighthouse?")
with tempfile.TemporaryDirectory() as directory:
    path = Path(directory) / "lighthouse.session"
    session.save(path)
    restored = model.restore(path)
ask(restored, "What is a harbour?")
