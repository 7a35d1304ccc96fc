"""``infinilm bench``: how fast a model runs here, beside what the machine can do at best."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import (
    add_device_argument,
    add_kv_cache_argument,
    add_quantization_arguments,
    model_directory,
    quantization_options,
    set_threads,
)
from .table import format_table

if TYPE_CHECKING:
    from ..benchmark.measure import Bench, Sample, Work
    from ..model import LlamaForCausalLM

USAGE = "[DIR | --shape NAME] [options]"
HELP = "measure speed beside the machine's limits"
DESCRIPTION = """\
Measure prefill and decode, each beside what the device can do at best: its peak arithmetic and its
bandwidth, measured right before and after every sample. Printed are medians over the rounds,
with the lowest and the highest; shares of the limits are taken sample by sample."""
EXAMPLES = """\
examples:
  infinilm bench ~/models/Llama-3.2-1B
  infinilm bench --shape 1b --batch 1,8,32                 random weights in that model's sizes
  infinilm bench --shape 1b --quantization int4 --threads 2
  infinilm bench --shape 8b --device cuda
  infinilm bench --shape 150m --json speed.json --plot speed.png

Prefill: a prompt of --prompt-tokens, until its next token is there. Decode: the --new-tokens after
that. GFLOP/s counts the matrix products of the layers, GB/s the weights read for each step.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    from ..benchmark.shapes import SHAPES

    model = parser.add_argument_group("model")
    model.add_argument(
        "model", nargs="?", metavar="DIR", help="HuggingFace directory (default: the sample model)"
    )
    model.add_argument(
        "--shape", choices=SHAPES, help="random weights in these sizes instead of a directory"
    )
    model.add_argument(
        "--dtype", metavar="NAME", help="float32 or bfloat16 (default: what the checkpoint says)"
    )
    add_kv_cache_argument(model)
    add_quantization_arguments(model)
    add_device_argument(model)
    model.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all cores)")
    work = parser.add_argument_group("work")
    for name, default, text in (
        ("new-tokens", 64, "tokens to decode after a prompt"),
        ("rounds", 5, "samples of each batch; one more warms up"),
    ):
        work.add_argument(
            f"--{name}",
            type=_positive,
            metavar="N",
            default=default,
            help=f"{text} (default: {default})",
        )
    work.add_argument(
        "--prompt-tokens",
        type=_positive,
        metavar="N",
        help="tokens of a prompt (default: 512, or what the model has room for)",
    )
    work.add_argument(
        "--batch",
        type=_counts,
        metavar="N,…",
        default=[1],
        help="sequences side by side, such as 1,8 (default: 1)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", metavar="FILE", help="write every sample")
    output.add_argument(
        "--plot", metavar="FILE", help="draw them (PNG, SVG, PDF); needs matplotlib"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measures and prints."""
    from .. import engine
    from ..benchmark.measure import Bench, Work, arithmetic_of

    if arguments.model is not None and arguments.shape is not None:
        arguments.parser.error("give a model's directory or --shape, and not both")
    if arguments.plot:
        from ..benchmark.plot import require_matplotlib

        require_matplotlib()  # before the minutes of measuring
    set_threads(arguments)
    model = _load(arguments)
    bench = Bench(model, arithmetic_of(model, arguments.activations))
    room = model.config.max_sequence_length() - arguments.new_tokens - 1
    prompt_tokens = arguments.prompt_tokens or max(1, min(512, room))
    works = [Work(prompt_tokens, arguments.new_tokens, n) for n in arguments.batch]
    results: dict[Work, list[Sample]] = {work: [] for work in works}
    for work, sample in bench.samples(works, arguments.rounds):
        results[work].append(sample)
        _progress(f"{sum(map(len, results.values()))} of {arguments.rounds * len(works)} samples")
    _progress("")
    report = _report(arguments, engine, model, bench, results)
    print(f"{report['machine']}\n{report['title']}\n")
    print(_table(results, bench))
    if arguments.json:
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        Path(arguments.json).write_text(text, encoding="utf-8")
    if arguments.plot:
        from ..benchmark.plot import plot

        plot(results, report["title"], bench.instruction, arguments.plot)
    return 0


def _load(arguments: argparse.Namespace) -> LlamaForCausalLM:
    from ..benchmark.random_model import temporary_checkpoint
    from ..benchmark.shapes import SHAPES
    from ..model import LlamaForCausalLM

    options = {
        "device": arguments.device,
        "dtype": arguments.dtype,
        "kv_cache_dtype": arguments.kv_cache_dtype,
        **quantization_options(arguments),
    }
    if arguments.shape is None:
        directory = model_directory(arguments.model)
        return LlamaForCausalLM.from_pretrained(directory, progress=True, **options)
    _progress(f"making {arguments.shape}")
    with temporary_checkpoint(SHAPES[arguments.shape]) as folder:
        _progress("")
        return LlamaForCausalLM.from_pretrained(folder, progress=True, **options)


def _report(
    arguments: argparse.Namespace,
    engine: Any,
    model: Any,
    bench: Bench,
    results: dict[Work, list[Sample]],
) -> dict[str, Any]:
    """What --json writes."""
    from ..benchmark.machine import machine
    from ..benchmark.shapes import head_parameters, layer_parameters

    config = model.config
    options = {
        "dtype": str(config.dtype),
        "kv_cache_dtype": str(model.kv_cache_dtype),
        **quantization_options(arguments),
    }
    name = arguments.shape or Path(model_directory(arguments.model)).name
    title = (
        f"{name}: {layer_parameters(config) / 1e6:.4g} M parameters in the layers, "
        f"{head_parameters(config) / 1e6:.4g} M in the head, "
        f"{bench.nbytes_per_pass / 1e9:.3g} GB of weights a pass; "
        + ", ".join(f"{key} {value}" for key, value in options.items())
        + (f"; {engine.num_threads()} threads" if model.device == "cpu" else "")
        + f", infinilm {engine.version()}"
        + (f" ({engine.cpu_level()})" if model.device == "cpu" else "")
    )
    return {
        "title": title,
        "machine": machine(str(model.device)),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": engine.version(),
        "cpu_level": engine.cpu_level(),
        "device": str(model.device),
        "threads": engine.num_threads(),
        "model": name,
        "options": options,
        "layer_parameters": layer_parameters(config),
        "head_parameters": head_parameters(config),
        "nbytes_per_pass": bench.nbytes_per_pass,
        "peak_instruction": bench.instruction,
        "runs": [
            {**asdict(work), "samples": [asdict(sample) for sample in samples]}
            for work, samples in results.items()
        ],
    }


def _table(results: dict[Work, list[Sample]], bench: Bench) -> str:
    from ..benchmark.measure import figures, median, spread

    rows: list[tuple[str, ...]] = [
        ("batch", "prefill tok/s", "GFLOP/s", f"{bench.instruction} GFLOP/s", "of peak",
         "decode tok/s", "GB/s", "read GB/s", "of bandwidth"),
    ]  # fmt: skip
    for work, samples in results.items():
        rows.append(
            (
                str(work.batch),
                spread(figures(samples, "prefill_tokens_per_second")),
                f"{median(samples, 'prefill_gflops'):.4g}",
                f"{median(samples, 'peak_gflops'):.4g}",
                f"{100 * median(samples, 'prefill_of_peak'):.0f} %",
                spread(figures(samples, "decode_tokens_per_second")),
                f"{median(samples, 'decode_gbs'):.4g}",
                f"{median(samples, 'read_gbs'):.4g}",
                f"{100 * median(samples, 'decode_of_bandwidth'):.0f} %",
            )
        )
    return format_table(rows, right=frozenset(range(len(rows[0]))))


def _progress(text: str) -> None:
    """Says where a long run is, on a terminal; an empty text ends it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above zero, found {text!r}")
    return value


def _counts(text: str) -> list[int]:
    values = [_positive(part) for part in text.split(",")]
    if len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"expected each number once, found {text!r}")
    return values
