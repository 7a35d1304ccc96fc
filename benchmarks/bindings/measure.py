"""Nanoseconds of small calls in Python: `measure.py infinilm`, or `measure.py peer` for pybind11's. Prints JSON."""

import gc
import importlib
import json
import sys
import time

import numpy as np

COUNT, REPEATS = 100_000, 9


def timed(body):
    """The least time of one turn of a loop, in ns."""
    best = float("inf")
    for _ in range(REPEATS):
        begin = time.perf_counter_ns()
        body(range(COUNT))
        best = min(best, time.perf_counter_ns() - begin)
    return best / COUNT


def main():
    engine = importlib.import_module(sys.argv[1])
    config, registry, tensor = (
        engine.LlamaConfig(),
        engine.HookRegistry(),
        engine.Tensor.empty([1024]),
    )
    handle = registry.register_hook("point", lambda name, tensor, layer: None)
    values = np.asarray(tensor)

    def empty(turns):
        for _ in turns:
            pass

    def attribute(turns):
        for _ in turns:
            config.hidden_size  # noqa: B018

    def callback(turns):
        for _ in turns:
            registry.call_hook("point", tensor, 0)

    def view(turns):
        for _ in turns:
            np.asarray(tensor)

    def element(turns):
        for _ in turns:
            values[5]

    gc.disable()
    loop = timed(empty)
    bodies = {"attribute": attribute, "callback": callback, "view": view, "element": element}
    print(json.dumps({name: timed(body) - loop for name, body in bodies.items()}))
    del handle


if __name__ == "__main__":
    main()
