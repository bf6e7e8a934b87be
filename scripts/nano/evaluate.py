"""Measure `matryo-nano` on held-out text with the reference implementation, per nested plan.

In: a Hugging Face directory with `plans.json` (see `train.py`) and `CACHE/heldout.jsonl`.
Out: per plan and pool the loss in nats per token, the perplexity and the bits per UTF-8 byte,
then sample generations; `--json` writes the same figures to a file.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from transformers import AutoTokenizer, Gemma3nForCausalLM, PreTrainedTokenizerBase

from nested import Plan, nest, set_plan

QUESTIONS = ("What is a harbor?", "What does it mean to run?", "What is 3 plus 4?", "Hello!")
OPENING = "The old man looked at the sea, and"


def read_texts(path: Path, limit: int) -> dict[str, list[str]]:
    """Return the held-out texts of every pool, about `limit` characters of each."""
    pools: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        record = json.loads(line)
        texts = pools.setdefault(record["pool"], [])
        if sum(map(len, texts)) < limit:
            texts.append(record["text"])
    return pools


@torch.no_grad()
def measure(
    model: Gemma3nForCausalLM, tokenizer: PreTrainedTokenizerBase, texts: list[str], context: int
) -> dict[str, float]:
    """Return loss, perplexity and bits per byte; texts are cut into parts of `context` tokens."""
    nats, tokens = 0.0, 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt").input_ids
        for start in range(0, ids.shape[1] - 1, context):
            part = ids[:, start : start + context + 1]
            count = part.shape[1] - 1
            nats += model(input_ids=part, labels=part, use_cache=False).loss.item() * count
            tokens += count
    size = sum(len(text.encode()) for text in texts)
    loss = nats / tokens
    return {
        "loss": round(loss, 4),
        "perplexity": round(math.exp(loss), 2),
        "bits_per_byte": round(nats / math.log(2) / size, 4),
        "tokens": tokens,
    }


def answer(
    model: Gemma3nForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str, new: int
) -> str:
    """Return the greedy continuation of a prompt that already holds its markers."""
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    # A nested plan may leave layers out, which the cache of `generate` does not expect.
    output = model.generate(ids, max_new_tokens=new, do_sample=False, use_cache=False)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True).strip()


def main() -> None:
    """Print the figures and the samples of every plan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("heldout", type=Path)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--limit", type=int, default=60_000, help="characters per pool")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = Gemma3nForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    nest(model)
    plans = json.loads((arguments.model / "plans.json").read_text("utf-8"))
    pools = read_texts(arguments.heldout, arguments.limit)
    report: dict[str, dict[str, object]] = {}
    for name in ("small", "medium", "large"):
        set_plan(model, Plan(tuple(plans[name]["layers"]), tuple(plans[name]["ffn_width"])))
        figures = report.setdefault(name, {})
        for pool, texts in pools.items():
            figures[pool] = measure(model, tokenizer, texts, arguments.context)
            print(name, pool, figures[pool], flush=True)
        samples = figures["samples"] = {OPENING: answer(model, tokenizer, "<bos>" + OPENING, 40)}
        for question in QUESTIONS:
            turns = [{"role": "user", "content": question}]
            prompt = tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False
            )
            samples[question] = answer(model, tokenizer, prompt, 40)
        for prompt, text in samples.items():
            print(f"{name} | {prompt} | {text!r}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
