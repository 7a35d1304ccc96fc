#!/usr/bin/env python3
"""Prefill and decode speed of infinilm and of the engines that are installed, on the same weights.

    python benchmarks/compare                               the 150M shape, everything installed
    python benchmarks/compare --shape 1b --cache DIR --threads 2 --markdown table.md
    python benchmarks/compare --classes int8 int4 --peers llama.cpp
    python benchmarks/compare --model DIR --only infinilm Q8_0

Engines: infinilm, llama.cpp (pip install llama-cpp-python gguf), transformers (torch transformers),
CTranslate2 (ctranslate2), OpenVINO GenAI (openvino-genai), onnxruntime-genai (onnxruntime-genai).
The checkpoint is converted for each of them once, into --cache; that takes what the scripts in
convert/ say; what this interpreter lacks for it, another may have (--convert-with).

In each round every candidate takes its turn in a process of its own, in another order: it loads,
warms up, and runs --repeats prompts for decode (time between the first new token and the last) and
for prefill (time to the first new token). Read bandwidth and peak arithmetic are measured right
before and after each. Printed are medians with the lowest and the highest; ratios are taken round
by round.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import infinilm
import models
import report
from candidates import candidates, installed, prepare
from infinilm.benchmark.shapes import SHAPES
from peers import CLASSES, PEERS
from sampling import Work, compare
from tables import tables


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_common_arguments(parser, rounds=3)
    add = parser.add_argument
    add("--shape", choices=SHAPES, default="150m", help="random model (default: %(default)s)")
    add("--model", type=Path, metavar="DIR", help="a bfloat16 checkpoint instead of --shape")
    others = [name for name in PEERS if name != "infinilm"]
    add(
        "--peers",
        choices=[*others, "none"],
        nargs="+",
        default=others,
        help="engines to compare with (default: all that are installed)",
    )
    add("--classes", choices=CLASSES, nargs="+", default=list(CLASSES), help="number formats")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="candidates with one of these in their names",
    )
    for name, default, text in (
        ("prefill", 512, "prompt for prefill"),
        ("prompt", 128, "prompt before decode"),
        ("decode", 64, "tokens to decode"),
        ("repeats", 3, "samples a round"),
    ):
        add(f"--{name}", type=report.positive, default=default, help=f"{text} ({default})")
    add(
        "--max-others",
        type=float,
        default=math.inf,
        metavar="PERCENT",
        help="wait (up to half a minute) before a sample while other processes take more of the "
        "machine than this, and repeat it (up to three times) if they did (default: no limit)",
    )
    add(
        "--cache",
        type=Path,
        default=models.default_folder(),
        help="where checkpoints and conversions are kept (default: %(default)s); all of the 1b "
        "shape take 25 GB",
    )
    add(
        "--convert-with",
        default=sys.executable,
        metavar="PYTHON",
        help="a second interpreter, for converters whose packages this one lacks",
    )
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    return parser.parse_args()


def main() -> None:
    """Converts, runs and prints."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options = parse_arguments()
    infinilm.set_num_threads(options.threads)  # of the limits
    checkpoint = options.model or models.make_checkpoint(options.shape, "bfloat16", options.cache)
    names, missing = installed([n for n in PEERS if n == "infinilm" or n in options.peers])
    chosen = []
    for candidate in candidates(names, options.classes, options.only):
        report.progress(f"preparing {candidate}")
        pythons = [sys.executable, options.convert_with]
        failure = prepare(candidate, checkpoint, options.cache, pythons)
        missing += [failure] if failure else []
        chosen += [] if failure else [candidate]
    report.progress("")
    for line in missing:
        print(f"skipped: {line}", file=sys.stderr)
    work = Work(
        checkpoint, options.cache, options.threads, options.prefill, options.prompt,
        options.decode, options.repeats, options.max_others,
    )  # fmt: skip
    results = compare(chosen, work, options.rounds)
    title = (
        f"{checkpoint.name}, {options.threads} threads, prefill {work.prefill}, decode "
        f"{work.decode} after {work.prompt}, {options.rounds} rounds of {work.repeats}; "
        f"{report.machine()}, {date.today()}"
    )
    text = f"{title}\n\n{tables(results, work)}\n"
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    report.write_json(options.json, {"title": title, "results": [asdict(r) for r in results]})


if __name__ == "__main__":
    main()
