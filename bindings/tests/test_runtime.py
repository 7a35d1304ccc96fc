"""Threads and instruction sets: settings of the process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import infinilm
import numpy as np
import pytest
from infinilm import operations

LEVELS = ["scalar", "avx2", "avx512", "avx512bf16", "amx", "neon"]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`code` in a process of its own, without settings but these."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("INFINILM_")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**env, **environment}, capture_output=True, text=True
    )


def output(code: str, **environment: str) -> str:
    done = run(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHOW_THREADS = "import infinilm; print(infinilm.num_threads())"
SHOW_LEVEL = "import infinilm; print(infinilm.cpu_level())"
MULTIPLY = """
import numpy as np, infinilm
from infinilm import operations
infinilm.set_num_threads(4)
x = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
layer = operations.PackedLinear([np.ones((512, 256), np.float32)], "float32")
multiply = lambda: layer.apply(x, [])[0].numpy()
"""


def test_default_threads_are_the_cores_of_the_affinity_mask() -> None:
    assert 1 <= int(output(SHOW_THREADS)) <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        first = min(os.sched_getaffinity(0))
        assert output(f"import os; os.sched_setaffinity(0, [{first}]); {SHOW_THREADS}") == "1"


def test_the_environment_sets_the_threads() -> None:
    assert output(SHOW_THREADS, INFINILM_NUM_THREADS="3") == "3"


@pytest.mark.parametrize("text", ["0", "-1", "1025", "two", "2x", "1.5", "99999999999"])
def test_a_wrong_number_of_threads_in_the_environment(text: str) -> None:
    error = run(SHOW_THREADS, INFINILM_NUM_THREADS=text).stderr
    assert (
        f'ValueError: INFINILM_NUM_THREADS: expected a number from 1 to 1024, found "{text}"'
        in error
    )


@pytest.mark.parametrize("count", [0, -1, 1025])
def test_a_wrong_number_of_threads(count: int) -> None:
    with pytest.raises(ValueError, match=f"from 1 to 1024, found {count}"):
        infinilm.set_num_threads(count)


def test_levels() -> None:
    levels = infinilm.available_cpu_levels()
    assert levels[0] == "scalar"
    assert levels == [level for level in LEVELS if level in levels]
    assert infinilm.cpu_level() == os.environ.get("INFINILM_CPU", levels[-1])


def test_the_environment_sets_the_level() -> None:
    for level in infinilm.available_cpu_levels():
        assert output(SHOW_LEVEL, INFINILM_CPU=level) == level


def test_a_level_that_is_not_here() -> None:
    error = run(SHOW_LEVEL, INFINILM_CPU="avx3").stderr
    assert "ValueError: INFINILM_CPU: expected an instruction set of this machine (scalar" in error
    assert 'found "avx3"' in error


def test_several_python_threads_share_the_pool() -> None:
    weight = np.random.default_rng(0).standard_normal((300, 200)).astype(np.float32)
    inputs = [
        np.random.default_rng(i).standard_normal((33, 200)).astype(np.float32) for i in range(6)
    ]
    layer = operations.PackedLinear([weight], "float32")
    expected = [layer.apply(x, [])[0].numpy() for x in inputs]
    wrong: list[Any] = []

    def work(index: int) -> None:
        for _ in range(20):
            if not np.array_equal(layer.apply(inputs[index], [])[0].numpy(), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    code = (
        MULTIPLY
        + """
import os, warnings
warnings.simplefilter("ignore", DeprecationWarning)
before = multiply()
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(multiply(), before) and infinilm.num_threads() == 4 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert np.array_equal(multiply(), before)
print("done")
"""
    )
    assert output(code) == "done"


def test_exit_with_idle_and_with_busy_workers() -> None:
    assert output(MULTIPLY + "multiply(); print('done')") == "done"
    busy = """
import threading, time
def work():
    while True:
        multiply()
threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
print("done")
"""
    assert output(MULTIPLY + busy) == "done"
