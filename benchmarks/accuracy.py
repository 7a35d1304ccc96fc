#!/usr/bin/env python3
"""The error of each number format against float32 on the same weights, beside llama.cpp's formats.

    python accuracy.py                               the sample model, on eight sonnets
    python accuracy.py --model DIR --text FILE
    python accuracy.py --shape 1b --cache DIR        random weights, on text that float32 writes

For every token of the text: the KL divergence of a format's next-token distribution from that of
infinilm in float32 on the same checkpoint, whether both have the same likeliest token, and the
perplexity of the text. A random model has no text of its own: it is sampled from its float32
distribution (temperature 1, seeded), so that perplexity means something. Its weights are spread as
trained ones are (infinilm.benchmark.random_model). Each format runs in a process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import infinilm
import models
import numpy as np
import report
from infinilm.benchmark.shapes import SHAPES, head_parameters, layer_parameters
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent / "compare"))
from candidates import Candidate, candidates, installed, prepare
from peers import CLASSES, Kind
from peers.llama_cpp_peer import LlamaCpp

TEXT = Path(__file__).parent / "texts" / "sonnets.txt"
REFERENCE = "float32"
Windows = list[list[int]]


@dataclass
class Errors:
    """Of one format, over all tokens of the text."""

    name: str
    bits: float = 0.0  # a weight that a pass reads, on average
    kl: float = 0.0
    kl_99: float = 0.0  # 99 of 100 tokens have less
    agreement: float = 0.0  # share of tokens with the same likeliest next one
    perplexity: float = 0.0
    failure: str = ""


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each row, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def kl_divergence(reference: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """KL(reference || other) of each row of log-probabilities, in nats."""
    terms = np.exp(reference) * (reference - other)
    divergence: NDArray[np.float64] = terms.sum(axis=-1)
    return np.maximum(divergence, 0.0)  # rounding may leave -1e-16


def compare_logits(
    name: str, windows: Windows, reference: list[NDArray[Any]], logits: list[NDArray[Any]]
) -> Errors:
    """All figures of a format out of its logits [tokens, V] for each window."""
    kl, same, nll = [], [], []
    for ids, expected, found in zip(windows, reference, logits, strict=True):
        for begin in range(0, len(ids), 64):  # float64 of few rows at a time
            rows = slice(begin, begin + 64)
            p, q = log_softmax(expected[rows]), log_softmax(found[rows])
            kl.append(kl_divergence(p, q))
            same.append(p.argmax(axis=-1) == q.argmax(axis=-1))
            following = np.array(ids[begin + 1 : begin + 65], np.int64)
            nll.append(-q[np.arange(len(following)), following])
    divergence = np.concatenate(kl)
    return Errors(
        name,
        kl=float(divergence.mean()),
        kl_99=float(np.quantile(divergence, 0.99)),
        agreement=float(np.concatenate(same).mean()),
        perplexity=float(np.exp(np.concatenate(nll).mean())),
    )


def our_logits(
    kind: Kind, checkpoint: Path, windows: Windows, kv_cache_dtype: str | None
) -> tuple[float, list[Any]]:
    """Bits a weight, and the logits of every window. The reference keeps keys and values exactly."""
    kept = None if kind.label == REFERENCE else kv_cache_dtype
    model = models.load(checkpoint, kind.label, kept)
    count = layer_parameters(model.config) + head_parameters(model.config)
    bits = 8 * model._engine.nbytes_per_pass() / count
    return bits, [model.forward(ids).numpy() for ids in windows]


def llama_cpp_logits(
    kind: Kind, checkpoint: Path, cache: Path, threads: int, windows: Windows
) -> tuple[float, list[Any]]:
    """The same for llama.cpp."""
    peer = LlamaCpp(checkpoint, cache, kind, threads)
    config = infinilm.LlamaConfig.from_pretrained(checkpoint)
    count = layer_parameters(config) + head_parameters(config)
    bits = 8 * (peer.nbytes_per_pass or 0) / count
    return bits, [peer.all_logits(ids) for ids in windows]


def measure(
    candidate: Candidate,
    checkpoint: Path,
    cache: Path,
    threads: int,
    windows: Windows,
    folder: Path,
    kv_cache_dtype: str | None,
) -> Errors:
    """Runs in a process of its own, so that engines do not meet; errors come back as text."""
    infinilm.set_num_threads(threads)
    try:
        if candidate.peer == "infinilm":
            bits, logits = our_logits(candidate.kind, checkpoint, windows, kv_cache_dtype)
        else:
            bits, logits = llama_cpp_logits(candidate.kind, checkpoint, cache, threads, windows)
    except Exception as error:
        return Errors(str(candidate), failure=f"{type(error).__name__}: {error}")
    files = [folder / f"{i}.npy" for i in range(len(windows))]
    if not files[0].exists():  # the first one is the reference
        for file, values in zip(files, logits, strict=True):
            np.save(file, values)
    reference = [np.load(file, mmap_mode="r") for file in files]
    errors = compare_logits(str(candidate), windows, reference, logits)
    errors.bits = bits
    return errors


def read_windows(checkpoint: Path, text: Path, length: int, count: int) -> Windows:
    """The text's tokens, cut; each window begins with the tokenizer's own first token, if any."""
    tokenizer = infinilm.Tokenizer.from_pretrained(str(checkpoint))
    ids = tokenizer.encode(text.read_text(encoding="utf-8"))
    first = [i for i in tokenizer.encode("") if ids[0] == i]
    step = length - len(first)
    rest = ids[len(first) :]
    windows = [first + rest[i : i + step] for i in range(0, len(rest) - 1, step)]
    return [window for window in windows if len(window) > len(first) + 1][:count]


def write_windows(checkpoint: Path, length: int, count: int) -> Windows:
    """Text that the model itself writes, in float32."""
    model = models.load(checkpoint, REFERENCE)
    rng = np.random.default_rng(0)
    starts = rng.integers(0, model.config.vocab_size, (count, 1))
    sequences = model.generate(
        starts, max_new_tokens=length - 1, do_sample=True, temperature=1.0, seed=0, eos_token_id=[]
    )
    return [list(map(int, sequence)) for sequence in sequences]


def row(errors: Errors) -> list[str]:
    """A line of the table."""
    return [
        errors.name,
        f"{errors.bits:.2f}",
        f"{errors.kl:.3g}",
        f"{errors.kl_99:.3g}",
        f"{100 * errors.agreement:.1f} %",
        f"{errors.perplexity:.4g}",
    ]


HEADER = ["format", "bits a weight", "KL, nats", "KL, 99 %", "same likeliest token", "perplexity"]


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, metavar="DIR", help="checkpoint (default: the sample model)")
    add("--shape", choices=SHAPES, help="a random model instead")
    add("--text", type=Path, metavar="FILE", help="(default: eight sonnets, for a real model)")
    add("--window", type=report.positive, default=256, help="tokens of context (%(default)s)")
    add("--windows", type=report.positive, default=8, help="how many, at most (%(default)s)")
    add(
        "--kv-cache-dtype",
        choices=models.KV_DTYPES,
        help="of infinilm's formats but float32 (default: what is computed in)",
    )
    add("--threads", type=report.positive, default=report.processors())
    add("--classes", choices=CLASSES, nargs="+", default=list(CLASSES), help="number formats")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="formats with one of these in their names",
    )
    add(
        "--cache", type=Path, default=models.default_folder(), help="for checkpoints and GGUF files"
    )
    add("--json", metavar="FILE", type=Path, help="write the figures")
    return parser.parse_args()


def main() -> None:
    """Measures and prints."""
    options = parse_arguments()
    infinilm.set_num_threads(options.threads)
    if options.shape:
        checkpoint = models.make_checkpoint(options.shape, "bfloat16", options.cache)
    else:
        checkpoint = options.model or Path(infinilm.sample_model())
    if options.shape and not options.text:
        windows = write_windows(checkpoint, options.window, options.windows)
    else:
        windows = read_windows(checkpoint, options.text or TEXT, options.window, options.windows)
    names, missing = installed(["infinilm", "llama.cpp"])
    every = candidates(names, list(CLASSES), [])
    chosen = [c for c in every if str(c) == f"infinilm {REFERENCE}"]
    for candidate in candidates(names, options.classes, options.only):
        # Repacking changes the arithmetic's order at most.
        if candidate in chosen or "no repacking" in str(candidate):
            continue
        failure = (
            None
            if candidate.peer == "infinilm"
            else prepare(candidate, checkpoint, options.cache, [sys.executable])
        )
        missing += [failure] if failure else []
        chosen += [] if failure else [candidate]
    results = []
    with tempfile.TemporaryDirectory() as folder:
        work = partial(
            measure, checkpoint=checkpoint, cache=options.cache, threads=options.threads,
            windows=windows, folder=Path(folder), kv_cache_dtype=options.kv_cache_dtype,
        )  # fmt: skip
        for candidate in chosen:
            report.progress(str(candidate))
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                results.append(pool.apply(work, (candidate,)))
    report.progress("")
    tokens = sum(map(len, windows))
    title = f"{checkpoint.name}: {tokens} tokens in {len(windows)} windows"
    print(f"{title}\n\n{report.table(HEADER, [row(r) for r in results if not r.failure])}")
    for line in [*missing, *(f"{r.name}: {r.failure}" for r in results if r.failure)]:
        print(f"skipped: {line}", file=sys.stderr)
    report.write_json(options.json, {"title": title, "results": [asdict(r) for r in results]})


if __name__ == "__main__":
    main()
