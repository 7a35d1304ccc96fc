"""The tables of a comparison, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import report
from peers import CLASSES
from peers.base import read_config
from sampling import Result, Work

SPEEDS = [
    "engine",
    "prefill tok/s",
    "of peak",
    "decode tok/s",
    "GB/s of weights",
    "of bandwidth",
    "load s",
    "peak MB",
    "tokens as float32",
    "others' load",
]


def layer_parameters(work: Work) -> int:
    """Parameters of the matrices of all layers."""
    config = read_config(work.checkpoint)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    kv_heads = config.get("num_key_value_heads") or heads
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    return int(config["num_hidden_layers"] * (attention + 3 * hidden * config["intermediate_size"]))


def equal_tokens(a: list[int], b: list[int]) -> int:
    """How many from the beginning."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def speed_row(result: Result, work: Work, reference: list[int]) -> list[str]:
    """A candidate's line."""
    samples = result.samples
    flops = 2e-9 * layer_parameters(work)
    gbs = [1e-9 * result.nbytes_per_pass * s.decode for s in samples]
    of_peak = [100 * flops * s.prefill / s.peak_gflops for s in samples]
    of_read = [100 * x / s.read_gbs for x, s in zip(gbs, samples, strict=True)]
    equal = f"{equal_tokens(result.tokens, reference)} of {len(reference)}" if reference else ""
    others = [s.prefill_others for s in samples] + [s.decode_others for s in samples]
    return [
        str(result.candidate),
        report.spread([s.prefill for s in samples]),
        f"{statistics.median(of_peak):.0f} % {result.instruction}",
        report.spread([s.decode for s in samples]),
        f"{statistics.median(gbs):.4g}",
        f"{statistics.median(of_read):.0f} %",
        f"{statistics.median(result.load_seconds):.2f}",
        f"{result.rss_mb:.0f}",
        equal,
        f"{statistics.median(others):.0f} %",
    ]


def best(results: list[Result], name: str) -> Result | None:
    """The one with the highest median."""
    return max(
        results,
        key=lambda result: statistics.median(getattr(s, name) for s in result.samples),
        default=None,
    )


def ratio(mine: Result, other: Result | None, name: str) -> str:
    """Round by round, and against whom."""
    if other is None:
        return ""
    rounds = sorted({s.round for s in mine.samples} & {s.round for s in other.samples})
    values = [mine.of_round(n, name) / other.of_round(n, name) for n in rounds]
    return f"{report.spread(values)} × {other.candidate}" if values else ""


def in_class(results: list[Result], name: str, ours: bool) -> list[Result]:
    """Those of a class that ran: infinilm's kinds or the others."""
    return [
        r
        for r in results
        if r.samples
        and r.candidate.kind.format_class == name
        and (r.candidate.peer == "infinilm") == ours
    ]


def per_class(results: list[Result], rows: Callable[[str], list[list[str]]]) -> list[list[str]]:
    """Rows of all classes that somebody ran."""
    present = {r.candidate.kind.format_class for r in results}
    return [row for name in CLASSES if name in present for row in rows(name)]


def tables(results: list[Result], work: Work) -> str:
    """Speeds, class by class; infinilm against the best of the others; who did not run."""
    reference = next((r.tokens for r in results if str(r.candidate) == "infinilm float32"), [])

    def speeds(name: str) -> list[list[str]]:
        ran = in_class(results, name, True) + in_class(results, name, False)
        return [speed_row(r, work, reference) for r in ran]

    def ratios(name: str) -> list[list[str]]:
        peers = in_class(results, name, False)
        return [
            [
                str(mine.candidate),
                ratio(mine, best(peers, "prefill"), "prefill"),
                ratio(mine, best(peers, "decode"), "decode"),
            ]
            for mine in in_class(results, name, True)
            if peers
        ]

    parts = [report.table(SPEEDS, per_class(results, speeds))]
    against = per_class(results, ratios)
    if against:
        header = ["times as fast as the best other", "prefill", "decode"]
        parts.append(report.table(header, against))
    failed = [f"- {r.candidate}: {r.failure}" for r in results if r.failure]
    if failed:
        parts.append("Did not run:\n\n" + "\n".join(failed))
    versions = dict.fromkeys(r.version for r in results if r.version)
    parts.append("Versions: " + "; ".join(versions) + ".")
    return "\n\n".join(parts)
