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


def _cache(model: Any, kind: str, batch: int) -> Any:
    from transformers import DynamicCache, StaticCache

    if kind == "eager":
        return DynamicCache(config=model.config)
    return StaticCache(config=model.config, max_batch_size=batch, max_cache_len=256)


def _step_seconds(torch: Any, model: Any, forward: Any, kind: str, batch: int) -> float:
    ids = torch.randint(0, model.config.vocab_size, (batch, _PROMPT), device="cuda")
    cache = _cache(model, kind, batch)
    position = torch.arange(_PROMPT, device="cuda")
    logits = model(ids, past_key_values=cache, cache_position=position, logits_to_keep=1).logits
    times = []
    for i in range(_STEPS + _WARM):
        start = time.perf_counter()
        token = logits[:, -1].argmax(-1, keepdim=True).clone()
        token.cpu()
        at = torch.tensor([_PROMPT + i], device="cuda")
        logits = forward(token, past_key_values=cache, cache_position=at, logits_to_keep=1).logits
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[_WARM:])


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
            directory, dtype=torch.bfloat16, device_map="cuda", attn_implementation="sdpa"
        )
        forward = model
        if kind == "compiled":
            forward = torch.compile(model, mode="reduce-overhead", fullgraph=True, dynamic=False)
        for batch in _BATCHES if kind == "eager" else _BATCHES[:1]:
            seconds = _step_seconds(torch, model, forward, kind, batch)
            what = f"transformers {name} bf16 {kind} decode, batch {batch}"
            print(json.dumps({"what": what, "tokens_per_second": batch / seconds}), flush=True)
        if kind == "eager":
            rate = _LONG_PROMPT / _prompt_seconds(torch, model)
            what = f"transformers {name} bf16 prompt of {_LONG_PROMPT}"
            print(json.dumps({"what": what, "tokens_per_second": rate}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
