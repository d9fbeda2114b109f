"""The tables of figures and the plot, from ``benchmarks/results``, which has one file per suite.

``python -m benchmarks.report`` writes every figure into docs/performance.md and the main ones into
README.md. It exits with 1 when a figure misses its bar.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGE = ROOT / "docs/performance.md"
RESULTS = ROOT / "benchmarks/results"
PLOT = ROOT / "docs/throughput.png"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
# Instruction sets that decide the speed of matrix products, by the names of Linux.
WIDE = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Bar:
    """A figure of the report and what it must reach.

    Attributes:
        name: The figure's name.
        key: The key of ``extra_info`` that holds the figure.
        limit: The bar.
        at_least: Whether the figure must reach the bar; else it must stay below it.
        form: The format of the figure.
        peer: Shows the peer's figure, where there is one.
        main: Whether the README shows the figure too.
    """

    name: str
    key: str
    limit: float
    at_least: bool
    form: str
    peer: Callable[[Facts], str] = lambda _: ""
    main: bool = False

    def met(self, facts: Facts) -> bool:
        """Whether the figure is on the right side of the bar."""
        value = facts[self.key]
        return bool(value >= self.limit if self.at_least else value <= self.limit)

    def row(self, facts: Facts) -> str:
        """A row of the table."""
        value, limit = self.form.format(facts[self.key]), self.form.format(self.limit)
        side = "≥" if self.at_least else "≤"
        verdict = "met" if self.met(facts) else "**missed**"
        return f"| {self.name} | {value} | {self.peer(facts)} | {side} {limit} | {verdict} |"


def _media(name: str, unit: str) -> Bar:
    return Bar(
        f"{name}, times transformers",
        "ratio",
        1.2,
        True,
        "{:.2f}",
        lambda f: (
            f"{f['items_per_second']:.1f} against {f['transformers_items_per_second']:.1f} {unit}/s"
        ),
        main=True,
    )


def _unseen(kind: str) -> Bar:
    return Bar(
        f"int8, mean cosine with fp32 on texts that no calibration saw: {kind}",
        "mean_cosine",
        0.9995,
        True,
        "{:.5f}",
    )


def _unseen_worst(kind: str) -> Bar:
    return Bar(f"the worst of these: {kind}", "min_cosine", 0.998, True, "{:.5f}")


KINDS = ("scientific", "dialogue", "code", "other languages")
BARS = {
    **{f"test_unseen[{kind}]": (_unseen(kind), _unseen_worst(kind)) for kind in KINDS},
    "test_throughput[natural]": (
        Bar(
            "Natural-length texts, times sentence-transformers",
            "ratio",
            2.0,
            True,
            "{:.2f}",
            lambda f: (
                f"{f['tokens_per_second']:,.0f} against "
                f"{f['sentence_transformers_tokens_per_second']:,.0f} tokens/s"
            ),
            main=True,
        ),
        Bar(
            "Natural-length texts, fraction of the machine's peak",
            "peak_fraction",
            0.9,
            True,
            "{:.2f}",
            lambda f: f"{f['peak_kernel']}'s products, {f['peak_gflops']:.0f} GFLOP/s",
        ),
    ),
    "test_throughput[short (8 to 16 tokens)]": (
        Bar(
            "Short texts, times sentence-transformers",
            "ratio",
            1.0,
            True,
            "{:.2f}",
            lambda f: (
                f"{f['tokens_per_second']:,.0f} against "
                f"{f['sentence_transformers_tokens_per_second']:,.0f} tokens/s"
            ),
        ),
    ),
    "test_throughput[long (256 tokens)]": (
        Bar(
            "Texts of 256 tokens, times sentence-transformers",
            "ratio",
            1.0,
            True,
            "{:.2f}",
            lambda f: (
                f"{f['tokens_per_second']:,.0f} against "
                f"{f['sentence_transformers_tokens_per_second']:,.0f} tokens/s"
            ),
        ),
    ),
    "test_media[images]": (_media("Image files, DINOv2-small's geometry", "images"),),
    "test_media[sounds]": (_media("Sound files, wav2vec2-base's geometry", "sounds"),),
    "test_first_vector": (
        Bar(
            "Import to first vector, s",
            "first_vector_seconds",
            1.0,
            False,
            "{:.2f}",
            lambda f: (
                f"sentence-transformers {f['sentence_transformers_first_vector_seconds']:.1f}"
            ),
            main=True,
        ),
        Bar(
            "Peak resident memory then, MiB",
            "resident_mib",
            250,
            False,
            "{:.0f}",
            lambda f: f"sentence-transformers {f['sentence_transformers_resident_mib']:.0f}",
            main=True,
        ),
    ),
    "test_large_file": (
        Bar("Growth over a 200,000-line file, MiB", "growth_mib", 300, False, "{:.0f}", main=True),
    ),
    "test_pipeline": (
        Bar(
            "Streaming short lines with a tiny model, times a bare loop",
            "fraction_of_bare",
            0.8,
            True,
            "{:.2f}",
            lambda f: (
                f"{f['lines_per_second']:,.0f} lines/s, "
                f"{f['tokenizing_cpu_share']:.0%} of it tokenizing"
            ),
        ),
        Bar(
            "The same in CPU seconds",
            "cpu_fraction_of_bare",
            0.8,
            True,
            "{:.2f}",
            lambda f: f"{f['cpu_fraction_of_bare_and_tokenizing']:.2f} of bare loop and tokenizing",
        ),
    ),
    "test_flat_memory[short]": (
        Bar(
            "Memory's growth from the first to the last quarter of 1,000,000 lines, MiB",
            "growth_mib",
            32,
            False,
            "{:.0f}",
            lambda f: f"peak {f['peak_mib']:.0f}",
        ),
    ),
    "test_flat_memory[mixed]": (
        Bar(
            "The same, lengths of 1 to 200 words mixed, MiB",
            "growth_mib",
            32,
            False,
            "{:.0f}",
            lambda f: f"peak {f['peak_mib']:.0f}",
        ),
    ),
    "test_cache": (
        Bar(
            "Texts whose vectors are in the cache, times computing them",
            "ratio",
            10,
            True,
            "{:.0f}",
            lambda f: f"{f['bytes_a_text']:,.0f} bytes per text",
        ),
    ),
    "test_quantization": (
        Bar(
            "int8, mean cosine with PyTorch",
            "int8_mean_cosine",
            0.9995,
            True,
            "{:.5f}",
            lambda f: f"quantize_dynamic {f['ort_dynamic_mean_cosine']:.5f}",
            main=True,
        ),
        Bar(
            "int8, worst cosine of 600 texts",
            "int8_min_cosine",
            0.998,
            True,
            "{:.5f}",
            lambda f: f"quantize_dynamic {f['ort_dynamic_min_cosine']:.5f}",
        ),
        Bar(
            "int8, Spearman of similarities with fp32's",
            "int8_ranking",
            0.999,
            True,
            "{:.5f}",
            lambda f: f"quantize_dynamic {f['ort_dynamic_ranking']:.5f}",
        ),
        Bar("int8, batch against single", "int8_batch_difference", 1e-6, False, "{:.0e}"),
        Bar(
            "int8, times fp32's speed",
            "int8_speed",
            1.4,
            True,
            "{:.2f}",
            lambda f: (
                f"quantize_dynamic {f['ort_dynamic_speed']:.2f}, "
                f"static QDQ {f['ort_static_speed']:.2f}"
            ),
            main=True,
        ),
        Bar("int8, times quantize_dynamic's speed", "int8_over_dynamic", 1.0, True, "{:.2f}"),
        Bar("int8, fraction of fp32's size", "int8_size", 0.3, False, "{:.3f}", main=True),
        Bar("fp16 on the CPU, times fp32's speed", "fp16_speed", 0.95, True, "{:.2f}"),
        Bar("fp16, fraction of fp32's size", "fp16_size", 0.51, False, "{:.3f}"),
        Bar("fp16, max abs error", "fp16_max_abs_error", 2e-3, False, "{:.0e}"),
    ),
    "test_int4_of_a_decoder": (
        Bar(
            "int4 of a decoder, fraction of fp32's memory",
            "int4_memory",
            0.2,
            False,
            "{:.3f}",
            lambda f: f"{f['int4_mib']:.0f} of {f['fp32_mib']:.0f} MiB",
        ),
    ),
    "test_installed_size": (
        Bar("Installed size, MiB", "installed_mib", 260, False, "{:.0f}", main=True),
    ),
}


def main() -> int:
    """Rewrite the tables and the plot; 1 when a bar was missed."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*"))]
    table = "\n\n".join(_tables(results))
    print(table)
    fill(PAGE, table, BEGIN, END)
    fill(README, "\n\n".join(_tables(results, main=True)), BEGIN, END)
    _plot(_facts(results))
    return int("**missed**" in table)


