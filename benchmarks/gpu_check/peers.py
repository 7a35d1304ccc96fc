"""The same on Transformers and torch: a loop of greedy steps, eager or compiled with a static cache."""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

import weights

_BATCHES = (1, 8, 64)
_PROMPT, _STEPS, _WARM = 32, 24, 6
_LONG_PROMPT = 2048


def _step_seconds(torch: Any, model: Any, batch: int) -> float:
    """Median of a greedy step in a loop without anything else: faster than ``generate``."""
    from transformers import DynamicCache

    ids = torch.randint(0, model.config.vocab_size, (batch, _PROMPT), device="cuda")
    cache = DynamicCache(config=model.config)
    logits = model(ids, past_key_values=cache, logits_to_keep=1).logits
    times = []
    for _ in range(_STEPS + _WARM):
        start = time.perf_counter()
        token = logits[:, -1].argmax(-1, keepdim=True)
        logits = model(token, past_key_values=cache, logits_to_keep=1).logits
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[_WARM:])


def _compiled_step_seconds(torch: Any, model: Any, batch: int) -> float:
    """``generate`` with a static cache, which compiles the forward pass; a long run less a short one."""
    ids = torch.randint(0, model.config.vocab_size, (batch, _PROMPT), device="cuda")

    def run(tokens: int) -> float:
        start = time.perf_counter()
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            cache_implementation="static",
            pad_token_id=0,
        )
        torch.cuda.synchronize()
        return time.perf_counter() - start

    short, long = 16, 80
    for _ in range(2):
        run(long)
    return (statistics.median(run(long) for _ in range(3)) - run(short)) / (long - short)


def _prompt_seconds(torch: Any, model: Any) -> float:
    ids = torch.randint(0, model.config.vocab_size, (1, _LONG_PROMPT), device="cuda")
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        start = time.perf_counter()
        logits = model(ids, logits_to_keep=1).logits
        logits[:, -1].argmax(-1).cpu()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main() -> int:
    """``peers.py SHAPE eager|compiled``"""
    name, kind = sys.argv[1:]
    import torch
    from transformers import AutoModelForCausalLM

    with weights.checkpoint(name) as directory, torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.bfloat16, attn_implementation="sdpa"
        ).to("cuda")
        for batch in _BATCHES if kind == "eager" else _BATCHES[:1]:
            step = _step_seconds if kind == "eager" else _compiled_step_seconds
            rate = batch / step(torch, model, batch)
            what = f"transformers {name} bf16 {kind} decode, batch {batch}"
            print(json.dumps({"what": what, "tokens_per_second": rate}), flush=True)
        if kind == "eager":
            rate = _LONG_PROMPT / _prompt_seconds(torch, model)
            what = f"transformers {name} bf16 prompt of {_LONG_PROMPT}"
            print(json.dumps({"what": what, "tokens_per_second": rate}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
