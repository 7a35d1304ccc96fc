"""Writes docs/hooks.md from the engine's own table of hook points.

python tools/make_hooks_doc.py            # rewrite the file
python tools/make_hooks_doc.py --check    # exit 1 if it is not up to date
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infinilm import engine

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "hooks.md"

HEAD = """\
<!-- Written by tools/make_hooks_doc.py from core/hooks/points.cpp; edit there. -->
# Hook points

`{i}` is the layer. Shapes: H hidden, A heads, K key-value heads, D head_dim, I intermediate, V vocabulary, S keys
seen so far. T stands for the leading dimensions of `input_ids`: `[tokens]` for one sequence, `[batch, tokens]` for a
rectangular batch; where sequences of different lengths run together (in `generate`), it is `[all tokens of the step]`,
and `infinilm.current_step()` tells a callback which rows are whose.

The points are listed in the order of execution. `model.hook_points()` lists them for a model, with its numbers.

| name | shape | when | aliases |
| --- | --- | --- | --- |
"""

TAIL = """
## Names

A registered name is a point, an alias, or a glob over the whole name: `*`, `?`, `[...]`, `[!...]` as in fnmatch, and `#`
for a number. `layer#_output` is every layer's residual stream; `layer*_output` would also match
`layer0_attention_output`. An alias never matches a glob, so that nothing fires twice. A name that matches no point of
any model that the registry is attached to gives one `UserWarning`.

With `model.set_hook_registry(registry, "p")` the points are called `p_layer0_mlp` and so on. A registration matches by
the full name or by the bare one, and never fires twice for one point.

## Tensors

A callback gets `(name, tensor, layer_idx)`; the tensor is the engine's own float32 buffer. Writing into it edits the
computation from there on. What you keep stays valid and unchanged; the engine goes on in another buffer. Scores and
weights exist only where a hook matches them; that layer's attention is then computed from them, so that editing works.

Keys and values are shown as they go into the KV cache. One of bfloat16 or int8 rounds what it takes up: `scores`, `weights`
and what follows are computed from the rounded ones, and an edit is rounded like anything else.

## Captures

To keep values, no function is needed:

```python
with registry.capture("layer#_output") as residual:
    model.generate(prompt, max_new_tokens=20)
for value in residual:                        # in the order of the passes and of execution
    print(value.name, value.layer_idx, value.step.step, value.tensor.shape)
np.concatenate(residual["layer3_output"])     # one point's tensors, one for each pass: [all tokens, H]
```

A capture keeps what the hooks that were registered before it have left, and lets you see it when the pass has ended; any number of
captures may have one name, and those of one point may share its tensor. `values()` gives all that it keeps, `take()` also lets go of it.
It ends with the `with` block, with `remove()`, or when nobody holds it. `value.step.sequences` says which rows are whose. On a GPU
`capture(name, to_cpu=True)` keeps values on the CPU, for which they leave while the model runs on; the last line above asks for that.

Since a capture only reads, it costs less than a hook: no call of Python, and on a GPU decode steps stay recorded ([figures](cuda.md)).
Points that are otherwise part of a larger operation (gate, up, norms, q and k) are computed by themselves, as for hooks; and where a
hook watches the same model, or a capture wants scores or weights, steps run as they do for hooks.
"""


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def document() -> str:
    rows = []
    for point in engine.hook_point_table():
        aliases = ", ".join(f"`{alias}`" for alias in point.aliases)
        rows.append(f"| `{point.name}` | {cell(point.shape)} | {cell(point.when)} | {aliases} |\n")
    return HEAD + "".join(rows) + TAIL


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only compare")
    if not parser.parse_args().check:
        DOCUMENT.write_text(document(), encoding="utf-8")
        return 0
    if DOCUMENT.read_text(encoding="utf-8") == document():
        return 0
    print("docs/hooks.md is not what tools/make_hooks_doc.py writes; run it", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