def fill(page: Path, text: str, begin: str, end: str) -> None:
    """Put text between the two marks of a page.

    Raises:
        ValueError: The page lacks a mark.
    """
    before, begins, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ends, after = rest.partition(end)
    if not begins or not ends:
        raise ValueError(f"{page} lacks {begin} or {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def _facts(results: Sequence[Facts]) -> dict[str, Facts]:
    """What each benchmark found, by its name."""
    return {b["name"]: b["extra_info"] for suite in results for b in suite["benchmarks"]}


def _tables(results: Sequence[Facts], *, main: bool = False) -> Iterator[str]:
    """One table per machine that suites ran on, after the machine's name; or the main figures."""
    machines = dict.fromkeys(map(_hardware, results))
    for machine in machines:
        suites = [suite for suite in results if _hardware(suite) == machine]
        rows = list(_rows(_facts(suites), main=main))
        if rows:
            latest = max(suite["datetime"] for suite in suites)[:10]
            title = f"{machine}; {latest}. Written by `python3 dev.py bench`."
            head = ["| what | fmrt | compared with | bar | |", "|---|---|---|---|---|"]
            yield "\n".join([title, "", *head, *rows])


def _rows(facts: Mapping[str, Facts], *, main: bool) -> Iterator[str]:
    for test, bars in BARS.items():
        if test in facts:
            yield from (bar.row(facts[test]) for bar in bars if bar.main or not main)


def _hardware(results: Facts) -> str:
    machine = results["machine_info"]
    cpu = machine["cpu"]
    wide = [flag for flag in WIDE if flag in cpu.get("flags", ())]
    return (
        f"{cpu.get('brand_raw', machine['machine'])}, {cpu['count']} cores, {', '.join(wide)}; "
        f"Python {machine['python_version']}"
    )


def _plot(facts: Mapping[str, Facts]) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    chosen = [f for name, f in facts.items() if name.startswith("test_throughput")]
    if not chosen:
        return
    figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
    positions = range(len(chosen))
    peers = [f["sentence_transformers_tokens_per_second"] for f in chosen]
    axes.barh(
        [p - 0.2 for p in positions], [f["tokens_per_second"] for f in chosen], 0.4, label="fmrt"
    )
    axes.barh([p + 0.2 for p in positions], peers, 0.4, label="sentence-transformers (torch)")
    axes.set_yticks(positions, [f["texts"] for f in chosen])
    axes.set_xlabel("tokens per second, all-MiniLM-L6-v2, fp32")
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=2)
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
