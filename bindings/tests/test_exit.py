"""The end of the interpreter, with threads still in the core: no crash, no abort, no hang."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

RUNS = 12

SETUP = """
import threading, time
import numpy as np
import infinilm
from infinilm import HookRegistry, LlamaConfig, Tensor, engine

config = LlamaConfig(vocab_size=61, hidden_size=32, intermediate_size=44, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, attention_bias=False)
state = {p.name: np.full(p.shape, 0.01, np.float32) for p in engine.parameters(config)}

def new_model():
    model = engine.LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model

ids = np.array([3, 1, 4], np.int64)
"""

DAEMONS = """
started = threading.Barrier(3)

def work():
    model, registry = new_model(), HookRegistry()
    model.set_hook_registry(registry)
    kept = []
    def hook(name, tensor, layer_idx):
        kept.append(tensor.numpy())
        kept[:-10] = []
    registry.register_hook("*", hook)
    model.forward(ids)
    started.wait()
    while True:
        model.forward(ids)

for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
started.wait()
print("done")
"""

LIVE_MODELS = """
model, registry = new_model(), HookRegistry()
model.set_hook_registry(registry)
registry.register_hook("logits", lambda n, t, i: (model, registry))
model.forward(ids)
generation = engine.Generation(model, [[1]], infinilm.GenerationConfig(max_new_tokens=4),
                               [lambda tokens, logits: generation])
generation.step()
kept = model.state_dict()
capsule = next(iter(kept.values())).__dlpack__()
print("done")
"""

AT_EXIT = """
import atexit
model, registry = new_model(), HookRegistry()
model.set_hook_registry(registry)
seen = []
registry.register_hook("logits", lambda n, t, i: seen.append(n))
atexit.register(lambda: print("heard", len(seen)))
atexit.register(lambda: model.forward(ids))
print("done")
"""

IN_A_DESTRUCTOR = """
class Last:
    def __init__(self):
        self.model, self.registry = new_model(), HookRegistry()
        self.model.set_hook_registry(self.registry)
        self.registry.register_hook("logits", lambda n, t, i: None)
    def __del__(self):
        self.model.forward(ids)
last = Last()
print("done")
"""

ERROR_IN_A_THREAD = """
def work():
    while True:
        try:
            new_model().forward(np.array([99]))
        except IndexError:
            pass

threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
print("done")
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SETUP + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "script",
    [DAEMONS, LIVE_MODELS, IN_A_DESTRUCTOR, ERROR_IN_A_THREAD],
    ids=["daemons", "live models", "destructor", "error in a thread"],
)
def test_the_interpreter_ends_quietly(script: str) -> None:
    runs = RUNS if script in (DAEMONS, ERROR_IN_A_THREAD) else 2
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(run, [script] * runs):
            assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "done", "")


def test_hooks_work_in_atexit_handlers() -> None:
    result = run(AT_EXIT)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.split("\n")[:2] == ["done", "heard 1"]


def test_a_fork_after_use() -> None:
    result = run(
        """
        import os, sys
        model = new_model()
        before = model.forward(ids).tolist()
        child = os.fork()
        if child == 0:
            os._exit(0 if model.forward(ids).tolist() == before else 1)
        _, status = os.waitpid(child, 0)
        assert model.forward(ids).tolist() == before
        sys.exit(os.waitstatus_to_exitcode(status))
        """
    )
    assert result.returncode == 0, result.stderr
