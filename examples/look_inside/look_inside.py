"""Generates, captures an MLP and silences it: the same in Python, Lua and Java.

Usage: python look_inside.py DIRECTORY
"""

import sys

import infinilm

PROMPT = [1, 20, 300, 7, 45]

model = infinilm.LlamaForCausalLM.from_pretrained(sys.argv[1])
print("generated", *model.generate(PROMPT, max_new_tokens=8))


def five_logits():
    return " ".join(f"{logit:.5f}" for logit in model.forward(PROMPT).numpy()[-1, :5])


print("plain    ", five_logits())

captured = []


def capture_and_silence(name, tensor, layer):
    values = tensor.numpy()
    captured.append(values.copy())
    values[...] = 0


registry = infinilm.HookRegistry()
handle = registry.register_hook("layer1_mlp", capture_and_silence)
model.set_hook_registry(registry)
print("silenced ", five_logits())
print("captured ", *captured[0].shape, f"{captured[0][0, 0]:.5f}", handle.calls)
